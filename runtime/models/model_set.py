"""Several models that belong together: a directory with a folder for each, and what seals it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.files import JSON_LIMIT, load_record, record_digest, save_record
from kfp_bento.runtime.models.directory import (
    load_model,
    record_content,
    require_mlmodel,
    require_usable_key,
)
from kfp_bento.runtime.models.identity import FileDigest, set_digest
from kfp_bento.runtime.models.mlmodel import MLMODEL_NAME
from kfp_bento.runtime.models.text import checked_text
from kfp_bento.runtime.models.version import RECORD_NAME, ModelVersion, version_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PURPOSE = "models"


def models_record(models: Iterable[ModelVersion]) -> str:
    """Give what seals pulled models as one set: `sha256:...` over the records of all.

    A step that is told it believes these records, all of them and no others.
    """
    return _record({model.directory.name: model.record for model in models})


def load_models(directory: Path, *, record: str = "") -> list[ModelVersion]:
    """Read a directory of models, or one model's own directory as a set of one.

    Args:
        directory: What `pull_models` filled, or any directory that holds MLflow models in folders,
            or is one.
        record: What `models_record` gave to the step that pulled the models; see `load_model`.

    Returns:
        The models, by the names of their folders.

    Raises:
        InvalidInput: There is no such directory.
        ModelError: It holds what is no model, a model changed since it was pulled, or the records
            are not those that the step wrote.
    """
    folders = _folders(directory)
    if not record:
        return [load_model(folder) for folder in folders]
    told = {folder.name: record_digest(record_content(folder)) for folder in folders}
    if _record(told) != record:
        raise ModelError(
            f"The records {RECORD_NAME} of the models in {directory} are not the ones that the "
            "step wrote which pulled them.",
            hint="Run that step again, and look who can write to the pipeline's object storage.",
        )
    return [load_model(folder, record=told[folder.name]) for folder in folders]


def load_given_models(artifact: Any) -> list[ModelVersion]:
    """Read the models of an input artifact: its `path`, and `record` of its metadata.

    None is what an optional input is that was left out: no models.

    Args:
        artifact: The output `models` of pull_model.
    """
    return [] if artifact is None else load_models(Path(artifact.path), record=_told(artifact))


def save_facts(models: Iterable[ModelVersion], path: Path) -> str:
    """Write what is known of models, sealed as our own, for steps that need none of their files.

    Returns:
        The digest of the record, for the steps that read it.

    Raises:
        ModelError: The file cannot be written.
    """
    require_usable_key()
    facts = {"models": [model.to_dict() for model in models]}
    return save_record(facts, _PURPOSE, path, ModelError)


def load_given_facts(
    artifact: Any, aliases: Mapping[str, Mapping[str, str]] | None = None
) -> list[ModelVersion]:
    """Read what `save_facts` wrote: the models, without their files.

    Args:
        artifact: The output `facts` of pull_model; None, an input that was left out, is no models.
        aliases: Where the aliases of each registered model were at the beginning of this run, as
            `resolve_models` says: the models themselves may have been pulled in an earlier one.

    Raises:
        InvalidInput: The aliases are none.
        ModelError: It is not what the step wrote, or is something else.
    """
    if artifact is None:
        return []
    path = Path(artifact.path)
    facts = load_record(
        path,
        _PURPOSE,
        told=_told(artifact),
        largest=JSON_LIMIT,
        absent="There are no facts of models",
        changed=f"The facts of the models in {path} are not what the step wrote that pulled them.",
        error=ModelError,
        hint="Hand on the output `facts` of pull_model, as the step wrote it.",
        claims=False,
    )
    found = facts.get("models")
    if not isinstance(found, list):
        raise ModelError(f"{path} holds no facts of models.", hint="Run pull_model again.")
    models = [ModelVersion.from_dict(one, path.parent) for one in found]
    return [_with_aliases(model, aliases) for model in models] if aliases else models


def _told(artifact: Any) -> str:
    return str((getattr(artifact, "metadata", None) or {}).get("record", ""))


def _with_aliases(model: ModelVersion, aliases: Mapping[str, Mapping[str, str]]) -> ModelVersion:
    found = aliases.get(model.name, {})
    if not isinstance(found, dict):
        raise InvalidInput(
            f"aliases: what is said of {model.name!r} is no object.",
            hint="Hand on the output `aliases` of resolve_models.",
        )
    checked = {
        checked_text(alias, "An alias"): version_number(version, "The version of an alias")
        for alias, version in found.items()
    }
    return replace(model, aliases=checked)


def _record(told: dict[str, str]) -> str:
    return set_digest(
        FileDigest(f"{name}/{RECORD_NAME}", digest.removeprefix("sha256:"), 0)
        for name, digest in told.items()
    )


def _folders(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise InvalidInput(
            f"There is no directory {directory}.",
            hint="A registered model is written models:/NAME/VERSION or models:/NAME@ALIAS.",
        )
    if (directory / MLMODEL_NAME).is_file():
        return [directory]
    inside = sorted(path for path in directory.iterdir() if path.is_dir())
    others = [path for path in inside if not (path / MLMODEL_NAME).is_file()]
    if len(others) == len(inside):
        require_mlmodel([path.name for path in sorted(directory.iterdir())], str(directory))
    if others:
        raise ModelError(
            f"{directory} holds models, and {others[0].name} beside them, which is none.",
            hint="Point to a directory with nothing but models, or to one model.",
        )
    return inside
