"""Input made to do harm: refused with the reason, or turned into something harmless."""

from __future__ import annotations

import base64
import copy
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import time
import urllib.request
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import (
    INDEX_OPTION,
    MINOR,
    open_layer,
    read_json,
    read_manifest,
    write,
    write_base,
    write_bento,
)

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import BentoError, ImageError, KfpBentoError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images import build_image
from kfp_bento.runtime.images.assembly.qualify import qualify
from kfp_bento.runtime.images.assembly.recipes import (
    _content_digest,
    _model_entries,
    _source_entries,
)
from kfp_bento.runtime.images.base.base_image import open_base
from kfp_bento.runtime.images.cache.local import LayerCache
from kfp_bento.runtime.images.copy import copy_image
from kfp_bento.runtime.images.debian.rootfs import probe_base
from kfp_bento.runtime.images.oci import tar
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.config import image_config, image_manifest
from kfp_bento.runtime.images.oci.image import Descriptor, Layer, parse_platform
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.oci.tar import (
    InOrder,
    content_entry,
    directory_entry,
    symlink_entry,
    tar_stream,
    walk_tree,
)
from kfp_bento.runtime.images.places.layout import LayoutSource
from kfp_bento.runtime.images.python.environment import settle
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel, locked
from kfp_bento.runtime.images.registry.credentials import find_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kfp_bento.runtime.bentos import Bento

OCI = "application/vnd.oci.image"
ARCHITECTURE = parse_platform().architecture
MUTATIONS = 120  # of each kind of document


# --- trees


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


# --- bento.yaml


def with_yaml(bento: Bento, change: Callable[[str], str]) -> Bento:
    file = bento.directory / "bento.yaml"
    file.write_text(change(file.read_text()))
    return bento


BOMB = "bomb0: &b0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"bomb{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "m0: &m0 {x: y}\n" + "".join(
    f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "aliases multiply"),
        (MERGES, "merge keys"),
        ("self: &self [*self]\n", "contains itself"),
        ("deep: " + "[" * 3000 + "]" * 3000 + "\n", "nested too deeply"),
        ("run: !!python/object/apply:os.system ['touch owned']\n", "could not determine"),
        ("open: !!python/name:builtins.open\n", "could not determine"),
        ("broken: !!int ''\n", "a value cannot be read"),
        ("long: " + "x" * (1 << 20) + "\n", "larger than"),
    ],
    ids=["aliases", "merge keys", "circle", "depth", "python call", "python name", "int", "size"],
)
def test_a_bento_yaml_that_does_harm_is_refused(bento: Bento, text: str, reason: str) -> None:
    with_yaml(bento, lambda before: before + text)
    for read in (load_bento, qualify):
        started = time.monotonic()
        with pytest.raises(BentoError, match=reason):
            read(bento.directory)
        assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("services:\n", "services: 7\nold:\n"),
        ("services:\n", "services: [x]\nold:\n"),
        ("value: hello", "value: [a, b]"),
        ("- name: GREETING\n", "- nome: GREETING\n"),
        ("envs:\n", "envs: 3\nold:\n"),
        ("image:\n", "image: text\nold:\n"),
        ("commands: []", "commands: {a: {b: c}}\n  system: &x []"),
        ("commands: []", "commands: [[x]]"),
    ],
)
def test_values_of_wrong_types_are_refused(bento: Bento, before: str, after: str) -> None:
    with_yaml(bento, lambda text: text.replace(before, after))
    with pytest.raises(KfpBentoError, match=r"bento\.yaml|without running commands"):
        qualify(bento.directory)


@pytest.mark.parametrize(
    "name", ["A=B", "TWO\\nLINES", "NUL\\0", "WITH SPACE", "1ST", "", "Ü", "PATH"]
)
def test_a_name_that_no_variable_can_have_is_refused(bento: Bento, name: str) -> None:
    with_yaml(bento, lambda text: text.replace("name: GREETING", f'name: "{name}"'))
    with pytest.raises(ImageError, match=r"no name of an environment variable|PATH is made"):
        qualify(bento.directory)


def test_a_nul_in_a_variable_is_refused(bento: Bento) -> None:
    with_yaml(bento, lambda text: text.replace("value: hello", 'value: "a\\0b"'))
    with pytest.raises(ImageError, match="GREETING holds a NUL"):
        qualify(bento.directory)


