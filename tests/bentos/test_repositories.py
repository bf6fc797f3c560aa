"""Packages from repositories: only where the user allows it, at a commit, and built apart."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import packed_models as samples
import pytest
from git_server import GitServer, git_server
from package_index import Index, package_index

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.bentos.lock import lock_requirements, requirement_texts
from kfp_bento.runtime.errors import BentoError, KfpBentoError
from kfp_bento.runtime.images.assembly.qualify import qualify
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.programs import confined
from kfp_bento.runtime.requirements import allowed_sources, read_requirements
from kfp_bento.runtime.requirements.repositories import clone

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

SECRET = "s3cr3t-T0ken"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Builds a wheel with nothing but the standard library, and packs what it saw meanwhile.
BACKEND = """
import os, socket, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    saw = [repr(sorted(os.environ.items()))]
    for place in PLACES:
        try:
            saw.append(open(place).read())
        except OSError as error:
            saw.append(type(error).__name__)
    try:
        socket.create_connection(ADDRESS, 2)
        saw.append("connected")
    except OSError:
        saw.append("no network")
    name = f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        def put(path, text):
            wheel.writestr(zipfile.ZipInfo(path), text)
        put(f"{NAME}.py", f"saw = {chr(10).join(saw) if SHOW else ''!r}")
        put(f"{NAME}-1.0.dist-info/METADATA",
            f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: 1.0\\n" + NEEDS)
        put(f"{NAME}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        put(f"{NAME}-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "git").mkdir()
    with git_server(tmp_path / "git") as found:
        yield found


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with package_index() as found:
        bentoml = version("bentoml")
        for name in ("mlflow_skinny", "numpy", "pandas", "bentoml"):
            found.has_wheel(name, bentoml if name == "bentoml" else "9.9")
        monkeypatch.setenv("UV_DEFAULT_INDEX", found.simple)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    samples.save_echo(tmp_path / "model")
    return tmp_path / "model"


def project(
    name: str = "thing",
    *,
    places: Sequence[str] = (),
    address: tuple[str, int] = ("127.0.0.1", 9),
    needs: str = "",
    requires: Sequence[str] = (),
    show: bool = True,
) -> dict[str, str]:
    """The files of a project that packs what its build saw."""
    fixed = f"NAME, PLACES, ADDRESS = {name!r}, {list(places)!r}, {address!r}\n"
    return {
        "backend.py": f"{fixed}NEEDS, SHOW = {needs!r}, {show!r}\n{BACKEND}",
        "pyproject.toml": f"[build-system]\nrequires = {list(requires)!r}\n"
        "build-backend = 'backend'\nbackend-path = ['.']\n"
        f"[project]\nname = '{name}'\nversion = '1.0'\n",
    }


def lock_of(folder: Path, line: str, allowed: str) -> str:
    """The lock of one line of somebody's, and its wheels in the folder."""
    read = read_requirements(
        [line], whose="the test", error=BentoError, sources=allowed_sources([allowed])
    )
    return lock_requirements(requirement_texts(read), [], "3.11", folder)


def bento_of(model: Path, *lines: str, allowed: str = "") -> Path:
    (model / "requirements.txt").write_text(
        "".join(f"{line}\n" for line in ("mlflow==9.9", *lines))
    )
    bento = model.parent / "bento"
    build_bento([load_model(model)], bento, allow_sources=[allowed] if allowed else [])
    return bento


def test_a_repository_that_is_allowed_becomes_a_wheel_of_the_bento(
    model: Path, git: GitServer, index: Index
) -> None:
    commit = git.has("thing", project(show=False))
    git.has("thing", {"later.txt": "later"})
    bento = bento_of(
        model, f"thing @ {git.of('thing')}@{commit}", allowed=f"git+{git.address}/team/"
    )
    wheel = bento / "src" / "wheels" / "thing-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = (bento / "env/python/requirements.txt").read_text()
    assert f"./wheels/{wheel.name} \\\n    --hash=sha256:{digest}\n" in lock
    assert f"# thing @ {git.of('thing')}@{commit}\n" in lock
    qualify(bento)
    shutil.move(bento, model.parent / "first")
    again = bento_of(
        model, f"thing @ {git.of('thing')}@{commit}", allowed=f"git+{git.address}/team/"
    )
    assert (again / "bento.yaml").read_bytes() == (model.parent / "first/bento.yaml").read_bytes()


def test_the_build_sees_neither_credentials_nor_variables_nor_the_network(
    git: GitServer, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if confined(["true"], error=KfpBentoError) == ["true"]:
        pytest.skip("This system cannot confine a program.")
    host, port = git.address.removeprefix("http://").split(":")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {host} login robot password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    places = [str(netrc), f"/proc/{os.getpid()}/environ"]
    commit = git.has("thing", project(places=places, address=(host, int(port))))
    lock_of(tmp_path, f"thing @ {git.of('thing')}@{commit}", git.of("thing"))
    with zipfile.ZipFile(next((tmp_path / "wheels").iterdir())) as wheel:
        saw = wheel.read("thing.py").decode()
    assert SECRET not in saw
    assert "no network" in saw
    assert saw.count("PermissionError") == 2


def test_an_account_of_the_netrc_file_is_for_the_host_alone(
    git: GitServer, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"default login robot password {SECRET}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    commit = git.has("thing", project())
    lock_of(tmp_path, f"thing @ {git.of('thing')}@{commit}", f"git+{git.address}/")
    assert git.arrived
    assert not any(sent for _, sent in git.arrived)


def test_the_version_may_follow_from_the_tags(git: GitServer, tmp_path: Path) -> None:
    """What setuptools_scm and its like ask git for is there."""
    commit = git.has("thing", {"a.txt": "a"}, tag="v2.1")
    (line,) = read_requirements(
        [f"thing @ {git.of('thing')}@{commit}"],
        whose="the test",
        error=BentoError,
        sources=allowed_sources([f"git+{git.address}"]),
    ).lines
    assert line.repository
    assert clone(line.repository, tmp_path / "clone", tmp_path, BentoError) == "1700000000"
    said = subprocess.run(
        ["git", "-C", str(tmp_path / "clone"), "describe", "--tags"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(tmp_path)},
    )
    assert said.stdout == "v2.1\n"


def test_a_project_may_lie_in_a_folder_and_be_built_by_setuptools(
    git: GitServer, tmp_path: Path
) -> None:
    """Against the index that is configured here: the backend is really installed."""
    commit = git.has(
        "many",
        {
            "python/thing/setup.cfg": "[metadata]\nname = thing\nversion = 3\n"
            "[options]\npy_modules = thing\n",
            "python/thing/pyproject.toml": "[build-system]\nrequires = ['setuptools']\n"
            "build-backend = 'setuptools.build_meta'\n",
            "python/thing/thing.py": "answer = 42\n",
        },
    )
    line = f"thing @ {git.of('many')}@{commit}#subdirectory=python/thing"
    lock_of(tmp_path, line, git.of("many"))
    assert [file.name for file in (tmp_path / "wheels").iterdir()] == ["thing-3-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("thing @ git+https://git.invalid/team/thing@main", "names no full commit"),
        ("thing @ git+https://git.invalid/team/thing", "no git\\+https address with a commit"),
        (f"thing @ git+https://git.invalid/team/thing@{COMMIT[:12]}", "names no full commit"),
        (f"thing @ git+https://u:p@git.invalid/team/thing@{COMMIT}", "has an account"),
        (f"thing @ git+https://git.invalid/other/thing@{COMMIT}", "so its code would be run here"),
        (f"thing @ git+https://git.invalid/team/../other/thing@{COMMIT}", "no plain http"),
        (f"thing @ git+http://git.invalid/team/thing@{COMMIT}", "so its code would be run here"),
        (f"thing @ git+https://git.invalid.evil/team/thing@{COMMIT}", "so its code would be run"),
        (f"thing @ git+ssh://git@git.invalid/team/thing@{COMMIT}", "no git\\+https address"),
        (f"thing @ git+file:///team/thing@{COMMIT}", "local file|no git\\+https address"),
        (f"thing @ git+https://git.invalid/team/t@{COMMIT}#subdirectory=../x", "fragment"),
        (f"thing @ git+https://git.invalid/team/t@{COMMIT}#x=y", "fragment"),
        (f"thing @ hg+https://git.invalid/team/thing@{COMMIT}", "its code would be run here"),
        (f"git+https://git.invalid/team/thing@{COMMIT}", "without the name of its package"),
    ],
)
def test_what_is_no_repository_of_the_allowed_ones_is_refused(line: str, says: str) -> None:
    with pytest.raises(BentoError, match=says) as refused:
        read_requirements(
            [line],
            whose="the model",
            error=BentoError,
            sources=allowed_sources(["git+https://git.invalid/team/", "https://git.invalid/"]),
        )
    assert refused.value.hint
    assert "u:p" not in str(refused.value)


def test_allowing_wheels_of_a_host_allows_no_code_of_it() -> None:
    allowed = allowed_sources(["https://git.invalid/"])
    with pytest.raises(BentoError, match=r"--allow-source git\+https://git.invalid/team/thing"):
        read_requirements(
            [f"thing @ git+https://git.invalid/team/thing@{COMMIT}"],
            whose="the model",
            error=BentoError,
            sources=allowed,
        )


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (project("other"), "is not the package thing.*Write other @ git"),
        (project(needs="Requires-Dist: x @ https://x.invalid/x.whl\n"), "by address"),
        (project(requires=["x @ https://x.invalid/x-1.0-py3-none-any.whl"]), "not allowed"),
        (project(requires=["-r /proc/self/environ"]), "is the option -r"),
        (project(requires=["nowhere-to-be-had"]), "cannot be installed"),
        ({"pyproject.toml": "[build-system\n"}, "does not say what its build needs"),
        ({"pyproject.toml": "[build-system]\nrequires = 3\n"}, "does not say what its build needs"),
        ({**project(), "backend.py": "raise SystemExit('no luck')"}, "cannot be built .*no luck"),
    ],
)
def test_a_repository_that_gives_no_wheel_leaves_nothing(
    git: GitServer, index: Index, tmp_path: Path, files: dict[str, str], says: str
) -> None:
    commit = git.has("thing", files)
    with pytest.raises(BentoError) as refused:
        lock_of(tmp_path, f"thing @ {git.of('thing')}@{commit}", git.of("thing"))
    assert re.search(says, f"{refused.value} {refused.value.hint}", re.S)
    assert not (tmp_path / "wheels").exists()
    assert not [*tmp_path.glob("lock-*")]


def test_a_commit_that_is_not_there_is_named(git: GitServer, tmp_path: Path) -> None:
    git.has("thing", project())
    with pytest.raises(BentoError, match=f"{COMMIT} cannot be had") as refused:
        lock_of(tmp_path, f"thing @ {git.of('thing')}@{COMMIT}", git.of("thing"))
    assert refused.value.hint
