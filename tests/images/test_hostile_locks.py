"""A bento's list of requirements has nothing built and nothing sent but names."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from package_index import Index, package_index

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.requirements import installer_line, objections
from kfp_bento.runtime.images.python.selection import select_wheels

if TYPE_CHECKING:
    from collections.abc import Iterator

AMD64 = Platform("linux", "amd64")
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
SECRET = "s3cr3t-T0ken"
HASH = f"--hash=sha256:{'0' * 64}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    (tmp_path / "netrc").write_text(f"default login robot password {SECRET}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with package_index() as found:
        monkeypatch.setenv("UV_DEFAULT_INDEX", found.simple)
        yield found


def lock(folder: Path, *lines: str) -> Lock:
    (folder / "src").mkdir(exist_ok=True)
    file = folder / "requirements.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    return Lock(file, folder / "src", MINOR)


def hashed(index: Index, filename: str) -> str:
    return f"--hash=sha256:{hashlib.sha256(index.files[filename]).hexdigest()}"


@pytest.mark.parametrize(
    "option", ["--only-binary :none:", "--no-binary evil", "--no-binary=:all:"]
)
def test_an_option_of_a_lock_has_no_code_built(tmp_path: Path, index: Index, option: str) -> None:
    marker = tmp_path / "ran"
    index.has_sources("evil", str(marker))
    evil = f"evil==1.0 {hashed(index, 'evil-1.0.tar.gz')}"
    with pytest.raises(ImageError):
        select_wheels(lock(tmp_path, option, evil), AMD64)
    assert not marker.exists()


def test_logins_are_for_the_hosts_they_name(tmp_path: Path, index: Index) -> None:
    with package_index() as other:
        place = other.has_wheel("thing")
        index.has_wheel("own")
        lines = [
            f"thing @ {place} {hashed(other, 'thing-1.0-py3-none-any.whl')}",
            f"own==1.0 {hashed(index, 'own-1.0-py3-none-any.whl')}",
        ]
        chosen = select_wheels(lock(tmp_path, *lines), AMD64)
        assert [wheel.name for wheel in chosen] == ["own", "thing"]
        assert other.arrived
        assert not [account for _, account in (*other.arrived, *index.arrived) if account]


def test_metadata_of_a_wheel_leads_nowhere(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_OTHER_PASSWORD", SECRET)
    with package_index() as other:
        needed = f"evil @ {other.address}/${{UV_INDEX_OTHER_PASSWORD}}/evil-1.0.tar.gz"
        place = index.has_wheel("thing", requires=[needed])
        line = f"thing @ {place} {hashed(index, 'thing-1.0-py3-none-any.whl')}"
        assert [wheel.name for wheel in select_wheels(lock(tmp_path, line), AMD64)] == ["thing"]
        assert other.arrived == []


@pytest.mark.parametrize(
    "text",
    [
        f"idna==3.10 {HASH}\x0b-r /etc/passwd",
        f"idna==3.10 {HASH}\x0c--extra-index-url https://x.invalid",
        f"idna==3.10 {HASH}\u2028-r /etc/passwd",
        f"idna==3.10 {HASH}\x1c-r /etc/passwd",
        f"idna==3.10 {HASH}\r-r /etc/passwd",
        f"id\u0144a==3.10 {HASH}",
        f"idna==3.10 --config-settings=x=y {HASH}",
        f"idna==3.10; python_version > '3' or \"'\" == '1' {HASH}",
        f"idna @ http://x.invalid/idna-3.10-py3-none-any.whl {HASH}",
        f"--index-url http://x.invalid/simple\nidna==3.10 {HASH}",
        f"idna==3.10, six {HASH}",
        f"idna@idna {HASH}",
        f"idna@{HASH} {HASH}",
    ],
)
def test_a_line_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"{text}\n", newline="")
    assert list(objections(tmp_path / "requirements.txt"))


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (f"idna ==3.10 ;python_version<'4' {HASH}", f'idna==3.10; python_version < "4" {HASH}'),
        (
            f"./wheels/a-1-py3-none-any.whl {HASH}",
            f"a @ file:///x/wheels/a-1-py3-none-any.whl {HASH}",
        ),
        (
            f"/y/a-1-py3-none-any.whl ; python_version<'4' {HASH}",
            f'a @ file:///y/a-1-py3-none-any.whl ; python_version < "4" {HASH}',
        ),
        (
            f"wheels/a-1-py3-none-any.whl[extra] {HASH}",
            f"a @ file:///x/wheels/a-1-py3-none-any.whl {HASH}",
        ),
        (
            f"a @ https://x.invalid/${{TOKEN}}/a-1-py3-none-any.whl {HASH}",
            f"a @ https://x.invalid/${{TOKEN}}/a-1-py3-none-any.whl {HASH}",
        ),
    ],
)
def test_what_uv_gets_is_written_anew(line: str, written: str) -> None:
    assert installer_line(line, Path("/x")) == written


def test_variables_of_a_list_of_ones_own_are_filled_in(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELF", "shelf-of-mine")
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    index.has_wheel("own")
    line = f"own==1.0 {hashed(index, 'own-1.0-py3-none-any.whl')}"
    select_wheels(lock(tmp_path, f"--index-url {index.address}/${{SHELF}}/simple", line), AMD64)
    assert "/shelf-of-mine/simple/own/" in index.paths
