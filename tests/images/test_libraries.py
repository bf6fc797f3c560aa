"""What wheels look for and do not bring is in the base, is added to it, or is named."""

from __future__ import annotations

import io
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from debs import STATUS, make_archive, make_deb, member
from elf_files import program, shared_object
from handmade import MINOR, write, write_bento
from registries import registry
from small_wheels import make_wheel
from test_base_fit import GLIBC_LOADER, PYTHON, SHELL, base_of
from test_debian import needs_apt, needs_gpg
from wheel_index import serving_wheels

from kfp_bento.runtime import programs
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import (
    ImageOptions,
    build_image,
    pack_image,
    plan_image,
    rebase_image,
)
from kfp_bento.runtime.images.assembly import libraries
from kfp_bento.runtime.images.debian.contents import package_named_after
from kfp_bento.runtime.images.debian.sources import SOURCES_VARIABLE
from kfp_bento.runtime.images.oci.elf import Linking, linking_of
from kfp_bento.runtime.images.oci.image import parse_platform
from kfp_bento.runtime.images.python.installer import MACHINES
from kfp_bento.runtime.images.python.needs import (
    WheelNeeds,
    lacking,
    needs_of,
    read_needs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images.python.selection import Wheel

MACHINE = MACHINES[parse_platform().architecture]
FOLDER = f"usr/lib/{MACHINE}-linux-gnu"
BASE: dict[str, Any] = {
    **SHELL,
    PYTHON: program(GLIBC_LOADER),
    GLIBC_LOADER[1:]: b"",
    f"{FOLDER}/libc.so.6": b"",
}
RUNTIME = {f"{FOLDER}/libstdc++.so.6": b"", f"{FOLDER}/libgcc_s.so.1": b""}


# --- what files say ------------------------------------------------------------------------------


def test_a_shared_library_says_what_it_is_linked_against() -> None:
    file = shared_object("libgomp.so.1", "libc.so.6", runpath="$ORIGIN/../x.libs:/opt/lib")
    assert linking_of(io.BytesIO(file)) == Linking(
        ("libgomp.so.1", "libc.so.6"), ("$ORIGIN/../x.libs", "/opt/lib")
    )
    older = linking_of(io.BytesIO(shared_object("libm.so.6", rpath="/opt/lib")))
    assert older == Linking(("libm.so.6",), ("/opt/lib",), inherited=True)


def test_a_compiled_module_of_this_python_says_what_it_needs() -> None:
    folder = Path(sysconfig.get_path("platlib"))
    file = next(folder.glob("numpy/_core/_multiarray_umath*.so"))
    with file.open("rb") as content:
        linking = linking_of(content)
    assert linking is not None
    assert "libc.so.6" in linking.needed


def test_what_is_cut_off_or_points_outside_itself_says_nothing() -> None:
    whole = shared_object("libgomp.so.1")
    for size in range(0, len(whole), 7):
        assert linking_of(io.BytesIO(whole[:size])) is None
    for place in range(0, 64 + 2 * 56, 3):
        linking_of(io.BytesIO(whole[:place] + b"\xff" * 8 + whole[place + 8 :]))


@pytest.mark.parametrize("value", [b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(7) + b"\x40"])
def test_a_file_on_disk_that_points_outside_itself_says_nothing(
    tmp_path: Path, value: bytes
) -> None:
    """The system refuses places that a file in memory takes."""
    whole = shared_object("libgomp.so.1")
    for place in range(64, len(whole) - 8, 8):
        file = write(tmp_path / "lib.so", whole[:place] + value + whole[place + 8 :])
        with file.open("rb") as content:
            found = linking_of(content)
        assert found is None or isinstance(found, Linking)


def test_a_library_that_was_cut_off_on_disk_says_nothing(tmp_path: Path) -> None:
    folder = Path(sysconfig.get_path("platlib"))
    whole = next(folder.glob("numpy/_core/_multiarray_umath*.so")).read_bytes()
    for size in (0, 3, 64, 200, 1 << 12, 1 << 16, len(whole) // 2):
        with write(tmp_path / "lib.so", whole[:size]).open("rb") as content:
            assert linking_of(content) is None


# --- whole wheels --------------------------------------------------------------------------------


LIGHTGBM = {"lightgbm/lib/lib_lightgbm.so": ("libgomp.so.1", "libm.so.6", "libc.so.6")}
NUMBA = {
    "numba/_dispatcher.cpython-311-x86_64-linux-gnu.so": ("libc.so.6",),
    "numba/np/ufunc/omppool.cpython-311-x86_64-linux-gnu.so": ("libgomp.so.1.0.0",),
}
OPENCV = {
    "cv2/cv2.abi3.so": ("libQt5Gui-1.so.5", "libz-2.so.1"),
    "opencv_python.libs/libQt5Gui-1.so.5": ("libGL.so.1", "libQt5Core-1.so.5"),
    "opencv_python.libs/libQt5Core-1.so.5": ("libgthread-2.0.so.0", "libQt5Gui-1.so.5"),
    "opencv_python.libs/libz-2.so.1": ("libc.so.6",),
}
TORCH = {"torch/lib/libtorch.so": ("libcuda.so.1", "libpython3.11.so.1.0", "libc.so.6")}


@pytest.mark.parametrize(
    ("files", "needed", "optional"),
    [
        (LIGHTGBM, {"libgomp.so.1"}, ""),
        (NUMBA, set(), "it 1 (1 of 2 modules: libgomp.so.1.0.0)"),
        (OPENCV, {"libGL.so.1", "libgthread-2.0.so.0"}, ""),
        (TORCH, set(), ""),
        ({"a/b.so": ("libstdc++.so.6",), "a/c.so": ("libc.so.6",)}, {"libstdc++.so.6"}, ""),
        ({}, set(), ""),
    ],
    ids=["no-module", "some-modules", "through-bundled", "driver", "runtime", "data"],
)
def test_a_library_counts_where_no_module_of_the_wheel_can_do_without_it(
    files: dict[str, tuple[str, ...]], needed: set[str], optional: str
) -> None:
    facts = WheelNeeds.from_dict(needs_of(files).to_dict())
    missing = lacking({"it 1": facts}, frozenset({"libc.so.6"}))
    assert set(missing.needed) == needed
    assert missing.optional == ((optional,) if optional else ())


def test_what_another_wheel_brings_or_the_base_has_is_not_missing() -> None:
    extension = needs_of({"flash/ext.abi3.so": ("libtorch.so", "libgomp.so.1")})
    wheels = {"flash 1": extension, "torch 2": needs_of(TORCH)}
    assert lacking(wheels, frozenset({"libgomp.so.1"})).needed == {}
    assert lacking(wheels, frozenset()).needed == {"libgomp.so.1": ("flash 1",)}


def test_a_missing_runtime_makes_no_other_library_needed() -> None:
    files = {"a/b.so": ("libstdc++.so.6",), "a/c.so": ("libstdc++.so.6", "libtbb.so.12")}
    missing = lacking({"it 1": needs_of(files)}, frozenset())
    assert set(missing.needed) == {"libstdc++.so.6"}
    assert missing.optional == ("it 1 (1 of 2 modules: libtbb.so.12)",)


def test_debians_policy_names_packages_after_their_libraries() -> None:
    names = [*map(package_named_after, ("libgomp.so.1", "libX11.so.6", "libGL.so.1"))]
    assert names == ["libgomp1", "libx11-6", "libgl1"]


# --- images --------------------------------------------------------------------------------------


def bento_needing(folder: Path, *needed: str, names: tuple[str, ...] = ("fast",)) -> Bento:
    """A bento with wheels whose only module asks for these libraries."""
    tag = f"py3-none-manylinux_2_28_{MACHINE}"
    lines = ""
    for name in names:
        members: dict[str, str | bytes] = {f"{name}/lib_{name}.so": shared_object(*needed)}
        line = make_wheel(folder / "src/wheels", name, tag=tag, members=members)
        lines += f"./wheels/{name}-1.0-{tag}.whl {line.partition(' ')[2]}\n"
    return write_bento(folder, lines)


def debian_like(folder: Path, *layers: dict[str, Any]) -> str:
    release = b'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
    files = {"usr/lib/os-release": release, "var/lib/dpkg/status": STATUS.encode()}
    return base_of(folder, {**BASE, **files}, *layers)


def test_a_base_without_a_library_that_a_wheel_needs_is_refused_by_its_name(
    tmp_path: Path,
) -> None:
    bento = bento_needing(tmp_path / "bento", "libgomp.so.1", "libstdc++.so.6", "libc.so.6")
    base = base_of(tmp_path / "base", BASE)
    with pytest.raises(ImageError) as caught:
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert "libgomp.so.1, which fast 1.0 needs" in caught.value.message
    assert "libstdc++.so.6, which fast 1.0 needs" in caught.value.message
    assert "one made from Debian" in (caught.value.hint or "")
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize(
    ("files", "environment"),
    [
        (
            {
                **BASE,
                f"{FOLDER}/libgomp.so.1": "libgomp.so.1.0.0",
                f"{FOLDER}/libgomp.so.1.0.0": b"",
            },
            [],
        ),
        (
            {
                **BASE,
                "etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n",
                "etc/ld.so.conf.d/own.conf": b"# ours\n/opt/own/lib\n",
                "opt/own/lib/libgomp.so.1": b"",
            },
            [],
        ),
        ({**BASE, "opt/own/libgomp.so.1": b""}, ["LD_LIBRARY_PATH=/usr/x:/opt/own"]),
        (
            {
                **BASE,
                PYTHON: shared_object("libc.so.6", rpath="$ORIGIN/../../opt/conda/lib"),
                "opt/conda/lib/libgomp.so.1": b"",
            },
            [],
        ),
    ],
    ids=["link", "ld.so.conf", "variable", "interpreter"],
)
def test_a_library_is_found_where_a_loader_finds_it(
    tmp_path: Path, files: dict[str, Any], environment: list[str]
) -> None:
    bento = bento_needing(tmp_path / "bento", "libgomp.so.1", "libc.so.6")
    base = base_of(tmp_path / "base", files, environment=environment)
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert [layer.kind for layer in image.layers].count("system") == 0


def test_a_link_to_nothing_is_no_library(tmp_path: Path) -> None:
    bento = bento_needing(tmp_path / "bento", "libgomp.so.1")
    files = {**BASE, f"{FOLDER}/libgomp.so.1": "libgomp.so.1.0.0"}
    with pytest.raises(ImageError, match=r"libgomp\.so\.1, which fast 1\.0 needs"):
        build_image(
            *(bento, f"oci:{tmp_path}/out"), ImageOptions(base=base_of(tmp_path / "base", files))
        )


def test_a_wheel_is_looked_into_once_for_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(wheels: Sequence[Wheel], *rest: Any) -> dict[str, WheelNeeds]:
        seen.extend(wheel.name for wheel in wheels)
        return read_needs(wheels, *rest)

    monkeypatch.setattr(libraries, "read_needs", look)
    options = ImageOptions(base=base_of(tmp_path / "base", BASE), cache=tmp_path / "cache")
    for number, names in enumerate([("fast",), ("fast",), ("fast", "quick")]):
        bento = bento_needing(tmp_path / f"bento{number}", "libc.so.6", names=names)
        build_image(bento, f"oci:{tmp_path}/out{number}", options)
    assert seen == ["fast", "quick"]


@pytest.mark.parametrize("to", ["oci:{}/out", "docker-archive:{}/out.tar"])
def test_a_wheel_is_fetched_once_where_uv_has_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    monkeypatch.setattr(programs, "keeps_downloads", lambda: False)
    members: dict[str, str | bytes] = {"fast/fast.so": shared_object("libc.so.6")}
    tag = f"py3-none-manylinux_2_28_{MACHINE}"
    line = make_wheel(tmp_path / "shelf", "fast", tag=tag, members=members)
    bento = write_bento(tmp_path / "bento", f"{line}\n")
    options = ImageOptions(base=base_of(tmp_path / "base", BASE))
    before = set(tmp_path.iterdir())
    with serving_wheels(tmp_path / "shelf") as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index.address}/simple/")
        image = build_image(bento, to.format(tmp_path), options)
    assert "fast 1.0" in {layer.title for layer in image.layers}
    assert index.asked == [f"/files/fast-1.0-{tag}.whl"]
    (left,) = set(tmp_path.iterdir()) - before
    assert left.is_file() or {path.name for path in left.iterdir()} == {
        *("blobs", "index.json", "oci-layout")
    }


def test_an_image_is_not_put_onto_a_base_without_its_libraries(tmp_path: Path) -> None:
    bento = bento_needing(tmp_path / "bento", "libgomp.so.1", "libc.so.6")
    good = {**BASE, f"{FOLDER}/libgomp.so.1": b""}
    base = base_of(tmp_path / "base", good)
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=base, tag="v1"))
    bare = base_of(tmp_path / "bare", BASE)
    with pytest.raises(ImageError, match=r"lacks libgomp\.so\.1, which wheels in"):
        rebase_image(f"oci:{tmp_path}/image:v1", bare, destination=f"oci:{tmp_path}/other:v1")
    other = base_of(tmp_path / "other-base", {**good, "etc/other": b""})
    rebased = rebase_image(f"oci:{tmp_path}/image:v1", other, destination=f"oci:{tmp_path}/new:v1")
    built = build_image(bento, f"oci:{tmp_path}/built", ImageOptions(base=other, tag="v1"))
    assert rebased.digest == built.digest


