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
from typing import TYPE_CHECKING

import pytest
from handmade import MINOR, write
from small_wheels import make_wheel

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.oci.tar import tar_stream
from kfp_bento.runtime.images.python import groups as groups_module
from kfp_bento.runtime.images.python.bytecode import Compilers
from kfp_bento.runtime.images.python.environment import bytecode_identity, settle
from kfp_bento.runtime.images.python.groups import ALONE, DependencyGroup, dependency_groups
from kfp_bento.runtime.images.python.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def packed(
    group: DependencyGroup,
    folder: Path,
    progress: Callable[[str], None] = lambda sentence: None,
) -> bytes:
    with Compilers() as compilers, group.prepared(folder, compilers, progress) as entries:
        return b"".join(tar_stream(entries(), 1))


def opened(tar: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(tar))


def only_layer(lock: Lock, folder: Path, platform: Platform = AMD64) -> tarfile.TarFile:
    group, _ = dependency_groups(lock, platform, interpreter=PYTHON)
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
    group, _ = dependency_groups(lock, AMD64, interpreter=PYTHON)
    before = packed(group, tmp_path)
    (cached,) = uv_cache.rglob("roots.pem")
    with cached.open("a") as file:
        file.write("ours\n")
    said: list[str] = []
    assert packed(group, tmp_path, said.append) == before
    assert any("uv cache clean trust" in sentence for sentence in said)


def test_the_members_can_be_listed_again_and_come_in_order(tmp_path: Path, shelf: Path) -> None:
    members: dict[str, str | bytes] = {f"many/m{n}.py": f"x = {n}\n" * n for n in range(300)}
    members |= {"many-data/x.py": "1", "many.py": "2", "many/__pycache__.py": "3"}
    lock = lock_of(tmp_path, make_wheel(shelf, "many", members=members))
    group, _ = dependency_groups(lock, AMD64, interpreter=PYTHON)
    quiet = str.strip
    with Compilers() as compilers, group.prepared(tmp_path, compilers, quiet) as entries:
        first = b"".join(tar_stream(entries(), 1))
        assert b"".join(tar_stream(entries(), 1)) == first
        assert b"".join(tar_stream(list(entries()), 1)) == first
    names = opened(first).getnames()
    assert names == sorted(names, key=str.encode)
    assert len([name for name in names if name.endswith(".pyc")]) == 303
    assert packed(group, tmp_path / "elsewhere") == first


def test_nothing_is_left_behind(tmp_path: Path, shelf: Path) -> None:
    group, _ = dependency_groups(
        lock_of(tmp_path, make_wheel(shelf, "a")), AMD64, interpreter=PYTHON
    )
    with (
        pytest.raises(KeyboardInterrupt),
        Compilers() as compilers,
        group.prepared(tmp_path / "s", compilers, str.strip),
    ):
        raise KeyboardInterrupt
    assert list((tmp_path / "s").iterdir()) == []


def test_without_wheels_the_environment_is_there_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (group,) = dependency_groups(lock_of(tmp_path), AMD64, interpreter=PYTHON)
    layer = opened(packed(group, tmp_path))
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
    group, _ = dependency_groups(lock, AMD64, interpreter=f"/usr/local/bin/python{OTHER}")
    layer = opened(packed(group, tmp_path))
    names = layer.getnames()
    assert bytecode_identity(OTHER) == group.inputs["bytecode"] == ""
    assert not [x for x in names if x.endswith(".pyc") or f"python{MINOR}" in x]
    packages = f"app/.venv/lib/python{OTHER}/site-packages"
    assert f"app/.venv/include/site/python{OTHER}/datum/datum.h" in names
    record = text(layer, f"{packages}/datum-1.0.dist-info/RECORD")
    assert f"../../../include/site/python{OTHER}/datum/datum.h" in record


def test_pure_wheels_give_the_same_layer_on_every_platform(tmp_path: Path, shelf: Path) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "pure"))
    amd, _ = dependency_groups(lock, AMD64, interpreter=PYTHON)
    arm, _ = dependency_groups(lock, ARM64, interpreter=PYTHON)
    assert amd.inputs == arm.inputs
    assert packed(amd, tmp_path) == packed(arm, tmp_path)


def test_libraries_of_a_lib64_machine_come_to_lib(tmp_path: Path) -> None:
    write(tmp_path / f"lib64/python{MINOR}/site-packages/plat.so", b"so")
    write(tmp_path / f"lib/python{MINOR}/site-packages/pure.py", b"py")
    settle(tmp_path, MINOR)
    found = {x.relative_to(tmp_path).as_posix() for x in tmp_path.rglob("*") if x.is_file()}
    packages = f"lib/python{MINOR}/site-packages"
    assert found == {f"{packages}/plat.so", f"{packages}/pure.py"}


def big_members(name: str) -> dict[str, str | bytes]:
    """Members of a wheel that gets a layer of its own."""
    blocks = ALONE // 32 + 1
    weights = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(blocks))
    return {f"nvidia/{name}/lib.bin": weights, f"nvidia/{name}/__init__.py": "big = True\n"}


def test_bentos_with_other_locks_share_the_layers_of_their_wheels(
    tmp_path: Path, shelf: Path
) -> None:
    big, a = make_wheel(shelf, "big", members=big_members("big")), make_wheel(shelf, "a")
    one = lock_of(tmp_path, big, a)
    two = lock_of(tmp_path, make_wheel(shelf, "b"), big, a)
    first = dependency_groups(one, AMD64, interpreter=PYTHON)
    second = dependency_groups(two, AMD64, interpreter="/usr/bin/python3")
    titles = [group.title for group in second]
    assert titles[0] == "big 1.0" and titles[-1] == f"environment (Python {MINOR})"
    assert {"a 1.0", "b 1.0"} == set(titles[1:-1])
    theirs = {group.title: group for group in second}
    for group in first[:-1]:
        assert group.inputs == theirs[group.title].inputs
        assert packed(group, tmp_path / "one") == packed(theirs[group.title], tmp_path / "two")
    assert first[-1].inputs != second[-1].inputs


def unpacked(groups: Sequence[DependencyGroup], root: Path) -> Path:
    """Lays the layers over each other, as a node does; gives the environment's Python."""
    for group in groups:
        layer = opened(packed(group, root.parent / "scratch"))
        folders = {member.name for member in layer.getmembers() if member.isdir()}
        assert {"app", "app/.venv"} <= folders
        for member in layer.getmembers():
            if not member.isdir():
                (root / member.name).unlink(missing_ok=True)
            layer.extract(member, root)
    return root / "app/.venv/bin/python"


def test_layers_that_share_folders_unpack_into_one_environment(tmp_path: Path, shelf: Path) -> None:
    lines = [make_wheel(shelf, name, members=big_members(name)) for name in ("cuda", "dnn")]
    small: dict[str, str | bytes] = {"nvidia/small.py": "small = True\n"}
    lock = lock_of(tmp_path, *lines, make_wheel(shelf, "small", members=small))
    groups = dependency_groups(lock, AMD64, interpreter=sys.executable)
    assert len(groups) == 4
    python = unpacked(groups, tmp_path / "root")
    check = "import nvidia.cuda, nvidia.dnn, nvidia.small; print(nvidia.cuda.__cached__)"
    done = subprocess.run([python, "-I", "-c", check], check=True, capture_output=True, text=True)
    assert str(tmp_path / "root") in done.stdout
    assert Path(done.stdout.strip()).exists()


def shared_wheels(shelf: Path, names: Sequence[str]) -> list[str]:
    """Lines of small wheels that all write the same module."""
    return [
        make_wheel(
            shelf, name, members={"both/__init__.py": f"who = {name!r}\n", f"both/{name}.py": ""}
        )
        for name in names
    ]


@pytest.mark.parametrize("together", [True, False])
def test_of_a_file_that_two_wheels_have_the_later_one_counts(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.setattr(groups_module, "_share", lambda name: 0 if together else ord(name))
    lock = lock_of(tmp_path, *shared_wheels(shelf, ["c", "a", "b"]))
    groups = dependency_groups(lock, AMD64, interpreter=sys.executable)
    assert len(groups) == (2 if together else 4)
    python = unpacked(groups, tmp_path / "root")
    check = "import both, both.a, both.b, both.c; print(both.who)"
    done = subprocess.run([python, "-I", "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout == "c\n"
    if together:
        assert packed(groups[0], tmp_path / "one") == packed(groups[0], tmp_path / "two")


def test_a_wheel_that_writes_over_anothers_files_does_not_change_its_layer(
    tmp_path: Path, shelf: Path
) -> None:
    good, evil = {"x.py": "good = 1\n"}, {"x.py": "evil = 1\n", "a-1.0.dist-info/RECORD": ""}
    alone = lock_of(tmp_path, make_wheel(shelf, "a", members=good))
    both = lock_of(
        tmp_path, make_wheel(shelf, "a", members=good), make_wheel(shelf, "b", members=evil)
    )
    one = dependency_groups(alone, AMD64, interpreter=PYTHON)
    two = dependency_groups(both, AMD64, interpreter=PYTHON)
    (same,) = (group for group in two if group.inputs == one[0].inputs)
    assert packed(one[0], tmp_path / "one") == packed(same, tmp_path / "two")


def test_a_wheel_cannot_put_a_file_where_the_environment_has_a_folder(
    tmp_path: Path, shelf: Path
) -> None:
    members: dict[str, str | bytes] = {"rude-1.0.data/data/bin": "no folder\n"}
    lock = lock_of(tmp_path, make_wheel(shelf, "rude", members=members))
    group, _ = dependency_groups(lock, AMD64, interpreter=PYTHON)
    with pytest.raises(ImageError, match=r"the folder '/app/\.venv/bin'"):
        packed(group, tmp_path)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_wheels_that_cannot_lie_in_one_folder_are_named(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Whichever uv unpacks first."""
    monkeypatch.setattr(groups_module, "_share", lambda name: 0)
    first, second = order
    lock = lock_of(
        tmp_path,
        make_wheel(shelf, first, members={"shared": "a file\n"}),
        make_wheel(shelf, second, members={"shared/inner.py": "in a folder\n"}),
    )
    group, _ = dependency_groups(lock, AMD64, interpreter=PYTHON)
    told = rf"{first} 1\.0 has a file '\S+/shared' where {second} 1\.0 has a folder"
    with pytest.raises(ImageError, match=told) as failure:
        packed(group, tmp_path / "scratch")
    assert "Lock other versions" in (failure.value.hint or "")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_wheel_that_cannot_be_fetched_is_an_error_in_uvs_words(
    tmp_path: Path, shelf: Path
) -> None:
    lock = lock_of(tmp_path, make_wheel(shelf, "gone"))
    group, _ = dependency_groups(lock, AMD64, interpreter=PYTHON)
    for wheel in shelf.iterdir():
        wheel.unlink()
    with pytest.raises(ImageError, match="gone"):
        packed(group, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []
