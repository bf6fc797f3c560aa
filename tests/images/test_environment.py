"""The dependency layers: what is in them, that they repeat and can be shared."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from handmade import MINOR, open_layer, write, write_base, write_bento
from small_wheels import make_wheel

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.oci.tar import tar_stream
from kfp_bento.runtime.images.python import environment
from kfp_bento.runtime.images.python.environment import (
    DependencyGroup,
    bytecode_identity,
    dependency_groups,
    settle,
)
from kfp_bento.runtime.images.python.lock import Lock

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
PYTHON = f"/usr/local/bin/python{MINOR}"
OTHER = "3.12" if MINOR != "3.12" else "3.13"
PACKAGES = f"app/.venv/lib/python{MINOR}/site-packages"
EVERYTHING: dict[str, str | bytes] = {
    "datum/__init__.py": "x = 1\n",
    "datum/__pycache__/__init__.cpython-311.pyc": "stale",
    "datum/tests/__init__.py": "",
    "datum/tests/test_datum.py": "y = 1\n",
    "datum/tests/sample.py": "z = 1\n",
    "datum/broken.py": "print 'two'\n",
    "share/note.py": "a top-level folder of that name = no data\n",
    "datum-1.0.data/data/share/datum/motto.txt": "be kind\n",
    "datum-1.0.data/data/lib/datum/plugin.txt": "p\n",
    "datum-1.0.data/data/etc/datum.conf": "c\n",
    "datum-1.0.data/headers/datum.h": "h\n",
    "datum-1.0.data/scripts/tool": "#!python\nprint(1)\n",
    "datum-1.0.data/scripts/tool.sh": "#!/bin/sh\necho\n",
    "datum-1.0.data/purelib/pure.py": "p = 1\n",
    "datum-1.0.data/platlib/plat.py": "p = 1\n",
    "datum-1.0.dist-info/entry_points.txt": "[console_scripts]\ndat = datum:x\n",
}

UV = (sys.executable, "-m", "uv")


@pytest.fixture(autouse=True)
def uv_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for uv alone."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return tmp_path / "uv-cache"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of wheels that locks point to."""
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


def lock_of(folder: Path, *lines: str, python: str = MINOR) -> Lock:
    text = "\n".join(["--no-index", f"--find-links {folder / 'shelf'}", *lines, ""])
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Lock(write(folder / f"{name}.txt", text), folder, python)


def packed(group: DependencyGroup, folder: Path) -> bytes:
    with group.prepared(folder, lambda sentence: None) as entries:
        return b"".join(tar_stream(entries(), 1))


def opened(tar: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(tar))


def only_layer(lock: Lock, folder: Path, platform: Platform = AMD64) -> tarfile.TarFile:
    (group,) = dependency_groups(lock, platform, interpreter=PYTHON)
    return opened(packed(group, folder))


def text(layer: tarfile.TarFile, name: str) -> str:
    member = layer.extractfile(name)
    assert member is not None
    return member.read().decode()


def is_own(name: str) -> bool:
    return "__pycache__" in name or name.endswith(("uv_cache.json", "direct_url.json"))


def test_the_tree_is_what_uv_puts_into_a_real_environment(tmp_path: Path, shelf: Path) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "datum", members=EVERYTHING))
    layer = only_layer(lock, tmp_path)
    real = tmp_path / "real"
    subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, real], check=True)
    before = set(real.rglob("*"))
    wheel = shelf / "datum-1.0-py3-none-any.whl"
    command = [*UV, "pip", "install", "--quiet", "--no-deps", "--python", real / "bin/python"]
    subprocess.run([*command, wheel], check=True)
    expected = {
        path.relative_to(real).as_posix()
        for path in real.rglob("*")
        if path not in before and path.is_file()
    }
    found = {x.name.removeprefix("app/.venv/") for x in layer.getmembers() if x.isfile()}
    found -= {"pyvenv.cfg", "bin/activate"}
    expected -= {".lock"}
    assert {x for x in found if not is_own(x)} == {x for x in expected if not is_own(x)}


