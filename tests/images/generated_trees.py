"""File trees with everything in them that a file system may hold, made from a seed."""

# Names are bytes here, some of them no text at all, which Path cannot join.
# ruff: noqa: PTH101, PTH102, PTH103, PTH115, PTH118, PTH120, PTH123, PTH211

from __future__ import annotations

import os
import random
import stat
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """What is at one path: a directory, a file with its content, or a symlink with its target."""

    kind: str
    content: bytes = b""
    executable: bool = False

    @property
    def mode(self) -> int:
        if self.kind == "symlink":
            return 0o777
        return 0o755 if self.kind == "directory" or self.executable else 0o644


Tree = dict[bytes, Node]
DIRECTORY = Node("directory")
ODD_NAMES = [
    *(b" ", b" x ", b"a b", b"-rf", b"~", b"*", b"%41", b"$HOME", b"...", b".hidden", b"a\\b"),
    *(b"'", b'"', b"new\nline", b"\n", b"tab\t", b"\r\n", b"\x7f", b"\x01", b"a=b", b"7 path=x"),
    *(b"#", b":", b"C:", b"@", b"wh.", b"x.wh.y", b"core~", b"{}", b"`id`", b"PaxHeaders.0"),
]
TEXTS = ["ünï", "e\u0301", "\u00e9", "日本語", "🍷", "\u202eabc", "ﬁ", "Å", "ß" * 60, "한" * 80]
NO_TEXTS = [b"\xff", b"\xe9t\xe9", b"\xc3", b"ok\xed\xa0\x80", b"\x80" * 120, b"\xf0\x9f"]
SIZES = [*(0, 1, 511, 512, 513, 1023, 1024, 1025), *(9727, 9728, 9729, 10239, 10240, 10241)]
SIZES += [20480, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]


def make_name(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(ODD_NAMES)
    if kind == 1:
        return rng.choice(TEXTS).encode()
    if kind == 2:
        return rng.choice(NO_TEXTS)
    if kind == 3:
        return bytes(rng.choices(b"abcxyz-_.", k=rng.choice([99, 100, 101, 155, 156, 255])))
    return bytes(rng.choices(b"abcdef", k=rng.randint(1, 3)))


def make_tree(rng: random.Random, below: Tree) -> Tree:
    """A tree; some of its paths are those of what lies below, to override it."""
    tree: Tree = {}
    for path in rng.sample(sorted(below), min(len(below), 8)):
        put(tree, path, make_node(rng, tree, path))
    for _ in range(rng.randint(15, 40)):
        folders = [b"", *(path for path, node in tree.items() if node.kind == "directory")]
        folder = rng.choice(folders)
        for _ in range(rng.choice([0, 0, 1, 3])):
            folder = folder + b"/" + make_name(rng) if folder else make_name(rng)
        path = folder + b"/" + make_name(rng) if folder else make_name(rng)
        if len(path) < 1500:
            put(tree, path, make_node(rng, tree, path))
    deep = b"/".join(b"d%d" % level for level in range(60))
    put(tree, deep, DIRECTORY)
    return tree


def make_node(rng: random.Random, tree: Tree, path: bytes) -> Node:
    kind = rng.choice(["directory", "file", "file", "file", "symlink", "symlink"])
    if kind == "file":
        return Node("file", rng.randbytes(rng.choice(SIZES)), executable=rng.random() < 0.3)
    if kind == "symlink":
        # To what is there (also other symlinks), to what is not, and to itself.
        target = rng.choice([*sorted(tree), b"nowhere", b"no/where", path])
        return Node("symlink", os.path.relpath(target, os.path.dirname(path) or b"."))
    return DIRECTORY


def put(tree: Tree, path: bytes, node: Node) -> None:
    """Adds a node unless something else is in the way, with the directories above it."""
    parts = path.split(b"/")
    above = [b"/".join(parts[:depth]) for depth in range(1, len(parts))]
    if path in tree or any(tree.get(folder, DIRECTORY) != DIRECTORY for folder in above):
        return
    tree.update(dict.fromkeys(above, DIRECTORY))
    tree[path] = node


def write_tree(tree: Tree, root: bytes) -> None:
    os.makedirs(root)
    for path in sorted(tree):
        node, place = tree[path], root + b"/" + path
        if node.kind == "directory":
            os.mkdir(place)
        elif node.kind == "symlink":
            os.symlink(node.content, place)
        else:
            with open(place, "wb") as file:
                file.write(node.content)
            os.chmod(place, 0o700 if node.executable else 0o600)


def laid_over(below: Tree, above: Tree) -> Tree:
    """What a container sees: directories are united, everything else replaces what was there."""
    seen = dict(below)
    for path in sorted(above):
        if above[path] != DIRECTORY or seen.get(path) != DIRECTORY:
            for hidden in [x for x in seen if x == path or x.startswith(path + b"/")]:
                del seen[hidden]
        seen[path] = above[path]
    return seen


def found_tree(root: bytes) -> Tree:
    tree: Tree = {}
    for folder, names, files in os.walk(root):
        for name in [*names, *files]:
            place = os.path.join(folder, name)
            status = os.lstat(place)
            path = os.path.relpath(place, root)
            if stat.S_ISDIR(status.st_mode):
                tree[path] = DIRECTORY
            elif stat.S_ISLNK(status.st_mode):
                tree[path] = Node("symlink", os.readlink(place))
            else:
                assert stat.S_ISREG(status.st_mode)
                with open(place, "rb") as file:
                    executable = bool(status.st_mode & stat.S_IXUSR)
                    tree[path] = Node("file", file.read(), executable)
            if tree[path].kind != "symlink":
                assert stat.S_IMODE(status.st_mode) == tree[path].mode, path
    return tree