def test_line_breaks_and_equal_signs_in_a_value_stay_in_that_value(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    with_yaml(bento, lambda text: text.replace("value: hello", 'value: "a=b\\nLD_PRELOAD=/x"'))
    build_image(bento, f"oci:{tmp_path}/out", base=base)
    config = read_json(tmp_path / "out", read_manifest(tmp_path / "out")["config"]["digest"])
    assert "GREETING=a=b\nLD_PRELOAD=/x" in config["config"]["Env"]
    assert not [x for x in config["config"]["Env"] if x.startswith("LD_PRELOAD")]


@pytest.mark.parametrize("wanted", ["host", "oci:/var/lib/images", "docker-archive:/tmp/x.tar"])
def test_a_bento_cannot_choose_a_base_on_the_builders_disk(bento: Bento, wanted: str) -> None:
    with_yaml(bento, lambda text: text.replace(f"python:{MINOR}-slim", wanted))
    with pytest.raises(ImageError, match="only who builds the image can choose"):
        qualify(bento.directory)


@pytest.mark.parametrize("version", ["3.11/../../x", "../etc", "3.11 --pre", "2.7"])
def test_a_python_version_that_is_a_path_is_refused(bento: Bento, version: str) -> None:
    with_yaml(
        bento, lambda text: text.replace(f"python_version: '{MINOR}'", f"python_version: {version}")
    )
    with pytest.raises(ImageError, match="python_version"):
        qualify(bento.directory)


@pytest.mark.parametrize("name", ["../../etc", "two words", "a\\nb", "UPPER", ""])
def test_a_name_that_is_no_bentos_is_refused(bento: Bento, name: str) -> None:
    with_yaml(bento, lambda text: text.replace("name: tiny", f'name: "{name}"'))
    with pytest.raises(ImageError, match="name is"):
        qualify(bento.directory)


def test_a_model_tag_that_is_a_path_is_refused(bento: Bento) -> None:
    with_yaml(bento, lambda text: text.replace("tag: factor:0123", "tag: ../../x:0123"))
    with pytest.raises(ImageError, match="no name that BentoML gives"):
        qualify(bento.directory)


@pytest.mark.parametrize("kind", ["pipe", "directory", "huge"])
def test_a_bento_yaml_that_is_no_plain_file_is_refused(bento: Bento, kind: str) -> None:
    file = bento.directory / "bento.yaml"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.touch()
        os.truncate(file, 1 << 32)
    with pytest.raises(BentoError, match=r"no regular file|larger than|Is a directory"):
        qualify(bento.directory)


# --- requirements and wheels

HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-r /etc/passwd", "option -r"),
        ("-r/etc/passwd", "option -r"),
        ("--requirement=/etc/passwd", "option --requirement"),
        ("-c /etc/passwd", "option -c"),
        ("-e .", "is editable"),
        ("--editable .", "is editable"),
        ("--find-links /var", "option --find-links"),
        ("# a comment does not go on \\\n-r /etc/passwd", "option -r"),
        (f"idna==3.10 {HASH} # nor does this one \\\n-r /etc/passwd", "option -r"),
        (f"{INDEX_OPTION} https://user:hunter2@index.example/simple", "credentials"),
        (f"idna @ https://hunter2@index.example/idna.whl {HASH}", "credentials"),
        (f"idna @ https://index.example/idna.whl?token=hunter2 {HASH}", "credentials"),
        (f"{INDEX_OPTION} https://index.example/${{AWS_SECRET_ACCESS_KEY}}/simple", "variable"),
        (f"idna @ https://index.example/${{TOKEN}}/idna.whl {HASH}", "variable"),
        (f"idna @ file:///etc/passwd {HASH}", "outside the bento"),
        (f"/etc/idna.whl {HASH}", "outside the bento"),
        (f"./wheels/../../../idna.whl {HASH}", "outside the bento"),
        (f"../idna.whl {HASH}", "outside the bento"),
        (f"{INDEX_OPTION}=file:///etc", "outside the bento"),
        ("idna==3.10", "not locked with hashes"),
        ("idna==3.10 \\\n  # --hash=sha256:00", "not locked with hashes"),
        ("\udcff", "cannot be read"),
    ],
)
def test_requirements_that_reach_beyond_packages_are_refused(
    bento: Bento, text: str, reason: str
) -> None:
    file = bento.directory / "env/python/requirements.txt"
    file.write_bytes(f"{text}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(ImageError, match=reason) as caught:
        qualify(bento.directory)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{INDEX_OPTION} https://index.example/simple\nidna==3.10 {HASH}",
        f"idna ~= 3.10 ; python_version < '4' \\\n    {HASH} \\\n    {HASH}\n# via x",
        f"./wheels/greeter-1.0-py3-none-any.whl {HASH}",
        f"idna @ https://files.example/a/idna-3.10-py3-none-any.whl#sha256=00 {HASH}",
    ],
)
def test_plain_requirements_pass(bento: Bento, text: str) -> None:
    (bento.directory / "env/python/requirements.txt").write_text(f"{text}\n")
    assert qualify(bento.directory).requirements.name == "requirements.txt"


def test_a_list_of_ones_own_includes_nothing_either(tmp_path: Path) -> None:
    file = write(tmp_path / "lock.txt", "# a comment \\\n-r /etc/passwd\nidna==3.10\n")
    lock = Lock(file, tmp_path, MINOR)
    assert list(lock.lines()) == ["-r /etc/passwd", "idna==3.10"]
    with pytest.raises(ImageError, match="option -r"):
        list(lock.options())


@pytest.mark.parametrize(
    "change",
    [
        {"version": "3.10\n-r /etc/passwd"},
        {"source": "./x.whl --find-links /"},
        {"sha256": "00"},
        {"size": "7"},
        {"more": ""},
    ],
)
def test_a_remembered_wheel_is_one_line_of_a_list_or_none(change: dict[str, Any]) -> None:
    wheel = Wheel("idna", "3.10", "idna-3.10-py3-none-any.whl", "0" * 64, 70_000)
    assert Wheel.from_dict(wheel.to_dict()) == wheel
    with pytest.raises(ValueError, match="wheel"):
        Wheel.from_dict({**wheel.to_dict(), **change})


def test_wheels_that_the_lock_does_not_hold_are_not_remembered(tmp_path: Path) -> None:
    lock = Lock(write(tmp_path / "lock.txt", f"idna==3.10 {HASH}\n"), tmp_path, MINOR)
    wheel = Wheel("idna", "3.10", "idna-3.10-py3-none-any.whl", "0" * 64, 70_000)
    assert locked([wheel], lock)
    assert not locked([wheel, replace(wheel, sha256="1" * 64)], lock)


@pytest.mark.parametrize("record", [b"\xff", b"a,b\n", b'a,b,"c', b"a\0,,7\n"])
def test_a_record_that_is_none_is_refused_or_harmless(tmp_path: Path, record: bytes) -> None:
    info = write(tmp_path / f"lib/python{MINOR}/site-packages/x-1.dist-info/RECORD", record).parent
    try:
        settle(tmp_path, MINOR)
    except ImageError as error:
        assert "RECORD of x-1.dist-info cannot be read" in error.message
    assert info.is_dir()


def test_a_wheel_that_is_a_symlink_out_of_the_bento_is_refused(bento: Bento) -> None:
    outside = write(bento.directory.parent / "secret.whl", "secret")
    (bento.directory / "src/wheels/other.whl").symlink_to(outside)
    with pytest.raises(ImageError, match=r"other\.whl': it is a symlink that leaves the bento"):
        qualify(bento.directory)


def test_a_pipe_among_the_wheels_keeps_nobody_waiting(bento: Bento) -> None:
    os.mkfifo(bento.directory / "src/wheels/other.whl")
    with pytest.raises(ImageError, match=r"other\.whl': it is no file"):
        qualify(bento.directory)