def test_record_names_every_file_with_its_digest(tmp_path: Path, shelf: Path) -> None:
    layer = only_layer(lock_of(tmp_path, make_wheel(shelf, "datum", members=EVERYTHING)), tmp_path)
    record = text(layer, f"{PACKAGES}/datum-1.0.dist-info/RECORD")
    rows = [line.split(",") for line in record.splitlines()]
    assert "../../../bin/dat" in [row[0] for row in rows]
    for name, digest, size in rows:
        path = os.path.normpath(f"{PACKAGES}/{name}")
        content = text(layer, path)
        assert name.endswith("RECORD") or int(size) == len(content)
        if digest:
            value = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest())
            assert digest == f"sha256={value.decode().rstrip('=')}", name


def test_scripts_run_the_environments_python(tmp_path: Path, shelf: Path) -> None:
    layer = only_layer(lock_of(tmp_path, make_wheel(shelf, "datum", members=EVERYTHING)), tmp_path)
    for name in ("dat", "tool"):
        assert text(layer, f"app/.venv/bin/{name}").startswith("#!/app/.venv/bin/python\n")
        assert layer.getmember(f"app/.venv/bin/{name}").mode == 0o755
    assert text(layer, "app/.venv/bin/tool.sh").startswith("#!/bin/sh\n")


def test_what_can_be_imported_has_bytecode_and_test_modules_have_none(
    tmp_path: Path, shelf: Path
) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "datum", members=EVERYTHING))
    names = only_layer(lock, tmp_path).getnames()
    tag = sys.implementation.cache_tag
    compiled = {x.removeprefix(f"{PACKAGES}/") for x in names if x.endswith(".pyc")}
    assert compiled == {
        f"__pycache__/plat.{tag}.pyc",
        f"__pycache__/pure.{tag}.pyc",
        f"datum/__pycache__/__init__.{tag}.pyc",
        f"datum/tests/__pycache__/__init__.{tag}.pyc",
        f"datum/tests/__pycache__/sample.{tag}.pyc",
    }
    assert f"{PACKAGES}/datum/tests/test_datum.py" in names
    assert f"{PACKAGES}/share/__pycache__" not in names


def test_bytecode_from_a_wheel_is_replaced_but_not_in_uvs_cache(
    tmp_path: Path, shelf: Path, uv_cache: Path
) -> None:
    name = f"__init__.{sys.implementation.cache_tag}.pyc"
    members: dict[str, str | bytes] = {"old/__init__.py": "", f"old/__pycache__/{name}": "stale"}
    layer = only_layer(lock_of(tmp_path, make_wheel(shelf, "old", members=members)), tmp_path)
    member = layer.extractfile(f"{PACKAGES}/old/__pycache__/{name}")
    assert member is not None
    assert int.from_bytes(member.read()[4:8], "little") == 0b01
    (cached,) = uv_cache.rglob(name)
    assert cached.read_text() == "stale"


def test_a_file_of_uvs_cache_that_was_changed_is_not_packed(
    tmp_path: Path, shelf: Path, uv_cache: Path
) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "trust", members={"trust/roots.pem": "theirs\n"}))
    (group,) = dependency_groups(lock, AMD64, interpreter=PYTHON)
    before = packed(group, tmp_path)
    (cached,) = uv_cache.rglob("roots.pem")
    with cached.open("a") as file:
        file.write("ours\n")
    said: list[str] = []
    with group.prepared(tmp_path, said.append) as entries:
        assert b"".join(tar_stream(entries(), 1)) == before
    assert any("uv cache clean trust" in sentence for sentence in said)


def test_the_members_can_be_listed_again_and_come_in_order(tmp_path: Path, shelf: Path) -> None:
    members: dict[str, str | bytes] = {f"many/m{n}.py": f"x = {n}\n" * n for n in range(300)}
    members |= {"many-data/x.py": "1", "many.py": "2", "many/__pycache__.py": "3"}
    lock = lock_of(tmp_path, make_wheel(shelf, "many", members=members))
    (group,) = dependency_groups(lock, AMD64, interpreter=PYTHON)
    with group.prepared(tmp_path, lambda sentence: None) as entries:
        first = b"".join(tar_stream(entries(), 1))
        assert b"".join(tar_stream(entries(), 1)) == first
        assert b"".join(tar_stream(list(entries()), 1)) == first
    names = opened(first).getnames()
    assert names == sorted(names, key=str.encode)
    assert len([name for name in names if name.endswith(".pyc")]) == 303
    assert packed(group, tmp_path / "elsewhere") == first


def test_nothing_is_left_behind(tmp_path: Path, shelf: Path) -> None:
    (group,) = dependency_groups(
        lock_of(tmp_path, make_wheel(shelf, "a")), AMD64, interpreter=PYTHON
    )
    with pytest.raises(KeyboardInterrupt), group.prepared(tmp_path / "s", lambda sentence: None):
        raise KeyboardInterrupt
    assert list((tmp_path / "s").iterdir()) == []


def test_without_wheels_the_environment_is_there_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    layer = only_layer(lock_of(tmp_path), tmp_path)
    assert layer.getnames() == [
        "app",
        "app/.venv",
        "app/.venv/bin",
        "app/.venv/bin/activate",
        "app/.venv/bin/python",
        "app/.venv/bin/python3",
        f"app/.venv/bin/python{MINOR}",
        "app/.venv/lib",
        f"app/.venv/lib/python{MINOR}",
        PACKAGES,
        "app/.venv/pyvenv.cfg",
    ]
    assert all(member.mode == 0o755 for member in layer.getmembers() if member.isdir())


def test_for_another_python_there_is_no_bytecode_and_folders_are_named_for_it(
    tmp_path: Path, shelf: Path
) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "datum", members=EVERYTHING), python=OTHER)
    (group,) = dependency_groups(lock, AMD64, interpreter=f"/usr/local/bin/python{OTHER}")
    said: list[str] = []
    with group.prepared(tmp_path, said.append) as entries:
        layer = opened(b"".join(tar_stream(entries(), 1)))
    names = layer.getnames()
    assert bytecode_identity(OTHER) == group.inputs["bytecode"] == ""
    assert any("no bytecode" in sentence for sentence in said)
    assert not [x for x in names if x.endswith(".pyc") or f"python{MINOR}" in x]
    packages = f"app/.venv/lib/python{OTHER}/site-packages"
    assert f"app/.venv/include/site/python{OTHER}/datum/datum.h" in names
    record = text(layer, f"{packages}/datum-1.0.dist-info/RECORD")
    assert f"../../../include/site/python{OTHER}/datum/datum.h" in record


def test_pure_wheels_give_the_same_layer_on_every_platform(tmp_path: Path, shelf: Path) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "pure"))
    (amd,) = dependency_groups(lock, AMD64, interpreter=PYTHON)
    (arm,) = dependency_groups(lock, ARM64, interpreter=PYTHON)
    assert amd.inputs == arm.inputs
    assert packed(amd, tmp_path) == packed(arm, tmp_path)


def test_libraries_of_a_lib64_machine_come_to_lib(tmp_path: Path) -> None:
    write(tmp_path / f"lib64/python{MINOR}/site-packages/plat.so", b"so")
    write(tmp_path / f"lib/python{MINOR}/site-packages/pure.py", b"py")
    settle(tmp_path, MINOR)
    found = {x.relative_to(tmp_path).as_posix() for x in tmp_path.rglob("*") if x.is_file()}
    packages = f"lib/python{MINOR}/site-packages"
    assert found == {f"{packages}/plat.so", f"{packages}/pure.py"}