@pytest.fixture
def archive_with_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An archive whose libquick3 has libquick.so.1; gives a Debian that uses it."""
    content = [member(f"{FOLDER}/libquick.so.1", shared_object("libc.so.6"))]
    other = [member(f"{FOLDER}/private/libquick.so.1", b"")]
    debs = [
        make_deb(tmp_path / "libquick3_1.0_amd64.deb", content),
        make_deb(tmp_path / "quick_1.0_amd64.deb", other),
    ]
    source, key = make_archive(tmp_path / "archive", debs)
    monkeypatch.setenv(SOURCES_VARIABLE, str(write(tmp_path / "sources", source)))
    return debian_like(tmp_path / "base", {"usr/share/keyrings/debian-archive-keyring.gpg": key})


@needs_apt
@needs_gpg
def test_a_debian_base_gets_the_package_that_has_the_library(
    archive_with_library: str, tmp_path: Path
) -> None:
    bento = bento_needing(tmp_path / "bento", "libquick.so.1")
    with registry(tmp_path / "registry") as address:
        options = ImageOptions(base=archive_with_library)
        plan = plan_image(bento, f"{address}/a/fast", options)
        assert any("1 wheels look for is seen" in note for note in plan.notes)
        said: list[str] = []
        image = build_image(bento, f"{address}/a/fast", options, progress=said.append)
        assert [layer.title for layer in image.layers if layer.kind == "system"] == [
            "system packages (1 for debian 12)"
        ]
        assert "libquick3 is added for libquick.so.1, which fast 1.0 needs" in said
        # What wheels need, and which packages have it, is found out once for a registry.
        again: list[str] = []
        build_image(bento, f"{address}/a/fast:2", options, progress=again.append)
        assert not [line for line in again if "looking which" in line or "which packages" in line]
        planned = plan_image(bento, f"{address}/a/fast", options)
        assert planned.unchanged == image.digest


@needs_apt
@needs_gpg
def test_a_library_that_no_package_has_is_refused_unless_packages_are_named(
    archive_with_library: str, tmp_path: Path
) -> None:
    bento = bento_needing(tmp_path / "bento", "libnowhere.so.7")
    options = ImageOptions(base=archive_with_library)
    with pytest.raises(
        ImageError, match=r"(?s)libnowhere\.so\.7.*No package of debian 12"
    ) as found:
        build_image(bento, f"oci:{tmp_path}/out", options)
    assert "--system-package NAME" in (found.value.hint or "")
    named = ImageOptions(base=archive_with_library, system_packages=("quick",))
    image = build_image(bento, f"oci:{tmp_path}/out", named)
    assert any("libnowhere.so.7" in note for note in image.notes)
    assert "system" in {layer.kind for layer in image.layers}


@needs_apt
@needs_gpg
def test_an_environment_for_steps_gets_the_packages_that_are_named(
    archive_with_library: str, tmp_path: Path
) -> None:
    (tmp_path / "lock.txt").write_text("# nothing\n")
    image = pack_image(
        tmp_path / "lock.txt",
        f"oci:{tmp_path}/out",
        ImageOptions(base=archive_with_library, system_packages=("libquick3=1.0",)),
        **{"name": "tools", "version": "1", "python": MINOR},
    )
    assert [layer.kind for layer in image.layers][-2:] == ["system", "dependencies"]