def bento_with_wheel(directory: Path, members: dict[str, str], symlink: str = "") -> Bento:
    info = "greeter-1.0.dist-info"
    plain = {
        "greeter.py": "x = 1\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    wheel = directory / "src/wheels/greeter-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**plain, **members}.items():
            member = zipfile.ZipInfo(name)
            member.create_system = 3
            member.external_attr = (0o120777 if name == symlink else 0o104755) << 16
            archive.writestr(member, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return write_bento(directory, f"./wheels/greeter-1.0-py3-none-any.whl --hash=sha256:{digest}\n")


@pytest.mark.parametrize(
    ("members", "symlink"),
    [
        ({"../../../evil.py": ""}, ""),
        ({"/tmp/evil.py": ""}, ""),
        ({"greeter-1.0.data/data/../../../evil.txt": ""}, ""),
        ({"evil": "/etc/passwd"}, "evil"),
        ({"bin": "../../../.."}, "bin"),
        ({"evil.py": "../../../../../../etc/passwd"}, "evil.py"),
        ({"greeter-1.0.data/data/pyvenv.cfg": "evil"}, ""),
    ],
)
def test_a_wheel_changes_nothing_outside_its_place(
    tmp_path: Path, base: str, members: dict[str, str], symlink: str
) -> None:
    image = build_image(
        bento_with_wheel(tmp_path / "bento", members, symlink), f"oci:{tmp_path}/out", base=base
    )
    with open_layer(tmp_path / "out", image.layers[1]) as layer:
        found = {member.name: member for member in layer.getmembers()}
        config = layer.extractfile("app/.venv/pyvenv.cfg")
        assert config is not None and b"home = /usr/local/bin" in config.read()
    assert all(name == "app" or name.startswith("app/.venv") for name in found)
    links = {name: member.linkname for name, member in found.items() if member.issym()}
    venv = "app/.venv/bin"
    python = f"/usr/local/bin/python{MINOR}"
    assert links == {
        **{f"{venv}/python": python, f"{venv}/python3": "python"},
        f"{venv}/python{MINOR}": "python",
    }
    assert not any(member.mode & 0o7000 for member in found.values())


def test_a_wheel_cannot_bring_an_interpreter(tmp_path: Path, base: str) -> None:
    hostile = bento_with_wheel(tmp_path / "bento", {"greeter-1.0.data/data/bin/python3": "evil"})
    with pytest.raises(ImageError, match="python3"):
        build_image(hostile, f"oci:{tmp_path}/out", base=base)


def test_a_wheel_with_a_whiteout_is_refused(tmp_path: Path, base: str) -> None:
    hostile = bento_with_wheel(tmp_path / "bento", {"pkg/.wh.important": ""})
    with pytest.raises(ImageError, match=r"\.wh\."):
        build_image(hostile, f"oci:{tmp_path}/out", base=base)
    assert not (tmp_path / "out").exists()


# --- base images


class Base:
    """The documents of a base image, to be spoilt before they are written down."""

    def __init__(self) -> None:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("etc/base"))
        self.layer = gzip.compress(plain.getvalue(), mtime=0)
        self.config: Any = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Env": [f"PYTHON_VERSION={MINOR}.1"], "Labels": {"a": "b"}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"],
            },
            "history": [{"created_by": "base", "created": "2026-01-01T00:00:00Z"}],
        }
        self.manifest: Any = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "layers": [describe(self.layer, f"{OCI}.layer.v1.tar+gzip")],
        }
        self.entry: dict[str, Any] = {"platform": {"os": "linux", "architecture": ARCHITECTURE}}
        self.index: Any = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json"}
        self.spoil_config_descriptor: dict[str, Any] = {}

    def write(self, directory: Path) -> str:
        config = as_bytes(self.config)
        if isinstance(self.manifest, dict):
            described = {**describe(config, f"{OCI}.config.v1+json")}
            self.manifest.setdefault("config", {**described, **self.spoil_config_descriptor})
        manifest = as_bytes(self.manifest)
        if isinstance(self.index, dict):
            described = describe(manifest, f"{OCI}.manifest.v1+json")
            self.index.setdefault("manifests", [{**described, **self.entry}])
        index = as_bytes(self.index)
        for content in (self.layer, config, manifest, index):
            write(directory / "blobs/sha256" / hashlib.sha256(content).hexdigest(), content)
        top = {"schemaVersion": 2, "manifests": [describe(index, f"{OCI}.index.v1+json")]}
        write(directory / "index.json", json.dumps(top))
        write(directory / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
        return f"oci:{directory}"


def as_bytes(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def describe(content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def opened(base: str, workspace: Path) -> Any:
    return open_base(
        base,
        MINOR,
        parse_platform(),
        workspace=BlobDirectory(workspace),
        codec=codec_named("gzip"),
        cache=None,
        epoch=0,
        progress=lambda sentence: None,
    )


def test_the_base_that_is_spoilt_below_is_good(tmp_path: Path) -> None:
    assert opened(Base().write(tmp_path / "base"), tmp_path / "work").python == f"{MINOR}.1"


def spoil_layer(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.manifest["layers"][0].update(fields)


def spoil_inner(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.config["config"].update(fields)


def spoil_config(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.config.update(fields)


def spoil_manifest(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.manifest.update(fields)


def drop(*path: Any) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        place = getattr(base, path[0])
        for part in path[1:-1]:
            place = place[part]
        del place[path[-1]]

    return change


def many_layers(base: Base) -> None:
    base.manifest["layers"] *= 120
    base.config["rootfs"]["diff_ids"] *= 120


def spoil(name: str, value: Any) -> Callable[[Base], None]:
    return lambda base: setattr(base, name, value)


TWICE = b'{"schemaVersion": 2, "schemaVersion": 2, "layers": [], "config": {}}'
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil_layer(size=-1), "gives no size"),
        (spoil_layer(size=True), "gives no size"),
        (spoil_layer(size=1.5), "gives no size"),
        (spoil_layer(size="9"), "gives no size"),
        (spoil_layer(size=10**30), "gives no size"),
        (spoil_layer(size=None), "gives no size"),
        (spoil_layer(digest="sha256:" + "A" * 64), "no SHA-256 digest"),
        (spoil_layer(digest="sha512:" + "0" * 128), "no SHA-256 digest"),
        (spoil_layer(digest="md5:" + "0" * 32), "no SHA-256 digest"),
        (spoil_layer(digest="sha256:../../../etc/passwd"), "no SHA-256 digest"),
        (spoil_layer(digest="sha256:" + "0" * 64 + "\n"), "no SHA-256 digest"),
        (spoil_layer(digest=["sha256"]), "no SHA-256 digest"),
        (spoil_layer(mediaType=["x"]), "no media type"),
        (spoil_layer(mediaType=FOREIGN), "layer of type"),
        (spoil_layer(mediaType=f"{OCI}.layer.nondistributable.v1.tar"), "layer of type"),
        (spoil_layer(mediaType=f"{OCI}.config.v1+json"), "layer of type"),
        (spoil_manifest(layers={}), "neither an image manifest nor"),
        (spoil_manifest(layers=[None]), "where a descriptor must be"),
        (spoil_manifest(layers=[]), "0 layers but 1 diff ids"),
        (spoil_manifest(config=None), "where a descriptor must be"),
        (spoil_manifest(schemaVersion=1), "neither an image manifest nor"),
        (spoil_manifest(manifests=[]), "neither an image manifest nor"),
        (spoil_manifest(mediaType=f"{OCI}.index.v1+json"), "but says"),
        (drop("manifest", "layers"), "is no image"),
        (many_layers, "120 layers"),
        (spoil("manifest", []), "no JSON object"),
        (spoil("manifest", b"[" * 100_000), "nested too deeply"),
        (spoil("manifest", TWICE), "a key twice"),
        (spoil("manifest", b"\xff\xfe"), "cannot be read: "),
        (spoil("manifest", b'{"layers": NaN}'), "not JSON compliant"),
        (spoil("config", []), "no JSON object"),
        (spoil("config", b'{"a": "\\ud800"}'), "surrogates"),
        (spoil("config", b" " * (5 << 20)), "too large"),
        (drop("config", "rootfs"), "malformed: 'rootfs'"),
        (spoil_config(rootfs=None), "malformed"),
        (spoil_config(rootfs={"diff_ids": "sha256:"}), "no SHA-256 digest"),
        (spoil_config(rootfs={"diff_ids": [None]}), "no SHA-256 digest"),
        (spoil_config(rootfs={"diff_ids": ["sha256:0"]}), "no SHA-256 digest"),
        (spoil_config(config=[]), "'config' is no object"),
        (spoil_config(history={}), "history is no list"),
        (spoil_config(history=[None]), "no object"),
        (spoil_config(history=[{"created": "yesterday"}]), "malformed time"),
        (spoil_config(history=[{"empty_layer": "no"}]), "'empty_layer' has a wrong type"),
        (spoil_config(architecture="riscv64"), "only for linux/riscv64"),
        (drop("config", "os"), "only for unknown/"),
        (spoil_inner(Env={"A": "b"}), "'Env' has a wrong type"),
        (spoil_inner(Env=[None]), "'Env' holds something"),
        (spoil_inner(Env=["A=\0"]), "'Env' holds something"),
        (spoil_inner(Labels=["a"]), "'Labels' has a wrong type"),
        (spoil_inner(Labels={"a": 1}), "'Labels' holds something"),
        (spoil_inner(Volumes=["/x"]), "'Volumes' has a wrong type"),
        (spoil_inner(ExposedPorts="80"), "'ExposedPorts' has a wrong type"),
        (spoil_inner(Volumes={"/x": 1}), "'Volumes' holds more than names"),
        (spoil_config(author=[]), "'author' has a wrong type"),
        (spoil_config(**{"os.features": [1]}), "'os.features' holds something"),
        (spoil_inner(user="0"), "spells 'User' as 'user'"),
        (spoil_inner(ENTRYPOINT=["/evil"]), "spells 'Entrypoint' as"),
        (spoil_inner(**{"u\u017fer": "0"}), "spells 'User' as"),
        (spoil("index", {"schemaVersion": 2, "manifests": {}}), "neither an image manifest nor"),
        (spoil("index", {"schemaVersion": 2, "manifests": [None, 7, {}]}), "no image for linux"),
        (spoil("index", {"schemaVersion": 2, "manifests": [{"platform": "x"}]}), "no image for"),
        (spoil("entry", {"platform": {"os": ["linux"], "architecture": {}}}), "no image for"),
        (lambda base: base.entry.update(size=1), "bytes that are not"),
        (lambda base: base.entry.update(mediaType=f"{OCI}.index.v1+json"), "but says"),
        (lambda base: base.spoil_config_descriptor.update(size=3), "bytes that are not"),
        (lambda base: base.spoil_config_descriptor.update(size=10**13), "no size"),
        (
            lambda base: base.spoil_config_descriptor.update(digest="sha256:" + "0" * 64),
            "cannot be read: No such file",
        ),
    ],
)
def test_a_base_that_lies_is_refused(
    tmp_path: Path, change: Callable[[Base], None], reason: str
) -> None:
    base = Base()
    change(base)
    with pytest.raises(ImageError, match=reason):
        opened(base.write(tmp_path / "base"), tmp_path / "work")


def odd(base: Base) -> None:
    many_layers(base)
    spoil_inner(user="0", Odd={"x": 1})(base)
    base.manifest["layers"][0]["annotations"] = {"kfp-bento.kind": "\x1b"}


def test_an_odd_image_that_is_no_base_is_copied_byte_for_byte(tmp_path: Path) -> None:
    base = Base()
    odd(base)
    name = base.write(tmp_path / "base")
    with pytest.raises(ImageError, match="spells 'User'"):
        opened(name, tmp_path / "work")
    copied = copy_image(name, f"oci:{tmp_path}/copy:v1")
    assert copied.digest == base.index["manifests"][0]["digest"]
    assert not copied.converted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil_manifest(manifests=[]), "neither an image manifest nor"),
        (spoil_manifest(mediaType=f"{OCI}.index.v1+json"), "but says"),
        (spoil("manifest", TWICE), "a key twice"),
        (spoil_layer(digest="sha256:../../x"), "no SHA-256 digest"),
        (lambda base: base.entry.update(size=1), "bytes that are not"),
    ],
)
def test_what_could_be_read_in_two_ways_is_not_even_copied(
    tmp_path: Path, change: Callable[[Base], None], reason: str
) -> None:
    base = Base()
    change(base)
    name = base.write(tmp_path / "base")
    for everything in (False, True):
        with pytest.raises(ImageError, match=reason):
            copy_image(name, f"oci:{tmp_path}/copy:v1", all_platforms=everything)
        assert not (tmp_path / "copy").exists()


def test_an_image_has_no_more_layers_than_a_container_may(tmp_path: Path) -> None:
    found = opened(Base().write(tmp_path / "base"), tmp_path / "work")
    config = Descriptor("x", "sha256:" + "0" * 64, 1)
    assert image_manifest(config, found.layers * 127, {})
    with pytest.raises(ImageError, match="128 layers; containers have at most 127"):
        image_manifest(config, found.layers * 128, {})


def test_a_base_whose_tar_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    for name, reason in (("x" * (3 << 20), "absurd size"), ("d/" * 1000 + "x", "too long")):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        blobs = BlobDirectory(tmp_path)
        blob = blobs.put_bytes(plain.getvalue(), f"{OCI}.layer.v1.tar")
        layer = Layer("base", blob.digest, blob.digest, blob.size, blob.media_type, "base", "")
        with pytest.raises(ImageError, match=reason):
            probe_base([layer], blobs)


@pytest.mark.parametrize(
    "change", [{"digest": "../x"}, {"diff_id": "x"}, {"size": True}, {"title": 7}, {"more": ""}]
)
def test_a_record_of_a_layer_that_was_planted_is_as_good_as_none(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    found = opened(Base().write(tmp_path / "base"), tmp_path / "work")
    cache = LayerCache(tmp_path / "cache")
    cache.keep_layer("key", found.layers[0], found.blobs)
    facts = cache.find_facts("layer-key")
    assert cache.find_layer("key") == found.layers[0].with_origin("reused")
    cache.keep_facts("layer-key", {**facts, **change})
    assert cache.find_layer("key") is None


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[]", b"7", b'{"a": 1, "a": 2}'])
def test_a_record_that_is_damaged_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    cache = LayerCache(tmp_path)
    write(tmp_path / "records/layer-key.json", content)
    assert cache.find_layer("key") is None


def test_what_may_be_null_in_a_base_may_be_null(tmp_path: Path) -> None:
    base = Base()
    base.config["history"] = None
    base.config["config"] |= dict.fromkeys(("Labels", "Volumes", "Cmd", "OnBuild", "Healthcheck"))
    assert opened(base.write(tmp_path / "base"), tmp_path / "work").layers


def test_an_index_of_indexes_is_refused(tmp_path: Path) -> None:
    base = Base()
    inner = {"schemaVersion": 2, "manifests": []}
    base.manifest = inner
    base.entry["mediaType"] = f"{OCI}.index.v1+json"
    base.spoil_config_descriptor = {}
    inner["config"] = None  # kept from being added
    with pytest.raises(ImageError, match="index of indexes"):
        opened(base.write(tmp_path / "base"), tmp_path / "work")


def test_an_index_with_very_many_entries_is_read_or_refused_quickly(tmp_path: Path) -> None:
    base = Base()
    other = {"digest": "x", "platform": {"os": "plan9", "architecture": "386"}}
    base.index["manifests"] = [other] * 50_000
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"only for plan9/386\."):
        opened(base.write(tmp_path / "base"), tmp_path / "work")
    base.index["manifests"] = [other] * 100_000
    with pytest.raises(ImageError, match="too large"):
        opened(base.write(tmp_path / "base"), tmp_path / "work")
    assert time.monotonic() - started < 20


def test_an_index_in_a_registry_that_lies_about_a_size_is_refused(
    tmp_path: Path, oci_registry: str
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    base = Base()
    name = base.write(tmp_path / "base")
    copy_all = ["skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", name]
    subprocess.run([*copy_all, f"docker://{oci_registry}/liar:good"], check=True)
    base.index["manifests"][0]["size"] += 1
    request = urllib.request.Request(
        f"http://{oci_registry}/v2/liar/manifests/bad",
        data=json.dumps(base.index).encode(),
        headers={"Content-Type": f"{OCI}.index.v1+json"},
        method="PUT",
    )
    urllib.request.urlopen(request).close()
    assert opened(f"{oci_registry}/liar:good", tmp_path / "work").digest
    with pytest.raises(ImageError, match=r"with \d+ bytes, but it has \d+"):
        opened(f"{oci_registry}/liar:bad", tmp_path / "work")


def test_addresses_of_other_hosts_in_a_base_are_neither_asked_nor_taken_over(
    tmp_path: Path, bento: Bento
) -> None:
    base = Base()
    base.manifest["layers"][0]["urls"] = ["http://169.254.169.254/latest"]
    base.manifest["layers"][0]["data"] = base64.b64encode(b"other bytes").decode()
    build_image(bento, f"oci:{tmp_path}/out", base=base.write(tmp_path / "base"))
    for layer in read_manifest(tmp_path / "out")["layers"]:
        assert not {"urls", "data"} & layer.keys()


# --- OCI layouts


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "no JSON object"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (5 << 20), "larger than"),
        (b'{"manifests": 7}', "lists no manifests"),
        (b'{"manifests": [7]}', "where a descriptor must be"),
        (b'{"manifests": []}', "no image"),
        (b'{"manifests": [{"digest": "sha256:../../x", "size": 1}]}', "no SHA-256 digest"),
        (b'{"manifests": [], "manifests": []}', "a key twice"),
    ],
)
def test_an_index_json_that_is_none_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    write_base(tmp_path / "base")
    (tmp_path / "base/index.json").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        LayoutSource(tmp_path / "base").find()


