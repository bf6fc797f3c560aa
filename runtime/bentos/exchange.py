"""Bentos handed on as archives, and taken in from anybody."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos.archive_formats import DIRECTORY, target_of
from kfp_bento.runtime.bentos.archive_reading import unpack
from kfp_bento.runtime.bentos.archive_writing import write_archive
from kfp_bento.runtime.bentos.bento import Bento, load_bento
from kfp_bento.runtime.bentos.bento_file import BENTO_FILE, read_bento_file
from kfp_bento.runtime.bentos.bentoml_store import store_home, stored_bento
from kfp_bento.runtime.bentos.foreign_lock import Relocking, is_locked, lock_foreign
from kfp_bento.runtime.bentos.stored_bento import DIGEST, TAG, recorded_digest, recorded_facts
from kfp_bento.runtime.bentos.tree import check_destination
from kfp_bento.runtime.bentos.wishes import INDEX, settle_wishes
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    put_in_place,
    read_small_file,
    reading,
    scratch_beside,
    scratch_inside,
)
from kfp_bento.runtime.models import RECORD_NAME, model_files
from kfp_bento.runtime.storage import local_path, open_place

Progress = Callable[[int, int], None]

_OLD_FILE = "bentoml.yml"


@dataclass(frozen=True)
class ExportedBento:
    """Where a bento went.

    Attributes:
        tag: The bento's tag.
        digest: The bento's digest, over its files.
        uri: The archive's address.
        format: One of `FORMATS`.
        sha256: SHA-256 of the archive in hexadecimal; "" for a directory.
        size: Bytes of the archive; of all files for a directory.
    """

    tag: str
    digest: str
    uri: str
    format: str
    sha256: str
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Give the value as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class ImportOptions:
    """What happens to a bento on its way in.

    Attributes:
        lock: Whether a bento whose requirements are not locked with hashes is locked, and one
            that wants what no image made of files has is refused; without, it stays as it is.
        without: Wishes that are left out: of `WISHES`.
        requirements: Requirements that stand in place of the bento's own for the same packages,
            or besides them.
        allow_sources: Beginnings of addresses that the bento's own requirements may name.
    """

    lock: bool = True
    without: Sequence[str] = ()
    requirements: Sequence[str] = ()
    allow_sources: Sequence[str] = ()


_USUAL = ImportOptions()


def export_bento(
    bento: Bento, uri: str, archive_format: str = "", *, progress: Progress | None = None
) -> ExportedBento:
    """Put a bento, models included, into one archive at an address.

    The archive is there only once it is whole. The same bento gives the same archive.

    Args:
        bento: What `load_bento` gave.
        uri: Where it goes, as `open_place` takes it; with a slash at its end a folder.
        archive_format: One of `FORMATS`; "" for what the name says, else `bento`.
        progress: Told the bytes sent and the bytes in all.

    Raises:
        BentoError: The bento lacks a model, or changes meanwhile.
        InvalidInput: The address or the format makes no sense.
        StorageError: The archive cannot be written there.
    """
    _require_models(bento.directory)
    name = f"{bento.name}-{bento.version}"
    address, chosen = target_of(uri, archive_format, name)
    files = model_files(bento.directory, leave_out=frozenset())
    if chosen == DIRECTORY:
        return _export_directory(bento, files, address)
    place = open_place(address)
    facts = recorded_facts(bento)
    made = scratch_inside(_room(address), "kfp-bento-export-")
    with _disk("The archive cannot be made"), made as scratch:
        write_archive(files, scratch / "archive", chosen)
        stored = place.write(scratch / "archive", facts=facts, progress=progress)
    return ExportedBento(bento.tag, bento.digest, place.address, chosen, stored.sha256, stored.size)


def require_exported(uri: str, tag: str, digest: str = "") -> None:
    """Make sure that the archive at an address is that of a bento, as far as its metadata tells.

    Archives of others have no such metadata, and pass.

    Args:
        uri: The archive's address.
        tag: `name:version` of the bento.
        digest: The bento's digest; "" where it is not known.

    Raises:
        BentoError: It was exported from another bento.
        StorageError: It is not there, or may not be read.
    """
    place = open_place(uri)
    facts = place.stat().facts
    for wanted, said in ((tag, facts.get(TAG, "")), (digest, facts.get(DIGEST, ""))):
        if wanted and said and said != wanted:
            raise BentoError(
                f"The archive {place.address} is of {said}, not of {wanted}.",
                hint="Export the bento that is to be served, or name its own archive.",
            )


def import_bento(
    uri: str,
    to: Path,
    options: ImportOptions = _USUAL,
    *,
    sha256: str = "",
    progress: Progress | None = None,
) -> Bento:
    """Take a bento in: one that was exported here, or by `bentoml export`, or a directory.

    The directory is there only once it is whole. Nothing of the bento is run. One that is locked
    with hashes stays as it is, byte for byte; any other keeps its tag and gets a lock.

    Args:
        uri: Where it is: `name:version` of the BentoML store, or as `open_place` takes it.
        to: The directory that receives it; a bento that is there already is replaced.
        options: What happens to it.
        sha256: What the archive's SHA-256 has to be; by default what was recorded with it.
        progress: Told the bytes read and the bytes in all.

    Returns:
        The bento; its note says what was changed.

    Raises:
        BentoError: It is no bento, is not the one that was recorded, lacks a model, cannot be
            locked, wants what no image has, or the archive holds what no bento needs.
        InvalidInput: The address or an option makes no sense, or something else is at the
            destination.
        StorageError: It cannot be read, or is not what was recorded.
    """
    check_destination(to)
    source = stored_bento(uri) or local_path(uri)
    if source is not None and source.is_dir():
        return _from_directory(source, to, options)
    fetched = to.with_name(f"{to.name}.fetched")
    try:
        place = open_place(uri)
        found = place.read(fetched, sha256=sha256, progress=progress)
        with _disk("The archive cannot be unpacked"), scratch_beside(to) as scratch:
            tree = scratch / "tree"
            tree.mkdir()
            unpack(fetched, tree)
            bento = _settled(_top(tree), found.facts, home=None)
            return _placed(_ready(bento, options, scratch / "lock"), to)
    finally:
        fetched.unlink(missing_ok=True)


def _from_directory(source: Path, to: Path, options: ImportOptions) -> Bento:
    files = model_files(source, leave_out=frozenset())
    with _disk("The bento cannot be copied"), scratch_beside(to) as scratch:
        _copy(files, scratch / "tree")
        # `<home>/bentos/<name>/<version>` has its models in `<home>/models`.
        home = (source.resolve() / "../../..").resolve()
        bento = _settled(_top(scratch / "tree"), {}, home=home)
        return _placed(_ready(bento, options, scratch / "lock"), to)


def _export_directory(bento: Bento, files: Mapping[str, Path], address: str) -> ExportedBento:
    to = local_path(address)
    if to is None:
        raise InvalidInput(
            "A directory can be exported to this machine only: in a bucket it would be there in "
            "parts while it is written.",
            hint="Choose another format, such as bento or tar.gz.",
        )
    check_destination(to)
    with _disk("The bento cannot be copied"), scratch_beside(to) as scratch:
        _copy(files, scratch / "tree")
        put_in_place(scratch / "tree", to)
    size = sum(file.stat().st_size for file in files.values())
    return ExportedBento(bento.tag, bento.digest, str(to), DIRECTORY, "", size)


def _settled(directory: Path, facts: Mapping[str, str], *, home: Path | None) -> Bento:
    """Bring missing models in, and make sure that it is the bento that was recorded."""
    _bring_models(directory, home)
    bento = load_bento(directory)
    for said in (facts.get(DIGEST, ""), _recorded_digest(directory, bento)):
        if said and said != bento.digest:
            raise BentoError(
                f"The bento {bento.tag} has the digest {bento.digest}, but {said} was recorded.",
                hint="It was changed or damaged: export it again.",
            )
    return bento


def _ready(bento: Bento, options: ImportOptions, work: Path) -> Bento:
    """Make a bento one that images can be built of, unless it is to stay as it is."""
    if not options.lock:
        if options.without or options.requirements or options.allow_sources:
            raise InvalidInput(
                "A bento that stays as it is cannot be changed at the same time.",
                hint="Leave lock on, or leave the other options out.",
            )
        return bento
    directory = bento.directory.absolute()
    told = settle_wishes(directory, options.without)
    if options.requirements or not is_locked(directory):
        work.mkdir()
        indexes = INDEX not in options.without
        wanted = Relocking(options.requirements, options.allow_sources, indexes)
        told += lock_foreign(directory, read_bento_file(directory), wanted, work.absolute())
    if not told:
        return bento
    changed = load_bento(bento.directory)
    return replace(changed, note="\n".join(filter(None, [changed.note, *told])))


def _placed(bento: Bento, to: Path) -> Bento:
    put_in_place(bento.directory, to)
    return replace(bento, directory=to)


def _recorded_digest(directory: Path, bento: Bento) -> str:
    """Give the digest that the record beside bento.yaml states of this very bento, or ""."""
    try:
        return recorded_digest(read_small_file(directory / RECORD_NAME, JSON_LIMIT), bento.tag)
    except (OSError, ValueError):
        return ""


def _top(tree: Path) -> Path:
    """Give the folder with the bento: the top, or the only folder there."""
    if (tree / BENTO_FILE).is_file():
        return tree
    inside = list(tree.iterdir())
    if len(inside) == 1 and (inside[0] / BENTO_FILE).is_file():
        return inside[0]
    if any((folder / _OLD_FILE).is_file() for folder in (tree, *inside)):
        raise BentoError(
            "This is a bundle of BentoML 0.x, which has another layout than a bento.",
            hint="Save its model with MLflow and build a bento of it (kfp-bento bento build), or "
            "write its service anew: docs/bentos.md shows old and new side by side.",
        )
    raise BentoError(
        f"There is no {BENTO_FILE} in it, so this is no bento.",
        hint="Give what `bentoml export` or `kfp-bento bento export` wrote.",
    )


def _require_models(directory: Path) -> None:
    missing = _missing_models(directory)
    if missing:
        raise BentoError(
            f"The bento needs the model {missing[0]}, which is not in it.",
            hint="Take it in with `kfp-bento bento import` first, on the machine whose BentoML "
            "store has the model.",
        )


def _missing_models(directory: Path) -> list[str]:
    """Give the tags of models that BentoML would look up in its own store."""
    models = read_bento_file(directory).models
    return [
        model.tag
        for model in models
        if model.registry == "bentoml" and not (directory / _folder(model.tag)).is_dir()
    ]


def _folder(tag: str) -> Path:
    name, _, version = tag.partition(":")
    parts = (name, version)
    if any(part in ("", ".", "..") or "/" in part for part in parts):
        raise BentoError(
            f"The bento names a model {tag!a}, which is no name:version.",
            hint="Build the bento again.",
        )
    return Path("models", *parts)


def _bring_models(directory: Path, home: Path | None) -> None:
    """Copy models that the bento only names out of the BentoML store of this machine."""
    own = store_home()
    for tag in _missing_models(directory):
        folder = _folder(tag)
        stores = [store for store in (home, own) if store and (store / folder).is_dir()]
        if not stores:
            raise BentoError(
                f"The bento needs the model {tag}, which is neither in it nor in the BentoML "
                f"store {own}.",
                hint="Export it where it was built with `bentoml export`, which puts models in.",
            )
        _copy(model_files(stores[0] / folder, leave_out=frozenset()), directory / folder)
        (directory / folder.parent / "latest").write_text(folder.name)


def _copy(files: Mapping[str, Path], into: Path) -> None:
    """Copy files, and of their modes whether they can be run."""
    into.mkdir(parents=True)
    for relative, file in files.items():
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if os.access(file, os.X_OK):
            mode = target.stat().st_mode
            target.chmod(mode | (mode & 0o444) >> 2)


def _disk(problem: str) -> AbstractContextManager[None]:
    return reading(problem, BentoError, hint="Check the directory, its permissions and free space.")


def _room(address: str) -> Path:
    """Give the folder in which an archive is made: beside where it goes, if that is a file."""
    target = local_path(address)
    if target is None:
        return Path(tempfile.gettempdir())
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent
