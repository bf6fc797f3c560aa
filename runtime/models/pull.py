"""From a model URI to a directory on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import InvalidInput, ModelError, plain_text
from kfp_bento.runtime.files import copied_sha256, record_digest
from kfp_bento.runtime.models.directory import (
    describe_model,
    load_model,
    load_record,
    record_text,
    require_mlmodel,
    require_usable_key,
    was_pulled,
    with_origin,
    write_record,
)
from kfp_bento.runtime.models.download import download_files
from kfp_bento.runtime.models.identity import file_digests, model_files
from kfp_bento.runtime.models.mlmodel import MLMODEL_NAME, read_mlmodel_of
from kfp_bento.runtime.models.partial import whole_directory, write_beside
from kfp_bento.runtime.models.source import ModelSource, opened_source
from kfp_bento.runtime.models.uri import ModelUri, parse_model_uri, without_password
from kfp_bento.runtime.models.version import RECORD_NAME, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kfp_bento.runtime.models.resolution import Resolution


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def pull_model(
    uri: str,
    directory: Path,
    *,
    tracking_uri: str = "",
    progress: Callable[[int, int], None] = _silent,
) -> ModelVersion:
    """Resolve a model URI once and put exactly that model into a directory.

    The directory appears only when every file is there, was counted and hashed. Where it holds
    the same version already, with the digest of its record and the sizes the store lists,
    nothing is downloaded and the answer says `reused=True`; files that were replaced in the
    store by others of the same size are not noticed then. A record that was not written here
    says nothing: then all is downloaded again.

    Args:
        uri: See `parse_model_uri`.
        directory: Where the model's files go, under their real names. It may be missing, empty,
            or hold an earlier pull (which is replaced); anything else is left alone.
        tracking_uri: The tracking server; "" means the environment's.
        progress: Called with bytes done and bytes in total, from this thread.

    Returns:
        The model; its record lies in the directory as `.kfp-bento.json`.

    Raises:
        InvalidInput: The URI, the directory or the tracking settings cannot be used.
        ModelError: The model cannot be found, downloaded or served.
    """
    parsed = parse_model_uri(uri)
    require_usable_key()
    existing = _earlier_pull(directory)
    if parsed.kind == "directory":
        return _copy_model(parsed, directory, existing, progress)
    with opened_source(parsed, tracking_uri) as source:
        resolution, sizes = source.resolution, source.sizes
        if existing is not None and (there := _same_version(existing, resolution, sizes)):
            return _reuse(there, parsed, resolution)
        return _download_model(parsed, source, directory, progress)


def _download_model(
    uri: ModelUri,
    source: ModelSource,
    directory: Path,
    progress: Callable[[int, int], None],
) -> ModelVersion:
    repository, sizes, total = source.repository, source.sizes, source.size
    arrived = 0

    def done(size: int) -> None:
        nonlocal arrived
        arrived += size
        progress(arrived, total)

    with whole_directory(directory, needed=total) as partial:
        write_record(partial, None)
        # The smallest file decides whether the others are worth their download.
        files = download_files(repository, {MLMODEL_NAME: sizes[MLMODEL_NAME]}, partial, done)
        read_mlmodel_of(partial)
        rest = {path: size for path, size in sizes.items() if path != MLMODEL_NAME}
        files += download_files(repository, rest, partial, done)
        model = describe_model(
            partial,
            files,
            uri=without_password(uri.text),
            alias=uri.alias,
            resolution=source.resolution,
        )
        record = write_record(partial, model)
    return dataclasses.replace(model, directory=directory, record=record)


def _copy_model(
    uri: ModelUri,
    directory: Path,
    existing: ModelVersion | None,
    progress: Callable[[int, int], None],
) -> ModelVersion:
    source = Path(uri.path)
    if not source.is_dir():
        raise InvalidInput(
            f"There is no directory {source}.",
            hint="A registered model is written models:/NAME/VERSION or models:/NAME@ALIAS.",
        )
    if directory.resolve().is_relative_to(source.resolve()):
        raise InvalidInput(
            f"{directory} lies inside the model it would copy.", hint="Choose another directory."
        )
    if existing is not None and (kept := _same_model(existing, source)):
        return kept
    recorded = load_record(source)
    files = model_files(source)
    require_mlmodel(files, str(source))
    size = sum(file.stat().st_size for file in files.values())
    with whole_directory(directory, needed=size) as partial:
        write_record(partial, None)
        target = {file: partial / path for path, file in files.items()}
        copied = file_digests(files, lambda file: copied_sha256(file, target[file]))
        name = plain_text(source.resolve().name)
        model = with_origin(describe_model(partial, copied, uri=name), recorded, source)
        record = write_record(partial, model)
    progress(size, size)
    return dataclasses.replace(model, directory=directory, record=record)


def _same_model(existing: ModelVersion, source: Path) -> ModelVersion | None:
    """Give the model that was copied before, if it is the one in the source."""
    origin = dataclasses.replace(load_model(source), directory=existing.directory)
    if origin != existing:
        return None
    try:
        found = load_model(existing.directory)
    except ModelError:
        return None
    return dataclasses.replace(found, reused=True)


def _earlier_pull(directory: Path) -> ModelVersion | None:
    """Give what was pulled here before, if we know it; refuse what holds something of the user's.

    A record of another machine, or of a pull that did not finish, says that the directory may be
    replaced, and nothing else.
    """
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise InvalidInput(f"{directory} is a file.", hint="Choose a directory.")
    if not any(directory.iterdir()):
        return None
    if not was_pulled(directory):
        raise InvalidInput(
            f"{directory} is not empty and was not written by kfp-bento.",
            hint="Choose an empty or a new directory.",
        )
    try:
        return load_record(directory)
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


def _reuse(existing: ModelVersion, uri: ModelUri, resolution: Resolution) -> ModelVersion:
    """Keep the files and note what was asked this time: aliases may have moved since."""
    model = dataclasses.replace(
        existing,
        uri=without_password(uri.text),
        alias=uri.alias,
        aliases=dict(resolution.aliases),
        reused=True,
    )
    if model == existing:
        return model
    text = record_text(model)
    write_beside(existing.directory, RECORD_NAME, text)
    return dataclasses.replace(model, record=record_digest(text))