def test_annotations_of_wrong_types_are_no_name(tmp_path: Path) -> None:
    base = tmp_path / "base"
    entries = [{"annotations": annotations} for annotations in (None, 7, ["x"], "x", {})]
    write(base / "index.json", json.dumps({"manifests": [*entries, None]}))
    with pytest.raises(ImageError, match="no image tagged 'v1'"):
        LayoutSource(base).find("v1")


def test_a_pipe_in_place_of_an_index_keeps_nobody_waiting(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    (tmp_path / "base/index.json").unlink()
    os.mkfifo(tmp_path / "base/index.json")
    with pytest.raises(ImageError, match="no regular file"):
        LayoutSource(tmp_path / "base").find()


@pytest.mark.parametrize("what", ["passwd", "zero", "pipe", "bytes", "longer"])
def test_a_blob_that_is_something_else_is_refused_and_nothing_is_left(
    tmp_path: Path, bento: Bento, what: str
) -> None:
    base = Base()
    name = base.write(tmp_path / "base")
    blob = tmp_path / "base/blobs/sha256" / hashlib.sha256(base.layer).hexdigest()
    blob.unlink()
    if what == "pipe":
        os.mkfifo(blob)
    elif what in {"bytes", "longer"}:
        blob.write_bytes(base.layer[:-1] + (b"?" if what == "bytes" else b"??"))
    else:
        blob.symlink_to({"passwd": "/etc/passwd", "zero": "/dev/zero"}[what])
    with pytest.raises(ImageError, match=r"bytes that are not|is no file") as caught:
        build_image(bento, f"oci:{tmp_path}/out", base=name)
    assert "root:" not in str(caught.value)
    assert not [x for x in tmp_path.iterdir() if x.name.startswith("out")]


def test_a_blob_replaced_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    content = bytes(3 << 20)
    blobs = BlobDirectory(tmp_path)
    blob = blobs.put_bytes(content, "x")
    chunks = blobs.open_blob(blob)
    next(chunks)
    with blobs.path(blob.digest).open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"evil")
    with pytest.raises(ImageError, match="bytes that are not"):
        list(chunks)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "../x", "sha256:", "sha512:00"])