@pytest.fixture
def small_is_big(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes wheels of ten kilobytes big ones."""
    monkeypatch.setattr(environment, "BIG_WHEEL", 10_000)


def big_members(name: str) -> dict[str, str | bytes]:
    weights = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(640))
    return {f"nvidia/{name}/lib.bin": weights, f"nvidia/{name}/__init__.py": "big = True\n"}


@pytest.mark.usefixtures("small_is_big")
def test_bentos_with_other_locks_share_the_layer_of_a_big_wheel(
    tmp_path: Path, shelf: Path
) -> None:
    big = make_wheel(shelf, "big", members=big_members("big"))
    one = lock_of(tmp_path, big, make_wheel(shelf, "a"))
    two = lock_of(tmp_path, make_wheel(shelf, "b"), big, make_wheel(shelf, "c"))
    first = dependency_groups(one, AMD64, interpreter=PYTHON)
    second = dependency_groups(two, AMD64, interpreter="/usr/bin/python3")
    assert [group.title for group in first] == ["big 1.0", "dependencies (1 wheel)"]
    assert first[0].inputs == second[0].inputs
    assert packed(first[0], tmp_path / "one") == packed(second[0], tmp_path / "two")
    assert first[1].inputs != second[1].inputs


@pytest.mark.usefixtures("small_is_big")
def test_layers_that_share_folders_unpack_into_one_environment(tmp_path: Path, shelf: Path) -> None:
    lines = [make_wheel(shelf, name, members=big_members(name)) for name in ("cuda", "dnn")]
    small: dict[str, str | bytes] = {"nvidia/small.py": "small = True\n"}
    lock = lock_of(tmp_path, *lines, make_wheel(shelf, "small", members=small))
    groups = dependency_groups(lock, AMD64, interpreter=sys.executable)
    assert len(groups) == 3
    for group in groups:
        layer = opened(packed(group, tmp_path / "scratch"))
        folders = [member.name for member in layer.getmembers() if member.isdir()]
        assert {"app", "app/.venv", f"{PACKAGES}/nvidia"} <= set(folders)
        layer.extractall(tmp_path / "root")
    check = "import nvidia.cuda, nvidia.dnn, nvidia.small; print(nvidia.cuda.__cached__)"
    python = tmp_path / "root/app/.venv/bin/python"
    done = subprocess.run([python, "-I", "-c", check], check=True, capture_output=True, text=True)
    assert str(tmp_path / "root") in done.stdout
    assert Path(done.stdout.strip()).exists()


@pytest.mark.usefixtures("small_is_big")
def test_an_image_has_one_layer_for_each_big_wheel(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bento cannot name a folder of the builder's; whoever builds can.
    monkeypatch.setenv("UV_FIND_LINKS", str(shelf))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    big = make_wheel(shelf, "big", members=big_members("big"))
    small = make_wheel(shelf, "small")
    bento = write_bento(tmp_path / "bento", f"{big}\n{small}\n")
    base, cache = write_base(tmp_path / "base"), tmp_path / "cache"
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, cache=cache))
    assert [layer.title for layer in image.layers[1:3]] == ["big 1.0", "dependencies (2 wheels)"]
    assert {layer.kind for layer in image.layers[1:3]} == {"dependencies"}
    with open_layer(tmp_path / "out", image.layers[1]) as layer:
        assert "app/.venv/pyvenv.cfg" not in layer.getnames()
    other = write_bento(tmp_path / "other", f"{big}\n")
    second = build_image(other, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    assert [layer.origin for layer in second.layers[1:3]] == ["reused", "built"]


def test_a_wheel_that_cannot_be_fetched_is_an_error_in_uvs_words(
    tmp_path: Path, shelf: Path
) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "gone"))
    (group,) = dependency_groups(lock, AMD64, interpreter=PYTHON)
    for wheel in shelf.iterdir():
        wheel.unlink()
    with pytest.raises(ImageError, match="gone"):
        packed(group, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []
