"""Directories, models and files that change while they are read, or hold what no image may."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handmade import (
    write,
)

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import ImageError, KfpBentoError
from kfp_bento.runtime.images.assembly.recipes import (
    _content_digest,
    _model_entries,
    _source_entries,
)
from kfp_bento.runtime.images.oci import tar
from kfp_bento.runtime.images.oci.tar import (
    InOrder,
    content_entry,
    directory_entry,
    symlink_entry,
    tar_stream,
    walk_tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kfp_bento.runtime.bentos import Bento


def packed(entries: Iterable[tar.TarEntry]) -> bytes:
    return b"".join(tar_stream(entries, 0))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path / "secret.txt", "secret!")
    write(tmp_path / "tree/a/file.txt", "content")
    write(tmp_path / "tree/b.txt", "b")
    return tmp_path / "tree"


@pytest.mark.parametrize("what", ["symlink", "pipe", "directory", "nothing"])
def test_a_file_swapped_after_it_was_listed_is_not_followed(tree: Path, what: str) -> None:
    entries = list(walk_tree(tree, "x"))
    file = tree / "a/file.txt"
    file.unlink()
    if what == "symlink":
        file.symlink_to("../../secret.txt")  # of the same size
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "directory":
        file.mkdir()
    with pytest.raises(ImageError, match=r"changed while|No such file"):
        packed(entries)


def test_a_directory_swapped_for_a_symlink_is_not_followed(tree: Path) -> None:
    write(tree.parent / "other/file.txt", "secret!")
    entries = list(walk_tree(tree, "x"))
    (tree / "a").rename(tree.parent / "moved")
    (tree / "a").symlink_to("../other")
    with pytest.raises(ImageError, match="changed while"):
        packed(entries)


def test_a_directory_swapped_while_the_tree_is_listed_is_not_followed(tree: Path) -> None:
    write(tree.parent / "other/hidden-name.txt", "secret!")
    listing = walk_tree(tree, "x")
    while next(listing).path != "x/a":
        pass
    (tree / "a").rename(tree.parent / "moved")
    (tree / "a").symlink_to("../other")
    with pytest.raises(ImageError, match="changed while"):
        list(listing)


def test_a_model_swapped_for_a_symlink_is_not_followed(bento: Bento) -> None:
    model = bento.directory / "models/factor/0123456789abcdef"
    model.rename(bento.directory.parent / "elsewhere")
    model.symlink_to(bento.directory.parent / "elsewhere")
    with pytest.raises(ImageError, match="changed while"):
        list(_model_entries(bento.directory, model))


def test_a_file_that_shrinks_while_it_is_read_is_noticed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tree / "big.bin", bytes(3 * tar.CHUNK))
    stream = tar_stream(list(walk_tree(tree, "x")), 0)
    next(stream)
    os.truncate(tree / "big.bin", tar.CHUNK)
    with pytest.raises(ImageError, match="changed while"):
        b"".join(stream)


def test_a_file_that_grows_behind_the_reader_is_noticed(tree: Path) -> None:
    write(tree / "big.bin", bytes(3 * tar.CHUNK))
    stream = tar_stream(list(walk_tree(tree, "x")), 0)
    next(stream)
    os.truncate(tree / "big.bin", 4 * tar.CHUNK)
    with pytest.raises(ImageError, match="changed while"):
        b"".join(stream)


def test_a_sparse_file_that_claims_exbibytes_is_refused(tree: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        try:
            file.truncate(tar.LARGEST + 1)
        except OSError:
            pytest.skip("this file system holds no file of more than a tebibyte")
    with pytest.raises(ImageError, match="more than a tebibyte"):
        list(walk_tree(tree, "x"))


def test_hard_links_are_files_like_any_other(tree: Path) -> None:
    (tree / "c.txt").hardlink_to(tree / "b.txt")
    with tarfile.open(fileobj=io.BytesIO(packed(walk_tree(tree, "x")))) as archive:
        assert archive.getmember("x/c.txt").isreg()
        assert archive.getmember("x/b.txt").isreg()


def test_names_may_hold_line_breaks_and_survive(tree: Path) -> None:
    names = ["two\nlines", "tab\there", "back\\slash", "trailing ", "-rf", "9 x=y\n"]
    for name in names:
        write(tree / name, name)
    with tarfile.open(fileobj=io.BytesIO(packed(walk_tree(tree, "x")))) as archive:
        assert {f"x/{name}" for name in names} <= set(archive.getnames())


def test_an_error_shows_no_control_characters(tree: Path) -> None:
    (tree / "\x1b[2Jgone\n").symlink_to("/etc/passwd")
    with pytest.raises(ImageError, match="leaves the tree") as caught:
        list(walk_tree(tree, "x"))
    assert "\x1b" not in str(caught.value) and "gone\\n" in str(caught.value)


@pytest.fixture
def make_deep(tmp_path: Path) -> Iterator[Callable[[Path, int, str], None]]:
    """Makes directories in directories, and takes them away again: pytest could not."""

    def make(folder: Path, depth: int, name: str) -> None:
        here = os.open(folder, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)

    yield make
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def test_directories_deeper_than_a_path_can_be_are_refused(
    tree: Path, make_deep: Callable[[Path, int, str], None]
) -> None:
    make_deep(tree, 60, "d" * 100)
    with pytest.raises(ImageError, match="too long for an image"):
        list(walk_tree(tree, "x"))


def test_a_thousand_directories_deep_is_not_too_deep(
    tree: Path, make_deep: Callable[[Path, int, str], None]
) -> None:
    make_deep(tree, 1200, "d")
    deepest = max(len(entry.path.split("/")) for entry in walk_tree(tree, "x"))
    assert deepest == 1201


def test_a_bento_nested_too_deeply_is_refused(
    bento: Bento, make_deep: Callable[[Path, int, str], None]
) -> None:
    make_deep(bento.directory / "src", 1300, "d")
    with pytest.raises(KfpBentoError, match=r"nested too deeply|too long"):
        load_bento(bento.directory)


def test_a_chain_of_symlinks_ends(tree: Path) -> None:
    (tree / "link0").symlink_to("b.txt")
    for number in range(1, 1500):
        (tree / f"link{number}").symlink_to(f"link{number - 1}")
    with pytest.raises(ImageError, match="through too many others"):
        list(walk_tree(tree, "x"))


def test_symlinks_in_a_circle_stay_symlinks(tree: Path) -> None:
    (tree / "one").symlink_to("two")
    (tree / "two").symlink_to("one")
    (tree / "self").symlink_to("self")
    targets = {entry.path: entry.target for entry in walk_tree(tree, "x") if entry.target}
    assert targets == {"x/one": "two", "x/two": "one", "x/self": "self"}


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "/etc/passwd", "a/../../b", "a\0b", "a/./b", "a/", "."]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match="no path inside an image"):
        packed([content_entry(path, b"")])


@pytest.mark.parametrize("path", ["a" * 256, "/".join(["abcdefg"] * 513)])
def test_a_path_that_could_not_be_unpacked_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match="too long for an image"):
        packed([content_entry(path, b"")])


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
def test_no_layer_holds_a_setuid_or_setgid_bit(mode: int) -> None:
    with pytest.raises(ImageError, match="setuid or setgid"):
        packed([content_entry("su", b"", mode=mode)])


@pytest.mark.parametrize("below", [symlink_entry("a", "/etc"), content_entry("a", b"")])
def test_nothing_is_written_through_a_symlink_or_a_file(below: tar.TarEntry) -> None:
    with pytest.raises(ImageError, match="'a' is no directory"):
        packed([below, directory_entry("a/b"), content_entry("a/b/passwd", b"")])


@pytest.mark.parametrize("below", [symlink_entry("a", "/etc"), content_entry("a", b"")])
def test_members_that_come_in_order_are_checked_as_well(below: tar.TarEntry) -> None:
    # In the order of bytes "a-b" and "a.b" stand between "a" and what is below it.
    between = [content_entry("a-b", b""), directory_entry("a.b"), content_entry("a.b/c", b"")]
    assert packed(InOrder([below, *between]))
    with pytest.raises(ImageError, match="'a' is no directory"):
        packed(InOrder([below, *between, content_entry("a/b", b"")]))
    with pytest.raises(ImageError, match="twice"):
        packed(InOrder([below, below]))


def test_a_file_of_the_bento_swapped_for_a_symlink_is_not_hashed(bento: Bento) -> None:
    listed = {entry.path: entry for entry in _source_entries(bento.directory)}
    entry = listed["home/bentoml/bento/bento.yaml"]
    assert len(_content_digest(entry)) == 64
    secret = write(bento.directory.parent / "secret", bytes(entry.size))
    (bento.directory / "bento.yaml").unlink()
    (bento.directory / "bento.yaml").symlink_to(secret)
    with pytest.raises(ImageError, match="changed while"):
        _content_digest(entry)


def test_modes_of_the_tree_do_not_show(tree: Path) -> None:
    (tree / "b.txt").chmod(0o1777)
    (tree / "a").chmod(0o7777)
    modes = {entry.path: entry.mode for entry in walk_tree(tree, "x")}
    assert (modes["x/b.txt"], modes["x/a"]) == (0o755, 0o755)
