"""Layers before they are made: what each of them follows from, and how to make it."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.cache.local import LayerBuilder
from kfp_bento.runtime.images.debian import RootFilesystem, SystemPackages, package_entries
from kfp_bento.runtime.images.oci.config import (
    BENTO_PATH,
    BENTOML_DIRECTORIES,
    HOME,
    USER_ID,
)
from kfp_bento.runtime.images.oci.image import Layer
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.oci.layers import Codec, LayerStream, codec_named
from kfp_bento.runtime.images.oci.tar import (
    TarEntry,
    directory_entry,
    file_chunks,
    tar_size,
    walk_tree,
)
from kfp_bento.runtime.images.python.bytecode import Compilers
from kfp_bento.runtime.images.python.groups import DependencyGroup

# Says where a bento came from (run ids, addresses), which is not part of what it is.
RECORD_NAME = ".kfp-bento.json"

# Files of a model from this size on are spread over layers that are sent and pulled side by side.
LARGE_FILE = 64 << 20
_PARALLEL_PARTS = 4
_ENTRYPOINT = "env/docker/entrypoint.sh"

Listing = Callable[[], Iterable[TarEntry]]


@dataclass(frozen=True)
class Recipe:
    """A layer that may have to be made.

    Attributes:
        kind: `system`, `dependencies`, `model` or `source`.
        title: What it holds, for people.
        inputs: JSON values that the layer's bytes follow from, and nothing else.
        codec: How it is compressed.
        epoch: Seconds since 1970 for every timestamp.
        size: Bytes of the tar, or of the wheels or packages that it is made of.
        prepare: Given an empty scratch directory, makes the files ready and gives a function that
            lists the members, which may be called more than once.
        claimed: The inputs name content that nobody has read yet: whoever takes a finished layer
            for this recipe must first see that the bytes are still the same.
        measured: Whether the size is that of the tar.
        costly: It takes long to make, so that a local cache should keep it.
        parts: SHA-256 in hexadecimal of the wheels or packages inside.
        facts: What else is known of these, by their SHA-256, to be remembered with the layer.
    """

    kind: str
    title: str
    inputs: Mapping[str, Any]
    codec: Codec
    epoch: int
    size: int
    prepare: Callable[[Path], AbstractContextManager[Listing]]
    claimed: bool = False
    measured: bool = False
    costly: bool = False
    parts: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of the inputs in hexadecimal digits."""
        return key_of(
            {
                "kind": self.kind,
                "codec": self.codec.identity,
                "epoch": self.epoch,
                **self.inputs,
            }
        )

    def knowing(self, facts: Mapping[str, Any]) -> Recipe:
        """Give the recipe with what is known of its own wheels or packages."""
        return replace(self, facts={part: facts[part] for part in self.parts if part in facts})

    @property
    def installed(self) -> bool:
        """Whether it is a layer of the environment, of which an image has many."""
        return self.kind == "dependencies"

    @property
    def exact(self) -> bool:
        """Whether `size` is what the layer will have."""
        return self.measured and self.codec.name == "none"

    def stream(self, listing: Listing, stop: threading.Event) -> LayerStream:
        """Give the layer, to be made while it is read, until `stop` is set."""
        return LayerStream(listing, self.codec, epoch=self.epoch, summing=self.claimed, stop=stop)

    def fits(self, layer: Layer) -> bool:
        """Whether a recorded layer can be one of this recipe, as far as that is known before."""
        if layer.kind != self.kind or layer.media_type != self.codec.media_type:
            return False
        return self.codec.name != "none" or layer.digest == layer.diff_id


def model_recipes(bento: Path, epoch: int, *, tag: str = "") -> Iterator[Recipe]:
    """One layer for each model, uncompressed; several where it has large files.

    Args:
        bento: The bento's directory, with `models/<name>/<version>` inside.
        epoch: Seconds since 1970 for every timestamp.
        tag: The tag of one model, for its layers alone; by default those of all.
    """
    for model in model_folders(bento):
        name = f"{model.parent.name}:{model.name}"
        if tag not in ("", name):
            continue
        parts = _spread(list(_model_entries(bento, model)))
        for number, entries in enumerate(parts, start=1):
            part = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
            yield Recipe(
                kind="model",
                title=f"model {name}{part}",
                inputs={"entries": [_claim(entry) for entry in entries]},
                codec=codec_named("none"),
                epoch=epoch,
                size=tar_size(entries, epoch),
                prepare=_at_hand(entries),
                measured=True,
                claimed=True,  # the bytes are read once, while they are sent
            )


def source_recipe(bento: Path, name: str, builder: LayerBuilder) -> Recipe:
    """Give the last layer: the bento without its models, and BentoML's directories."""
    entries = list(_source_entries(bento))
    return Recipe(
        kind="source",
        title=f"source of {name}",
        inputs={"entries": [[*_claim(entry), _content_digest(entry)] for entry in entries]},
        codec=builder.codec,
        epoch=builder.epoch,
        size=tar_size(entries, builder.epoch),
        prepare=_at_hand(entries),
        measured=True,
    )


def _at_hand(entries: list[TarEntry]) -> Callable[[Path], AbstractContextManager[Listing]]:
    return lambda scratch: nullcontext(lambda: entries)


