"""From model URIs to a directory on this machine, a folder for each model."""

from __future__ import annotations

import dataclasses
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.concurrency import run_all
from kfp_bento.runtime.errors import InvalidInput, ModelError, plain_text
from kfp_bento.runtime.files import copied_sha256, link_or_copy
from kfp_bento.runtime.models.directory import (
    describe_model,
    load_model,
    load_record,
    require_mlmodel,
    require_usable_key,
    was_pulled,
    with_origin,
    write_record,
)
from kfp_bento.runtime.models.download import WORKERS, download_files
from kfp_bento.runtime.models.identity import FileDigest, file_digests, model_files
from kfp_bento.runtime.models.location import reading_from
from kfp_bento.runtime.models.mlmodel import MLMODEL_NAME, read_mlmodel_of
from kfp_bento.runtime.models.partial import disk_failures_explained, whole_directory
from kfp_bento.runtime.models.resolution import Resolution
from kfp_bento.runtime.models.resolved import require_resolved
from kfp_bento.runtime.models.source_files import SourceFiles, files_of
from kfp_bento.runtime.models.sources import ModelSource, read_entries, resolve_sources
from kfp_bento.runtime.models.tracking import (
    choose_tracking,
    speaking_to,
)
from kfp_bento.runtime.models.uri import without_password
from kfp_bento.runtime.models.version import ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TOGETHER = 4
"""Models that are downloaded at a time; the files of all together are at most `WORKERS`."""


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def pull_models(
    entries: Sequence[str],
    directory: Path,
    *,
    tracking_uri: str = "",
    identities: Sequence[str] = (),
    progress: Callable[[int, int], None] = _silent,
) -> list[ModelVersion]:
    """Resolve model URIs once and put exactly these models into a directory, a folder for each.

    All are resolved before anything is downloaded. The directory appears only when every file of
    every model is there, was counted and hashed. A model that it held before, with the digest of
    its record and the sizes the store lists, is taken over instead of downloaded and says
    `reused=True`; files that were replaced in the store by others of the same size are not noticed
    then. A record that was not written here says nothing: then all is downloaded again.

    Args:
        entries: URIs (see `parse_model_uri`), each also as NAME=URI. The name is that of the model
            in a bento and of its folder; by default it is the registered one.
        directory: Where the models go. It may be missing, empty, or hold an earlier pull (which is
            replaced); anything else is left alone.
        tracking_uri: The tracking server; "" means the environment's.
        identities: What `resolve_models` said of these entries; others are refused.
        progress: Called with bytes done and bytes in total, by one thread at a time.

    Returns:
        The models in the order of the entries; the record of each lies in its folder as
        `.kfp-bento.json`.

    Raises:
        InvalidInput: An entry, the directory or the tracking settings cannot be used, or two
            entries are one model or would have one name.
        ModelError: A model cannot be found, downloaded or served.
    """
    return pull_into(
        directory, entries, lambda source: source.name, tracking_uri, progress, identities
    )


def pull_into(
    directory: Path,
    entries: Sequence[str],
    folder_of: Callable[[ModelSource], str],
    tracking_uri: str = "",
    progress: Callable[[int, int], None] = _silent,
    identities: Sequence[str] = (),
) -> list[ModelVersion]:
    """Pull models into folders of a directory; see `pull_models`."""
    asked = read_entries(entries)
    require_usable_key()
    _require_replaceable(directory)
    remote = [entry for entry in asked if entry.uri.kind != "directory"]
    needed = any(entry.needs_tracking for entry in remote)
    tracking = choose_tracking(tracking_uri) if needed else None
    speaking = (
        speaking_to(tracking or without_password(remote[0].uri.text)) if remote else nullcontext()
    )
    with speaking:
        sources = resolve_sources(asked, tracking)
        require_resolved(sources, identities)
        parcels = [_parcel(source, directory, folder_of(source)) for source in sources]
        return _filled(parcels, directory, progress)


@dataclass(frozen=True)
class _Parcel:
    """What is to be put into one folder.

    Attributes:
        source: The model.
        folder: Name of the folder, or "" for the directory itself.
        size: Bytes that will be written.
        earlier: The same model, where it is there already, byte for byte.
        files: What the store holds; None for a directory on this machine.
    """

    source: ModelSource
    folder: str
    size: int
    earlier: ModelVersion | None = None
    files: SourceFiles | None = None


class _Transfer:
    """What the downloads of all models have in common: workers, an end, and a count of bytes."""

    def __init__(
        self, directory: Path, parcels: Sequence[_Parcel], progress: Callable[[int, int], None]
    ) -> None:
        self.directory, self.total = directory, sum(parcel.size for parcel in parcels)
        self.at_once = min(_TOGETHER, len(parcels))
        self.workers = WORKERS // self.at_once
        self.stop = threading.Event()
        self._lock, self._arrived = threading.Lock(), 0
        self._progress = progress

    def arrived(self, size: int) -> None:
        """Count bytes of a file that is there."""
        with self._lock:
            self._arrived += size
            self._progress(self._arrived, self.total)

    def writing(self) -> AbstractContextManager[None]:
        """Tell failures of the disk from those of the store that is read."""
        return disk_failures_explained(self.directory, self.total)


def _parcel(source: ModelSource, directory: Path, folder: str) -> _Parcel:
    existing = _earlier_pull(directory / folder)
    if source.resolution is None:
        return _parcel_of_directory(source, directory, folder, existing)
    files = files_of(source.resolution, source.tracking)
    earlier = existing and _same_version(existing, source.resolution, files.sizes)
    return _Parcel(source, folder, 0 if earlier else files.size, earlier, files)


def _parcel_of_directory(
    source: ModelSource, directory: Path, folder: str, existing: ModelVersion | None
) -> _Parcel:
    origin = Path(source.uri.path)
    if not origin.is_dir():
        raise InvalidInput(
            f"There is no directory {origin}.",
            hint="A registered model is written models:/NAME/VERSION or models:/NAME@ALIAS.",
        )
    if directory.resolve().is_relative_to(origin.resolve()):
        raise InvalidInput(
            f"{directory} lies inside the model it would copy.", hint="Choose another directory."
        )
    if existing is not None and (earlier := _same_model(existing, source)):
        return _Parcel(source, folder, 0, earlier)
    files = model_files(origin)
    require_mlmodel(files, str(origin))
    return _Parcel(source, folder, sum(file.stat().st_size for file in files.values()))


def _filled(
    parcels: Sequence[_Parcel], directory: Path, progress: Callable[[int, int], None]
) -> list[ModelVersion]:
    transfer = _Transfer(directory, parcels, progress)
    with whole_directory(directory, needed=transfer.total) as scratch:
        # The smallest files decide whether the others are worth their download.
        begun = [_begin(parcel, scratch / parcel.folder, transfer) for parcel in parcels]
        tasks = [
            partial(_finish, parcel, scratch / parcel.folder, transfer, files)
            for parcel, files in zip(parcels, begun, strict=True)
        ]
        models = run_all(tasks, transfer.at_once, stop=transfer.stop)
    return [
        dataclasses.replace(model, directory=directory / parcel.folder)
        for parcel, model in zip(parcels, models, strict=True)
    ]


def _begin(parcel: _Parcel, folder: Path, transfer: _Transfer) -> list[FileDigest]:
    """Mark a folder as unfinished, and look whether what will be downloaded is a model."""
    folder.mkdir(exist_ok=True)
    write_record(folder, None)
    if parcel.earlier or parcel.files is None:
        return []
    location = parcel.files.resolution.location
    with reading_from(location, parcel.source.tracking), transfer.writing():
        wanted = {MLMODEL_NAME: parcel.files.sizes[MLMODEL_NAME]}
        files = download_files(parcel.files.repository, wanted, folder, transfer.arrived)
        read_mlmodel_of(folder)
        return files


def _finish(
    parcel: _Parcel,
    folder: Path,
    transfer: _Transfer,
    files: Sequence[FileDigest],
) -> ModelVersion:
    """Bring the rest of a model's files, and say in its record what it is."""
    if parcel.earlier:
        model = _taken_over(parcel, parcel.earlier, folder)
    elif parcel.files is None:
        model = _copied(parcel, folder, transfer)
    else:
        model = _downloaded(parcel.source, parcel.files, folder, transfer, files)
    return dataclasses.replace(model, record=write_record(folder, model))


def _downloaded(
    source: ModelSource,
    found: SourceFiles,
    folder: Path,
    transfer: _Transfer,
    files: Sequence[FileDigest],
) -> ModelVersion:
    rest = {path: size for path, size in found.sizes.items() if path != MLMODEL_NAME}
    with reading_from(found.resolution.location, source.tracking), transfer.writing():
        arrived = download_files(
            found.repository,
            rest,
            folder,
            transfer.arrived,
            workers=transfer.workers,
            stop=transfer.stop,
        )
        described = describe_model(
            folder,
            [*files, *arrived],
            uri=without_password(source.uri.text),
            alias=source.uri.alias,
            resolution=found.resolution,
        )
    return dataclasses.replace(described, served_as=source.name)


def _copied(parcel: _Parcel, folder: Path, transfer: _Transfer) -> ModelVersion:
    origin = Path(parcel.source.uri.path)
    recorded = load_record(origin)
    files = model_files(origin)
    target = {file: folder / path for path, file in files.items()}
    digests = file_digests(files, lambda file: copied_sha256(file, target[file]))
    name = plain_text(origin.resolve().name)
    model = with_origin(describe_model(folder, digests, uri=name), recorded, origin)
    transfer.arrived(parcel.size)
    return dataclasses.replace(model, served_as=parcel.source.name)


def _taken_over(parcel: _Parcel, earlier: ModelVersion, folder: Path) -> ModelVersion:
    """Keep the files and note what was asked this time: aliases may have moved since."""
    for path, file in model_files(earlier.directory).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(file, folder / path)
    kept = dataclasses.replace(earlier, served_as=parcel.source.name, reused=True)
    if parcel.source.resolution is None:
        return kept
    return dataclasses.replace(
        kept,
        uri=without_password(parcel.source.uri.text),
        alias=parcel.source.uri.alias,
        aliases=dict(parcel.source.resolution.aliases),
    )


def _require_replaceable(directory: Path) -> None:
    """Refuse a directory that holds something of the user's.

    A record of another machine, or of a pull that did not finish, says that the directory may be
    replaced, and nothing else.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InvalidInput(f"{directory} is a file.", hint="Choose a directory.")
    inside = list(directory.iterdir())
    if not (was_pulled(directory) or all(map(was_pulled, inside))):
        raise InvalidInput(
            f"{directory} is not empty and was not written by kfp-bento.",
            hint="Choose an empty or a new directory.",
        )


def _earlier_pull(folder: Path) -> ModelVersion | None:
    """Give what was pulled here before, if we know it."""
    try:
        return load_record(folder)
    except ModelError:  # half-made
        return None


def _same_version(
    existing: ModelVersion, resolution: Resolution, sizes: Mapping[str, int | None]
) -> ModelVersion | None:
    """Give the model that is there, if it is the one that was asked for, byte for byte."""
    asked = (resolution.name, resolution.version, resolution.source)
    if (existing.name, existing.version, existing.source) != asked:
        return None
    try:
        found = load_model(existing.directory)
        files = model_files(existing.directory)
        local = {path: file.stat().st_size for path, file in files.items()}
    except (ModelError, OSError):
        return None
    listed = all(size in (None, local.get(path)) for path, size in sizes.items())
    return found if local.keys() == sizes.keys() and listed else None


def _same_model(existing: ModelVersion, source: ModelSource) -> ModelVersion | None:
    """Give the model that was copied before, if it is the one in the source."""
    origin = load_model(Path(source.uri.path))
    asked = dataclasses.replace(origin, directory=existing.directory, served_as=source.name)
    if asked != existing:
        return None
    try:
        return load_model(existing.directory)
    except ModelError:
        return None