def test_a_digest_is_never_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ImageError, match="no SHA-256 digest"):
        list(BlobDirectory(tmp_path).open_blob(Descriptor("x", digest, 1)))


def test_a_symlink_among_our_blobs_is_not_linked_into_an_image(tmp_path: Path) -> None:
    ours, other = BlobDirectory(tmp_path / "ours"), BlobDirectory(tmp_path / "other")
    blob = ours.put_bytes(b"content", "x")
    outside = write(tmp_path / "outside", b"content")
    ours.path(blob.digest).unlink()
    ours.path(blob.digest).symlink_to(outside)
    other.put_blob(blob, ours)
    assert not other.path(blob.digest).is_symlink()


def test_a_destination_with_a_strange_index_is_left_alone(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    for number, index in enumerate([b"[]", b'{"annotations": 7}', b'{"annotations": ["kfp"]}']):
        write(tmp_path / f"out{number}/index.json", index)
        with pytest.raises(ImageError, match="did not write"):
            build_image(bento, f"oci:{tmp_path}/out{number}", base=base)
        assert (tmp_path / f"out{number}/index.json").read_bytes() == index


# --- chance

STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 1 << 70, 1.5, "", "\0", "sha256:", "../..", "linux/amd64"),
    *([], {}, [None], {"": None}, [[]], {"digest": 7}, "x" * 5000, ["A=B"], {"a": {"b": []}}),
]