def model_folders(bento: Path) -> list[Path]:
    """Give the models inside a bento."""
    return sorted(
        path
        for path in (bento / "models").glob("*/*")
        if path.is_dir() and not path.is_symlink() and not path.parent.is_symlink()
    )


def _model_entries(bento: Path, model: Path) -> Iterator[TarEntry]:
    """Give the members of one model's layer, below `/home/bentoml/bento/models`."""
    place = BENTO_PATH.lstrip("/")
    inside = model.relative_to(bento)
    yield from _homes()
    yield directory_entry(f"{place}/models", USER_ID)
    yield directory_entry(f"{place}/models/{inside.parts[1]}", USER_ID)
    yield from walk_tree(
        model, f"{place}/{inside.as_posix()}", owner=USER_ID, boundary=bento, skip=_is_noise
    )


def _source_entries(bento: Path) -> Iterator[TarEntry]:
    elsewhere = {model.relative_to(bento).as_posix() for model in model_folders(bento)}
    place = BENTO_PATH.lstrip("/")
    yield from list(_homes())[:1]
    for name in BENTOML_DIRECTORIES:
        yield directory_entry(f"{HOME.lstrip('/')}/{name}", USER_ID)
    for entry in walk_tree(
        bento, place, owner=USER_ID, skip=lambda path: path in elsewhere or _is_noise(path)
    ):
        if entry.path == f"{place}/{_ENTRYPOINT}":
            # BentoML leaves this to a `chmod +x` in its Dockerfile.
            yield replace(entry, mode=0o755)
        else:
            yield entry


def _spread(entries: list[TarEntry]) -> list[list[TarEntry]]:
    """Distribute large files evenly over parts; the first part holds everything else."""
    large = sorted(
        (entry for entry in entries if entry.kind == "file" and entry.size >= LARGE_FILE),
        key=lambda entry: (-entry.size, entry.path),
    )
    if len(large) < 2:
        return [entries]
    parts: list[list[TarEntry]] = [[] for _ in range(min(len(large), _PARALLEL_PARTS))]
    for entry in large:
        min(parts, key=lambda part: sum(item.size for item in part)).append(entry)
    moved = set(map(id, large))
    folders = {entry.path: entry for entry in entries if entry.kind == "directory"}
    rest = [entry for entry in entries if id(entry) not in moved]
    return [rest, *([*_parents(part, folders), *part] for part in parts)]


def _parents(part: list[TarEntry], folders: Mapping[str, TarEntry]) -> list[TarEntry]:
    """Give the directories above the entries, as the first part has them too."""
    needed = {str(parent) for entry in part for parent in PurePosixPath(entry.path).parents}
    return [folder for path, folder in sorted(folders.items()) if path in needed]


def _homes() -> Iterator[TarEntry]:
    yield directory_entry(HOME.lstrip("/"), USER_ID)
    yield directory_entry(BENTO_PATH.lstrip("/"), USER_ID)


def _is_noise(path: str) -> bool:
    return path == RECORD_NAME or path.rpartition("/")[2] == "__pycache__"


def _claim(entry: TarEntry) -> list[Any]:
    """Give what a layer's bytes follow from, apart from the content of files."""
    path = entry.path.encode("utf-8", "surrogateescape").hex() if not entry.path.isascii() else ""
    return [path or entry.path, entry.kind, entry.mode, entry.owner, entry.size, entry.target]


def _content_digest(entry: TarEntry) -> str:
    if entry.kind != "file":
        return ""
    digest = hashlib.sha256(entry.content or b"")
    if entry.file is not None:
        for piece in file_chunks(entry):
            digest.update(piece)
    return digest.hexdigest()


def dependency_recipe(
    group: DependencyGroup, builder: LayerBuilder, compilers: Compilers
) -> Recipe:
    """Give one layer of the environment."""
    return Recipe(
        kind="dependencies",
        title=group.title,
        inputs=group.inputs,
        codec=builder.codec,
        epoch=builder.epoch,
        size=group.download_size or tar_size(group.own_files, builder.epoch),
        prepare=lambda scratch: group.prepared(
            scratch, compilers, builder.tell, spare=builder.spare
        ),
        measured=not group.wheels,
        costly=True,
        parts=tuple(wheel.sha256 for wheel in group.wheels),
    )


def system_recipe(
    chosen: SystemPackages, facts: RootFilesystem, base: BaseImage, builder: LayerBuilder
) -> Recipe:
    """Give the layer of Debian packages on top of the base.

    Args:
        chosen: Which packages.
        facts: What the base holds: where files may go depends on it.
        base: The base.
        builder: Makes the layer.
    """

    def prepare(scratch: Path) -> AbstractContextManager[Listing]:
        entries = package_entries(chosen, facts, scratch, builder.tell)
        return nullcontext(lambda: entries)

    return Recipe(
        kind="system",
        title=f"system packages ({len(chosen.packages)} for {chosen.release})",
        inputs={
            **chosen.inputs(),
            "base": base.digest or [layer.diff_id for layer in base.layers],
        },
        codec=builder.codec,
        epoch=builder.epoch,
        size=sum(package.size for package in chosen.packages),
        prepare=prepare,
        costly=True,
        parts=tuple(package.sha256 for package in chosen.packages),
    )
