"""A model directory on this machine, and the facts that its files state."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import InvalidInput, ModelError, plain_text
from kfp_bento.runtime.files import (
    KEY_VARIABLE,
    open_record,
    own_key,
    parse_json,
    read_small_file,
    record_digest,
    sealed_record,
)
from kfp_bento.runtime.models.environment import stated_python, stated_requirements
from kfp_bento.runtime.models.identity import (
    FileDigest,
    content_set_digest,
    file_digests,
    model_files,
    set_digest,
)
from kfp_bento.runtime.models.mlmodel import (
    MLMODEL_NAME,
    mlmodel_text,
    read_mlmodel,
)
from kfp_bento.runtime.models.resolution import Resolution
from kfp_bento.runtime.models.version import RECORD_NAME, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_UNKNOWN = Resolution("")  # nobody asked a registry
_UNFINISHED = {"unfinished": True}
_PURPOSE = "model"
_RECORD_LIMIT = 64 << 20
_ORIGIN = (
    *("uri", "name", "version", "alias", "run_id", "model_id", "source", "aliases", "record"),
    "served_as",
)
"""What only a record can say; everything else is read from the files."""

_log = logging.getLogger(__name__)


def load_model(directory: Path, *, record: str = "") -> ModelVersion:
    """Read a model directory: one that was pulled, or any that MLflow wrote.

    Its files are hashed and read in every case. Where they came from is taken from the record
    beside them, but only from one of our own: sealed with this user's key or with the one in
    `KFP_BENTO_RECORD_KEY`, or the very one whose digest is given. A record of somebody else does
    not count, which is logged, and the model is what its files say, under the directory's name.

    Args:
        directory: A directory with an `MLmodel` file.
        record: `ModelVersion.record`, as the step said it that pulled the model.

    Raises:
        InvalidInput: There is no such directory, or the key is too short.
        ModelError: It is no MLflow model, has no `python_function` flavor, changed since it was
            pulled, or its record is not the one that was given.
    """
    files = file_digests(_files(directory))
    recorded = load_record(directory, record)
    return with_origin(describe_model(directory, files), recorded, directory)


def with_origin(
    found: ModelVersion, recorded: ModelVersion | None, directory: Path
) -> ModelVersion:
    """Add to what a model's files say where its record says it came from.

    Args:
        found: The model as its files describe it.
        recorded: What `load_record` gave.
        directory: Where the record is.

    Raises:
        ModelError: The record is about other files.
    """
    if recorded is None:
        if (directory / RECORD_NAME).exists():
            _log.warning(
                "%s was not written here, so it does not say where the model came from; pull the "
                "model from its registry, or give both steps the same %s.",
                plain_text(str(directory / RECORD_NAME)),
                KEY_VARIABLE,
            )
        return found
    if found.digest != recorded.digest:
        raise ModelError(
            f"The model in {directory} changed since it was pulled: "
            f"its digest is {found.digest} instead of {recorded.digest}.",
            hint="Pull it again.",
        )
    return replace(found, **{name: getattr(recorded, name) for name in _ORIGIN})


def was_pulled(directory: Path) -> bool:
    """Tell whether a directory says that a pull, of whomever, filled it or was about to."""
    try:
        facts = parse_json(record_content(directory))
    except ValueError:
        return False
    return facts == _UNFINISHED or "content_digest" in facts


def load_record(directory: Path, told: str = "") -> ModelVersion | None:
    """Read the record of a pulled directory, or give None where there is none of our own.

    Args:
        directory: The model's directory.
        told: The digest of the record, from the step that wrote it; "" if nobody said it.

    Raises:
        InvalidInput: The key is too short.
        ModelError: The pull did not finish, or the record is not the one whose digest was told.
    """
    content = record_content(directory)
    require_usable_key()
    try:
        facts, own = open_record(content, _PURPOSE, told) if content else ({}, False)
    except ValueError:
        facts, own = {}, False
    if facts == _UNFINISHED:
        raise ModelError(
            f"{directory} was left behind by a pull that did not finish.", hint="Pull it again."
        )
    if own:
        recorded = ModelVersion.from_dict(facts, directory)
        return replace(recorded, record=record_digest(content))
    if told:
        raise ModelError(
            f"The record {RECORD_NAME} in {directory} is not the one that the step wrote which "
            "pulled the model.",
            hint="Run that step again, and look who can write to the pipeline's object storage.",
        )
    return None


def write_record(directory: Path, model: ModelVersion | None) -> str:
    """Write a directory's record, or for None the mark that it is not finished yet.

    Returns:
        The digest of the record; "" for the mark.

    Raises:
        InvalidInput: The key to seal it with is too short.
    """
    content = b'{"unfinished": true}\n' if model is None else _record_text(model)
    (directory / RECORD_NAME).write_bytes(content)
    return record_digest(content) if model else ""


def _record_text(model: ModelVersion) -> bytes:
    """Give the record of a pulled model with its seal: ASCII JSON, the same for the same facts."""
    require_usable_key()
    return sealed_record(model.to_dict(), _PURPOSE)


def describe_model(
    directory: Path,
    files: Iterable[FileDigest],
    *,
    uri: str = "",
    alias: str = "",
    resolution: Resolution = _UNKNOWN,
) -> ModelVersion:
    """Give the `ModelVersion` for a directory whose files were hashed already.

    Args:
        directory: The model's directory.
        files: The digests of all its files.
        uri: What was asked for; "" means the directory's name.
        alias: The alias that was asked for.
        resolution: What the registry said.
    """
    files = list(files)
    mlmodel = read_mlmodel(mlmodel_text(directory))
    return ModelVersion(
        uri=uri or plain_text(directory.resolve().name),
        name=resolution.name,
        version=resolution.version,
        alias=alias,
        run_id=resolution.run_id or mlmodel.run_id,
        model_id=resolution.model_id or mlmodel.model_id,
        source=resolution.source,
        digest=set_digest(files),
        content_digest=content_set_digest(directory, files),
        flavors=mlmodel.flavors,
        python_version=mlmodel.python_version or stated_python(directory),
        requirements=stated_requirements(directory),
        mlflow_version=mlmodel.mlflow_version,
        size=sum(file.size for file in files),
        signature=mlmodel.signature,
        aliases=dict(resolution.aliases),
        directory=directory,
    )


def require_mlmodel(names: Iterable[str], where: str) -> None:
    """Raise a ModelError unless the files of a directory include `MLmodel`."""
    names = list(names)
    if MLMODEL_NAME in names:
        return
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    raise ModelError(
        f"{where} is no MLflow model: it has no MLmodel file "
        + (f"(it holds {shown})." if names else "(it is empty)."),
        hint="Point to the directory that holds MLmodel.",
    )


def _files(directory: Path) -> dict[str, Path]:
    if not directory.is_dir():
        raise InvalidInput(
            f"There is no directory {directory}.",
            hint="A registered model is written models:/NAME/VERSION or models:/NAME@ALIAS.",
        )
    files = model_files(directory)
    require_mlmodel(files, str(directory))
    return files


def record_content(directory: Path) -> bytes:
    """Read a directory's record as it is; empty where there is none, or none that we wrote."""
    try:
        return read_small_file(directory / RECORD_NAME, _RECORD_LIMIT)
    except (OSError, ValueError):  # none, or one that we did not write
        return b""


def require_usable_key() -> None:
    """Raise an InvalidInput if the key for records is too short to keep anybody out."""
    try:
        own_key()
    except ValueError as failure:
        raise InvalidInput(
            f"{failure}, so it keeps nobody out.",
            hint="Put a random text of at least 32 characters into the Secret it comes from.",
        ) from failure
