"""A service of one's own comes through any door, and the bento depends on its source alone."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from git_server import GitServer, git_server
from servers import S3Server

from kfp_bento.runtime.bentos import Bento, build_bento
from kfp_bento.runtime.bentos.service_location import fetched_service
from kfp_bento.runtime.errors import BentoError, InvalidInput, KfpBentoError, StorageError
from kfp_bento.runtime.storage import open_place

SOURCE = """\
import bentoml


@bentoml.service
class Greeter:
    @bentoml.api
    def greet(self, name: str = "you") -> str:
        return f"hello {name}"
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OBJECTS = ("plain.py", "top.tar", "folder.tar.gz", "top.tar.xz", "folder.tar.bz2", "top.zip")


@pytest.fixture
def quick_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kfp_bento.runtime.bentos.build.lock_requirements", lambda *_: "six==1.17.0\n"
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service as a file, as a directory and in archives: at the top, or in one folder."""
    folder = tmp_path_factory.mktemp("packed")
    for place in (folder / "service.py", folder / "directory/service.py"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(SOURCE)
    shutil.copyfile(folder / "service.py", folder / "plain.py")
    for name, inside in (("top", ""), ("folder", "greeter-main/"), ("deep", "all/services/one/")):
        for suffix, mode in (("tar", ""), ("tar.gz", "gz"), ("tar.xz", "xz"), ("tar.bz2", "bz2")):
            write: Any = f"w:{mode}"
            with tarfile.open(folder / f"{name}.{suffix}", write) as tar:
                member = tarfile.TarInfo(f"{inside}service.py")
                member.size = len(SOURCE)
                tar.addfile(member, io.BytesIO(SOURCE.encode()))
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as zipped:
            zipped.writestr(f"{inside}service.py", SOURCE)
    return folder


@pytest.fixture(scope="module")
def web(packed: Path) -> Iterator[str]:
    """The address of a web server with these files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(packed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    with git_server(tmp_path_factory.mktemp("git")) as found:
        yield found


@pytest.fixture(scope="module")
def repositories(git: GitServer) -> dict[str, str]:
    """The service at the top of one repository, and in a folder of another one."""
    top = git.has("greeter", {"service.py": SOURCE})
    deep = git.has("many", {"services/one/service.py": SOURCE, "README.md": "Two."})
    return {
        "a repository": f"{git.of('greeter')}@{top}",
        "a folder of a repository": f"{git.of('many')}@{deep}#subdirectory=services/one",
    }


@pytest.fixture
def doors(
    packed: Path,
    web: str,
    repositories: dict[str, str],
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """The same service behind every door."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KFP_BENTO_PLAIN_HTTP", "true")
    for name in (*OBJECTS, "deep.tar.gz"):
        open_place(f"s3://{s3_server.bucket}/doors/{name}").write(packed / name)
    # An artifact of KFP has a name without a suffix.
    open_place(f"minio://{s3_server.bucket}/doors/artifact").write(packed / "service.py")
    digest = hashlib.sha256((packed / "deep.tar.gz").read_bytes()).hexdigest()
    pinned = f"#sha256={digest}&subdirectory=all/services/one"
    return {
        "a file": str(packed / "service.py"),
        "a directory": str(packed / "directory"),
        "text": SOURCE,
        "text with a margin": "\n" + "".join(f"    {line}\n" for line in SOURCE.splitlines()),
        **repositories,
        "a file on the web": f"{web}/service.py?signed=yes",
        "an archive on the web": f"{web}/folder.tar.gz",
        "a file:// address": f"{(packed / 'top.tar.xz').as_uri()}",
        "a path of an archive": str(packed / "folder.tar.bz2"),
        "a path with a sum": f"{packed / 'deep.tar.gz'}{pinned}",
        "s3://": f"s3://{s3_server.bucket}/doors/top.zip",
        "s3:// with a sum": f"s3://{s3_server.bucket}/doors/deep.tar.gz{pinned}",
        "minio://": f"minio://{s3_server.bucket}/doors/top.tar",
        "an artifact of KFP": f"minio://{s3_server.bucket}/doors/artifact",
    }


def test_every_door_leads_to_the_same_source(doors: dict[str, str], tmp_path: Path) -> None:
    for number, (door, location) in enumerate(doors.items()):
        work = tmp_path / f"work-{number}"
        work.mkdir()
        found = fetched_service(location, work)
        file = found if found.is_file() else found / "service.py"
        assert (file.name, file.read_text()) == ("service.py", SOURCE), door
        assert [one.name for one in file.parent.iterdir() if found.is_dir()] in (
            [],
            ["service.py"],
        ), door


@pytest.mark.slow
def test_the_bento_is_the_same_through_every_door(
    doors: dict[str, str], tmp_path: Path, quick_lock: None
) -> None:
    built = {
        door: build_bento([], tmp_path / str(number), service=location)
        for number, (door, location) in enumerate(doors.items())
    }
    first = built["a file"]
    assert (first.name, first.service, first.models) == ("greeter", "service:Greeter", ())
    told = {door: (bento.tag, bento.digest) for door, bento in built.items()}
    assert told == dict.fromkeys(doors, (first.tag, first.digest))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(len(doors))))


@pytest.fixture
def cell(tmp_path: Path, quick_lock: None) -> Bento:
    return build_bento([], tmp_path / "cell", service=SOURCE)


def test_a_cell_of_a_notebook_and_a_directory_are_the_same_bento(
    cell: Bento, packed: Path, tmp_path: Path
) -> None:
    other = build_bento([], tmp_path / "other", service=packed / "directory")
    assert (other.tag, other.digest) == (cell.tag, cell.digest)


def fetched(location: str, folder: Path) -> KfpBentoError:
    with pytest.raises(KfpBentoError) as refused:
        fetched_service(location, folder)
    assert refused.value.hint
    return refused.value


@pytest.mark.parametrize(
    ("location", "told", "way_out"),
    [
        ("ftp://host/service.py", "'ftp://' is no storage", "https://"),
        ("git@host:team/greeter", "There is no service at", "git+https://host/repository@COMMIT"),
        ("git+https://host/team/greeter@main", "names no full commit", "git ls-remote"),
        (f"git+ssh://git@host/greeter@{COMMIT}", "no git+https address", "netrc"),
        (f"git+https://a:secret@host/greeter@{COMMIT}", "an account in its address", "netrc"),
        ("s3://bucket/x.zip#sha256=12", "is not understood: sha256=12", "#sha256=<64 digits>"),
        ("s3://bucket/x.zip#subdirectory=a&b=c", "is not understood", "&subdirectory=<folder>"),
        ("import bentoml\n%pip install x\n", "is no Python (line 2)", "notebook"),
        ("http://127.0.0.1:9/x.py", "plain HTTP", "KFP_BENTO_PLAIN_HTTP"),
    ],
)
def test_what_is_no_service_is_refused_with_a_way_out(
    location: str, told: str, way_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KFP_BENTO_PLAIN_HTTP", raising=False)
    refused = fetched(location, tmp_path)
    assert told in refused.message
    assert way_out in refused.hint
    assert "secret" not in str(refused)


@pytest.mark.usefixtures("repositories")
def test_a_commit_that_is_not_there_is_refused(git: GitServer, tmp_path: Path) -> None:
    refused = fetched(f"{git.of('greeter')}@{COMMIT}", tmp_path)
    assert f"greeter.git@{COMMIT} cannot be had" in refused.message
    assert "commit" in refused.hint


def test_a_repository_without_a_service_there_names_the_folder(
    git: GitServer, tmp_path: Path
) -> None:
    commit = git.has("elsewhere", {"code/service.py": SOURCE})
    (tmp_path / "one").mkdir()
    refused = fetched(f"{git.of('elsewhere')}@{commit}", tmp_path / "one")
    assert "holds no BentoML service" in refused.message
    assert "#subdirectory=folder" in refused.hint
    refused = fetched(f"{git.of('elsewhere')}@{commit}#subdirectory=cod", tmp_path)
    assert "no folder cod" in refused.message


def test_a_link_out_of_a_repository_is_refused(git: GitServer, tmp_path: Path) -> None:
    git.has("links", {"service.py": SOURCE})
    (git.folder / "work/links/README.md").symlink_to("/etc/hostname")
    commit = git.has("links", {})
    refused = fetched(f"{git.of('links')}@{commit}", tmp_path)
    assert "'README.md', which is a link that leaves" in refused.message
    assert "The service in git+http" in refused.message


def test_another_sum_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has the SHA-256"):
        fetched_service(f"{packed / 'top.zip'}#sha256={'0' * 64}", tmp_path)
    with pytest.raises(InvalidInput, match="is a directory"):
        fetched_service(f"{packed / 'directory'}#sha256={'0' * 64}", tmp_path)


@pytest.mark.parametrize(
    ("files", "told", "way_out"),
    [
        ({"readme": "x"}, "holds no BentoML service", "#subdirectory=folder"),
        ({"a/service.py": SOURCE, "b/service.py": SOURCE}, "holds no BentoML", "#subdirectory="),
        ({"bento.yaml": "name: x"}, "is a bento", "kfp-bento bento import"),
        ({"../service.py": SOURCE}, "The archive is refused", "who made it"),
    ],
)
def test_an_archive_without_a_service_is_refused(
    files: dict[str, str], told: str, way_out: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    refused = fetched(str(tmp_path / "x.zip"), tmp_path)
    assert told in refused.message
    assert way_out in refused.hint


@pytest.mark.parametrize("content", [b"<html>no</html>", b"\x00\x01\x02", b"\xff\xfe"])
def test_a_file_that_is_neither_python_nor_an_archive_is_refused(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "page").write_bytes(content)
    with pytest.raises(
        BentoError, match=r"is no Python|is neither Python nor an archive"
    ) as refused:
        fetched_service(str(tmp_path / "page"), tmp_path)
    assert "s3://" in refused.value.hint
