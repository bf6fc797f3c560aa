"""The deterministic tar stream."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.oci.tar import (
    DEFAULT_EPOCH,
    TarEntry,
    content_entry,
    source_date_epoch,
    tar_stream,
    walk_tree,
)
from kfp_bento.runtime.images.oci.tar_header import member_header

LONG = "a-rather-long-directory-name-that-goes-on/" * 6 + "end.txt"


def packed(root: Path) -> bytes:
    return b"".join(tar_stream(walk_tree(root, "home/x", owner=1034), DEFAULT_EPOCH))


def make_tree(root: Path) -> Path:
    for name in ("b.txt", "a/c.txt", "a.txt", "ünïcode/ß.txt", LONG, "z/run.sh"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    Path(os.fsdecode(os.fsencode(root) + b"/latin-\xe9")).write_text("not UTF-8")
    (root / "z/run.sh").chmod(0o700)
    (root / "empty").mkdir()
    (root / "link").symlink_to("a/c.txt")
    (root / "a/up").symlink_to("../b.txt")
    (root / "dangling").symlink_to("nowhere")
    return root


def test_the_stream_is_a_tar_that_holds_the_tree(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree")
    with tarfile.open(fileobj=io.BytesIO(packed(root))) as archive:
        # Our own archive; Python 3.11.2 has no filters and trusts it anyway.
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        archive.extractall(tmp_path / "out")
    out = tmp_path / "out/home/x"
    assert {path.name for path in out.iterdir()} == {path.name for path in root.iterdir()}
    assert (out / LONG).read_text() == LONG
    assert (out / "ünïcode/ß.txt").read_text() == "ünïcode/ß.txt"
    assert (out / "a/up").readlink() == Path("../b.txt")
    assert (out / "empty").is_dir()


def test_times_umask_and_order_of_creation_do_not_show(tmp_path: Path) -> None:
    before = packed(make_tree(tmp_path / "one"))
    other = tmp_path / "two"
    other.mkdir()
    (other / "z").mkdir(mode=0o700)
    make_tree(other)
    for path in other.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (5, 5))
    assert packed(other) == before


def test_members_have_plain_owners_modes_and_times(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(make_tree(tmp_path / "tree")))) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (1034, 1034, "", "", DEFAULT_EPOCH)
    }
    modes = {m.name: m.mode for m in members if m.isreg()}
    assert modes.pop("home/x/z/run.sh") == 0o755
    assert set(modes.values()) == {0o644}
    names = [m.name.encode("utf-8", "surrogateescape") for m in members]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("target", "depth"),
    [("/etc/passwd", 0), ("../outside", 0), ("a/../../outside", 0), ("../../outside", 1)],
)
def test_a_symlink_that_leaves_the_tree_is_refused(tmp_path: Path, target: str, depth: int) -> None:
    root = tmp_path / "tree"
    folder = root / "a" if depth else root
    (root / "a").mkdir(parents=True)
    (folder / "link").symlink_to(target)
    with pytest.raises(ImageError, match="leaves the tree"):
        packed(root)


def test_a_symlink_that_leaves_through_another_symlink_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "tree/p/q/r"
    deep.mkdir(parents=True)
    (tmp_path / "tree/top").mkdir()
    (deep / "jump").symlink_to("../../../top")
    (deep / "link").symlink_to("jump/../../outside")
    with pytest.raises(ImageError, match="leaves the tree"):
        packed(tmp_path / "tree")


def test_whiteout_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/.wh.b").touch()
    with pytest.raises(ImageError, match=r"\.wh\."):
        packed(tmp_path / "tree")


def test_setuid_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tree/su"
    file.parent.mkdir()
    file.touch()
    file.chmod(0o4755)
    with pytest.raises(ImageError, match="setuid"):
        packed(tmp_path / "tree")


def test_setgid_directories_of_shared_volumes_are_fine(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "a").mkdir(parents=True)
    plain = packed(root)
    (root / "a").chmod(0o2775)
    assert packed(root) == plain


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_pipes_and_sockets_are_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    monkeypatch.chdir(root)
    if kind == "pipe":
        os.mkfifo("thing")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("thing")
    with pytest.raises(ImageError, match="device, socket or pipe"):
        packed(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device node")
def test_device_nodes_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    try:
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this container may not make device nodes")
    with pytest.raises(ImageError, match="device, socket or pipe"):
        packed(root)


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_text("short")
    entries = list(walk_tree(root, "x"))
    (root / "a").write_text("a good deal longer")
    with pytest.raises(ImageError, match="changed while"):
        b"".join(tar_stream(entries, 0))


@pytest.mark.parametrize("path", ["/a", "a/../b", "a//b", "./a", ""])
def test_paths_that_leave_the_root_are_refused(path: str) -> None:
    with pytest.raises(ImageError, match="no path inside"):
        b"".join(tar_stream([content_entry(path, b"")], 0))


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(ImageError, match="twice"):
        b"".join(tar_stream([content_entry("a", b"1"), content_entry("a", b"2")], 0))


def test_source_date_epoch_sets_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert source_date_epoch() == DEFAULT_EPOCH
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert source_date_epoch() == 1700000000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InvalidInput, match="yesterday"):
        source_date_epoch()


@pytest.mark.parametrize(
    "path", ["a", "app/with blank.py", "x" * 100, "x" * 101, "é.py", "a/" * 40]
)
@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11])
@pytest.mark.parametrize("owner", [0, 1034, 8**7 - 1, 8**7])
def test_headers_are_those_of_the_standard_library(path: str, size: int, owner: int) -> None:
    entry = TarEntry(path, "file", 0o755, owner, size)
    for epoch in (0, DEFAULT_EPOCH, 8**11):
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid, info.size, info.mtime = 0o755, owner, owner, size, epoch
        whole = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        assert member_header(entry, epoch) == whole