def mutated(document: Any, chance: random.Random) -> Any:
    """The document with one to three places removed, doubled or replaced."""
    changed = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            return chance.choice(STRANGE)
        holder, key = chance.choice(places)
        action = chance.randrange(4)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif action == 2 and isinstance(holder, dict):
            holder[str(key).swapcase()] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(chance.choice(STRANGE))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            yield value, key
            yield from _places(value[key])


def garbled(content: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, cut off or repeated."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) or 1)
        action = chance.randrange(3)
        if action == 0:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif action == 1:
            del data[place : place + chance.randint(1, 20)]
        else:
            data[place:place] = data[place : place + chance.randint(1, 50)]
    return bytes(data)


def composed(base: str, workspace: Path) -> None:
    """A base that is taken must give a configuration that is valid again."""
    found = opened(base, workspace)
    content = image_config(
        found.config,
        found.layers,
        parse_platform(),
        environment={},
        labels={},
        interpreter=found.interpreter,
        epoch=0,
    )
    parsed = parse_json(content)
    assert parsed["config"]["User"] == "1034:1034"
    assert len({name.casefold() for name in parsed["config"]}) == len(parsed["config"])


def outcome(action: Callable[[], Any]) -> str:
    try:
        action()
    except KfpBentoError as error:
        assert error.message
        return "refused"
    return "taken"


@pytest.mark.parametrize("part", ["config", "manifest", "index"])
@pytest.mark.parametrize("how", ["mutated", "garbled"])
def test_a_base_changed_by_chance_is_taken_or_refused(tmp_path: Path, part: str, how: str) -> None:
    chance = random.Random(f"{part} {how}")
    outcomes = []
    for _ in range(MUTATIONS):
        base = Base()
        base.write(tmp_path / "base")  # completes its documents
        document = getattr(base, part)
        changed = (
            mutated(document, chance)
            if how == "mutated"
            else garbled(json.dumps(document).encode(), chance)
        )
        if part == "config":
            del base.manifest["config"]
        if part in {"config", "manifest"}:
            del base.index["manifests"]
        setattr(base, part, changed)
        name = base.write(tmp_path / "base")
        outcomes.append(outcome(partial(composed, name, tmp_path / "work")))
        shutil.rmtree(tmp_path / "base")
    assert "refused" in outcomes


def test_a_layout_index_changed_by_chance_is_taken_or_refused(tmp_path: Path) -> None:
    chance = random.Random(1)
    write_base(tmp_path / "base")
    index = tmp_path / "base/index.json"
    good = index.read_bytes()
    outcomes = []
    for number in range(MUTATIONS):
        document = mutated(json.loads(good), chance)
        changed = garbled(good, chance) if number % 2 else json.dumps(document).encode()
        index.write_bytes(changed)
        tag = "v1" if number % 3 else ""
        outcomes.append(outcome(partial(LayoutSource(tmp_path / "base").find, tag)))
    assert {"refused", "taken"} == set(outcomes)


def test_a_credentials_file_changed_by_chance_is_taken_or_refused_without_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(2)
    packed_login = base64.b64encode(b"user:hunter2").decode()
    good = {"auths": {"registry.example": {"auth": packed_login, "email": "x"}}, "credsStore": "x"}
    file = tmp_path / "config.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    outcomes = []
    for number in range(MUTATIONS):
        content = json.dumps(good if number % 2 else mutated(good, chance)).encode()
        file.write_bytes(garbled(content, chance) if number % 2 else content)
        try:
            find_credentials("registry.example", "team/x")
            outcomes.append("taken")
        except KfpBentoError as error:
            assert "hunter2" not in str(error) and packed_login not in str(error)
            outcomes.append("refused")
    assert {"refused", "taken"} == set(outcomes)


def test_a_bento_yaml_changed_by_chance_is_taken_or_refused(bento: Bento) -> None:
    chance = random.Random(3)
    file = bento.directory / "bento.yaml"
    good = file.read_bytes()
    outcomes = []
    for _ in range(60):  # the YAML parser is slow
        file.write_bytes(garbled(good, chance))
        outcomes.append(outcome(partial(qualify, bento.directory)))
        outcomes.append(outcome(partial(load_bento, bento.directory)))
    assert {"refused", "taken"} == set(outcomes)
