"""Which wheels go into an image, and how they are shared out to layers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import INDEX_OPTION, MINOR, write, write_wheel
from small_wheels import make_wheel
from wheel_index import PackageIndex, serving_wheels

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.python.groups import (
    ALONE,
    MOST_ALONE,
    SHARED,
    DependencyGroup,
    dependency_groups,
    own_wheels,
)
from kfp_bento.runtime.images.python.installer import install_wheels
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel, select_wheels, selection_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
TAGS = [
    "py3-none-any",
    "cp311-abi3-manylinux_2_28_x86_64",
    "cp311-cp311-macosx_11_0_arm64",
    "cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64",
    "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
    "cp311-cp311-manylinux_2_28_x86_64",
    "cp311-cp311-manylinux_2_34_x86_64",
    "cp311-cp311-musllinux_1_2_x86_64",
    "cp312-cp312-manylinux1_x86_64",
]


@pytest.fixture
def uv_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for uv alone."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return tmp_path / "uv-cache"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of wheels that locks point to."""
    return tmp_path / "shelf"


def lock_of(folder: Path, *lines: str, python: str = "3.11", options: str = "") -> Lock:
    options = options or f"--no-index\n--find-links {folder / 'shelf'}"
    file = write(folder / "env/python/requirements.txt", "\n".join([options, *lines, ""]))
    (folder / "src").mkdir(exist_ok=True)
    (folder / "shelf").mkdir(exist_ok=True)
    return Lock(file, folder / "src", python)


def merged(lines: list[str]) -> str:
    """Several files of one version as one line of a lock."""
    hashes = {part for line in lines for part in line.split() if part.startswith("--hash")}
    return " ".join([lines[0].split()[0], *sorted(hashes)])


@pytest.mark.parametrize(
    ("platform", "python", "tag"),
    [
        (AMD64, "3.11", "cp311-cp311-manylinux_2_28_x86_64"),
        (ARM64, "3.11", "cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64"),
        (AMD64, "3.12", "cp312-cp312-manylinux1_x86_64"),
        (AMD64, "3.13", "cp311-abi3-manylinux_2_28_x86_64"),
        (ARM64, "3.12", "py3-none-any"),
    ],
)
def test_the_wheel_that_fits_best_is_chosen(
    tmp_path: Path, shelf: Path, platform: Platform, python: str, tag: str
) -> None:
    lines = [make_wheel(shelf, "tagged", tag=tag, members={"x": tag}) for tag in TAGS]
    lock = lock_of(tmp_path, merged(lines), python=python)
    (wheel,) = select_wheels(lock, platform)
    assert wheel.filename == f"tagged-1.0-{tag}.whl"
    assert wheel.sha256 == hashlib.sha256((shelf / wheel.filename).read_bytes()).hexdigest()
    assert wheel.size == (shelf / wheel.filename).stat().st_size


def test_a_file_that_was_uploaded_after_locking_is_not_chosen(tmp_path: Path, shelf: Path) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "late", tag="py3-none-any"))
    before = select_wheels(lock, AMD64)
    make_wheel(shelf, "late", tag="cp311-cp311-manylinux_2_28_x86_64")
    assert select_wheels(lock, AMD64) == before
    assert before[0].filename == "late-1.0-py3-none-any.whl"


def test_a_wheel_that_the_lock_does_not_hold_is_refused(tmp_path: Path, shelf: Path) -> None:
    make_wheel(shelf, "other")
    lock = lock_of(tmp_path, f"other==1.0 --hash=sha256:{'0' * 64}")
    with pytest.raises(ImageError, match=r"No wheel of other 1\.0 for linux/amd64.*other-1\.0-py3"):
        select_wheels(lock, AMD64)


def test_a_requirement_without_a_wheel_for_the_platform_is_refused(
    tmp_path: Path, shelf: Path
) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "native", tag="cp311-cp311-win_amd64"))
    with pytest.raises(ImageError, match="no wheels with a matching platform tag"):
        select_wheels(lock, AMD64)


def test_markers_are_evaluated_for_the_image_not_for_this_machine(
    tmp_path: Path, shelf: Path
) -> None:
    arm, new = make_wheel(shelf, "arm"), make_wheel(shelf, "new")
    lines = [
        arm.replace(" ", ' ; platform_machine == "aarch64" ', 1),
        new.replace(" ", ' ; python_version >= "3.13" ', 1),
    ]
    for platform, python, names in [
        (AMD64, "3.11", []),
        (ARM64, "3.11", ["arm"]),
        (AMD64, "3.13", ["new"]),
        (ARM64, "3.13", ["arm", "new"]),
    ]:
        lock = lock_of(tmp_path, *lines, python=python)
        assert [wheel.name for wheel in select_wheels(lock, platform)] == names


def test_a_wheel_in_the_bento_is_taken_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "src/wheels/greeter-1.0-py3-none-any.whl"
    digest = write_wheel(file)
    lock = lock_of(tmp_path, f"./wheels/{file.name} --hash=sha256:{digest}")
    size = file.stat().st_size
    assert select_wheels(lock, AMD64) == (
        Wheel("greeter", "1.0", file.name, digest, size, f"wheels/{file.name}"),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("six @ git+ssh://git@127.0.0.1/six.git@abc", "from version control"),
        ("git+ssh://git@127.0.0.1/six.git@abc", "from version control"),
        ("./wheels/six-1.0.tar.gz", r"needs six-1\.0\.tar\.gz, which is no wheel"),
        ("six @ file:///nowhere/six-1.0.zip", r"needs six-1\.0\.zip, which is no wheel"),
        ("-r more.txt", "has the option -r"),
        ("--constraint=more.txt", "has the option --constraint"),
    ],
)
def test_what_cannot_become_a_wheel_without_a_build_is_refused(
    tmp_path: Path, shelf: Path, line: str, reason: str
) -> None:
    hashed = line if line.startswith("-") else f"{line} --hash=sha256:{'0' * 64}"
    lock = lock_of(tmp_path, make_wheel(shelf, "fine"), hashed)
    with pytest.raises(ImageError, match=reason) as failure:
        select_wheels(lock, AMD64)
    assert failure.value.hint


def test_a_release_that_has_sources_only_is_refused(tmp_path: Path, shelf: Path) -> None:
    digest = hashlib.sha256(write(shelf / "raw-1.0.tar.gz", b"no matter").read_bytes())
    lock = lock_of(tmp_path, f"raw==1.0 --hash=sha256:{digest.hexdigest()}")
    with pytest.raises(ImageError, match="raw"):
        select_wheels(lock, AMD64)


def test_an_empty_lock_needs_nothing(tmp_path: Path) -> None:
    assert select_wheels(lock_of(tmp_path, "# nothing"), AMD64) == ()


@pytest.fixture
def index(shelf: Path, request: pytest.FixtureRequest) -> Iterator[PackageIndex]:
    with serving_wheels(shelf, sizes=getattr(request, "param", True)) as server:
        yield server


@pytest.mark.usefixtures("uv_cache")
def test_what_an_index_has_sources_of_only_is_refused_with_the_way_out(
    tmp_path: Path, shelf: Path, index: PackageIndex
) -> None:
    shelf.mkdir(exist_ok=True)
    (shelf / "sourced-1.0.tar.gz").write_bytes(b"sources")
    digest = hashlib.sha256(b"sources").hexdigest()
    options = f"{INDEX_OPTION} {index.address}/simple/"
    lock = lock_of(tmp_path, f"sourced==1.0 --hash=sha256:{digest}", options=options)
    with pytest.raises(ImageError, match="needs sourced, which is no wheel") as failure:
        select_wheels(lock, AMD64)
    assert "Build a wheel of it once" in failure.value.hint


@pytest.mark.usefixtures("uv_cache")
def test_sizes_come_from_the_index_where_it_gives_them(
    tmp_path: Path, shelf: Path, index: PackageIndex
) -> None:
    index.lied_size = ALONE
    options = f"{INDEX_OPTION} {index.address}/simple/"
    lock = lock_of(tmp_path, make_wheel(shelf, "sized"), options=options)
    assert [wheel.size for wheel in select_wheels(lock, AMD64)] == [ALONE]
    assert index.asked == []


def unsized(folder: Path, shelf: Path, index: PackageIndex) -> Lock:
    options = f"{INDEX_OPTION} {index.address}/simple/"
    return lock_of(folder, make_wheel(shelf, "unsized"), options=options)


@pytest.mark.parametrize("index", [False], indirect=True)
@pytest.mark.parametrize("way", ["whole", "ranges", "endless"])
@pytest.mark.usefixtures("uv_cache")
def test_sizes_are_asked_for_where_the_index_gives_none(
    tmp_path: Path, shelf: Path, index: PackageIndex, way: str
) -> None:
    index.way = way  # none of them answers HEAD
    (wheel,) = select_wheels(unsized(tmp_path, shelf, index), AMD64)
    assert wheel.size == (shelf / wheel.filename).stat().st_size
    assert index.asked == [f"/files/{wheel.filename}"]


@pytest.mark.parametrize("index", [False], indirect=True)
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "proxy.corp.example:3128"])
@pytest.mark.usefixtures("uv_cache")
def test_a_proxy_for_others_changes_no_size(
    tmp_path: Path,
    shelf: Path,
    index: PackageIndex,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # which uv wants to be told
    (wheel,) = select_wheels(unsized(tmp_path, shelf, index), AMD64)
    assert wheel.size == (shelf / wheel.filename).stat().st_size


@pytest.mark.parametrize("index", [False], indirect=True)
@pytest.mark.usefixtures("uv_cache")
def test_a_size_that_cannot_be_had_is_no_small_one(
    tmp_path: Path, shelf: Path, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = unsized(tmp_path, shelf, index)
    index.way = "403"
    with pytest.raises(ImageError, match=r"size of unsized.* status 403"):
        select_wheels(lock, AMD64)
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(ImageError, match="UV_OFFLINE keeps"):
        select_wheels(lock, AMD64)


@pytest.mark.usefixtures("uv_cache")
def test_the_chosen_wheel_is_the_one_installed_though_others_fit(
    tmp_path: Path, shelf: Path, index: PackageIndex
) -> None:
    first = make_wheel(shelf, "twin", tag="py3-none-any", members={"twin.py": "# the locked one"})
    make_wheel(shelf, "twin", tag="cp311-cp311-manylinux_2_28_x86_64", members={"twin.py": "# no"})
    lock = lock_of(tmp_path, first, options=f"{INDEX_OPTION} {index.address}/simple/")
    install_wheels(select_wheels(lock, AMD64), lock, tmp_path / "t", AMD64)
    (module,) = (tmp_path / "t").rglob("twin.py")
    assert module.read_text() == "# the locked one"


UV = (sys.executable, "-m", "uv")
REAL = ["iniconfig==2.0.0", "markupsafe==3.0.2"]


@pytest.fixture(scope="module")
def real_lock(tmp_path_factory: pytest.TempPathFactory) -> Lock:
    """Two small packages of the package index, locked for no platform in particular."""
    folder = tmp_path_factory.mktemp("real")
    wanted = write(folder / "wanted.txt", "\n".join(REAL))
    file = folder / "requirements.txt"
    command = [*UV, "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate"]
    done = subprocess.run(
        [*command, "--python", sys.executable, "-o", file, wanted], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("the package index cannot be reached")
    return Lock(file, folder, "3.11")


def test_a_real_lock_gives_the_wheels_that_uv_itself_would_take(
    real_lock: Lock, tmp_path: Path
) -> None:
    lock = replace(real_lock, python=MINOR)
    chosen = select_wheels(lock, AMD64)
    assert [f"{wheel.name}=={wheel.version}" for wheel in chosen] == REAL
    assert all(wheel.size > 1000 for wheel in chosen)
    target = ["--target", tmp_path, "--python-platform", "x86_64-manylinux_2_28"]
    version = ["--python", sys.executable, "--python-version", MINOR]
    command = [*UV, "pip", "install", "--quiet", *target, *version, "-r", real_lock.file]
    subprocess.run(command, check=True)
    (markup,) = tmp_path.glob("[Mm]arkup[Ss]afe-*.dist-info/WHEEL")
    python, abi, platforms = chosen[1].filename.removesuffix(".whl").rsplit("-", 3)[1:]
    for platform in platforms.split("."):
        assert f"Tag: {python}-{abi}-{platform}" in markup.read_text()


@pytest.mark.parametrize(("platform", "machine"), [(AMD64, 62), (ARM64, 183)])
def test_an_image_for_another_machine_gets_its_binaries(
    real_lock: Lock, tmp_path: Path, platform: Platform, machine: int
) -> None:
    lock = replace(real_lock, python="3.12")
    (_, markup) = wheels = select_wheels(lock, platform)
    assert "-cp312-cp312-manylinux" in markup.filename
    install_wheels(wheels, lock, tmp_path / "tree", platform)
    (library,) = (tmp_path / "tree").rglob("*.so")
    assert int.from_bytes(library.read_bytes()[18:20], "little") == machine


def test_a_selection_needs_no_index_once_uv_knows_the_files(
    real_lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = select_wheels(real_lock, AMD64)
    monkeypatch.setenv("UV_OFFLINE", "1")
    again = select_wheels(real_lock, AMD64)
    assert [wheel.sha256 for wheel in again] == [wheel.sha256 for wheel in before]


def test_a_wheel_survives_as_json() -> None:
    wheel = Wheel("six", "1.0", "six-1.0-py3-none-any.whl", "ab" * 32, 7, "wheels/six.whl")
    assert Wheel.from_dict(json.loads(json.dumps(wheel.to_dict()))) == wheel


def test_a_selection_is_kept_under_lock_python_and_platform(tmp_path: Path) -> None:
    lock = lock_of(tmp_path, "a==1 --hash=sha256:00")
    keys = {
        json.dumps(selection_inputs(variant, platform), sort_keys=True)
        for variant in (lock, replace(lock, python="3.12"))
        for platform in (AMD64, ARM64)
    }
    lock.file.write_text("b==1 --hash=sha256:00")
    keys.add(json.dumps(selection_inputs(lock, AMD64), sort_keys=True))
    assert len(keys) == 5


def wheel_of(name: str, size: int) -> Wheel:
    return Wheel(name, "1.0", f"{name}-1.0-py3-none-any.whl", name * 4, size)


def groups_of(wheels: list[Wheel]) -> tuple[DependencyGroup, ...]:
    lock = Lock(Path("requirements.txt"), Path(), "3.11")
    return dependency_groups(lock, AMD64, interpreter="/usr/bin/python3.11", wheels=wheels)


def test_wheels_of_some_size_stand_alone_the_larger_below() -> None:
    wheels = [
        wheel_of("b", 5),
        wheel_of("torch", ALONE * 9),
        wheel_of("a", ALONE - 1),
        wheel_of("cudnn", ALONE),
    ]
    groups = groups_of(wheels)
    titles = [group.title for group in groups]
    assert titles[:2] == ["torch 1.0", "cudnn 1.0"]
    assert titles[-1] == "environment (Python 3.11)"
    small = [wheel.name for group in groups[2:-1] for wheel in group.wheels]
    assert sorted(small) == ["a", "b"]
    assert groups[0].download_size == ALONE * 9


def test_layers_keep_their_order_when_a_wheel_grows_a_little() -> None:
    before = [wheel_of("a", ALONE * 5), wheel_of("b", ALONE * 6), wheel_of("c", ALONE * 2)]
    after = [wheel_of("a", ALONE * 7), *before[1:]]
    orders = [[group.title for group in groups_of(wheels)] for wheels in (before, after)]
    assert orders[0] == orders[1]


def test_an_image_of_any_lock_has_some_sixty_layers_at_most() -> None:
    many = [wheel_of(f"w{number:03}", ALONE * (number % 3)) for number in range(600)]
    groups = groups_of(many)
    assert len(groups) == MOST_ALONE + SHARED + 1 <= 60
    assert sum(len(group.wheels) for group in groups) == 600


def test_another_version_of_a_small_wheel_changes_one_layer() -> None:
    wheels = [wheel_of(f"w{number:03}", 10) for number in range(200)]
    newer = replace(wheels[7], version="2.0", sha256="new")
    before = [group.inputs for group in groups_of(wheels)]
    after = [group.inputs for group in groups_of([*wheels[:7], newer, *wheels[8:]])]
    assert len(before) == len(after)
    assert len([inputs for inputs in after if inputs not in before]) == 1


def test_without_wheels_there_is_still_an_environment() -> None:
    (group,) = groups_of([])
    assert (group.wheels, group.title) == ((), "environment (Python 3.11)")


def test_wheels_for_an_environment_in_a_lower_layer_are_one_layer() -> None:
    lock = Lock(Path("requirements.txt"), Path(), "3.11")
    wheels = [wheel_of("b", ALONE), wheel_of("a", 1)]
    options: dict[str, Any] = {"interpreter": "/usr/bin/python3.11"}
    (group,) = own_wheels(lock, AMD64, **options, wheels=wheels)
    assert own_wheels(lock, AMD64, **options, wheels=[]) == ()
    assert [wheel.name for wheel in group.wheels] == ["a", "b"]
    assert group.title == "wheels: a and b"


def test_a_layers_key_knows_neither_its_neighbours_nor_the_interpreter() -> None:
    torch = wheel_of("torch", ALONE)
    one = groups_of([torch, wheel_of("a", 1)])
    two = groups_of([torch, wheel_of("b", 1)])
    theirs = "/usr/local/bin/python3.11"
    assert one[0].inputs == replace(two[0], interpreter=theirs).inputs
    assert one[1].inputs != two[1].inputs
    assert one[-1].inputs == two[-1].inputs != replace(one[-1], interpreter=theirs).inputs
    assert one[0].inputs != replace(one[0], lock=replace(one[0].lock, python="3.12")).inputs
    assert one[0].inputs != replace(one[0], bytecode="another compiler").inputs


def test_a_wheel_for_most_bases_is_taken_before_one_for_a_newer_c_library(
    tmp_path: Path, shelf: Path
) -> None:
    tags = ("cp311-cp311-manylinux_2_34_x86_64", "cp39-abi3-manylinux_2_17_x86_64")
    lock = lock_of(tmp_path, merged([make_wheel(shelf, "both", tag=tag) for tag in tags]))
    assert select_wheels(lock, AMD64, (2, 36)) == select_wheels(lock, AMD64)
