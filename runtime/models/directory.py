"""A model directory on this machine, and the facts that its files state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models.identity import (
    MLMODEL_NAME,
    FileDigest,
    content_set_digest,
    file_digests,
    model_files,
    read_mlmodel,
    set_digest,
)
from kfp_bento.runtime.models.version import RECORD_NAME, ModelSignature, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kfp_bento.runtime.models.registry import Resolution


UNFINISHED = {"unfinished": True}
"""The record of a directory that is still being filled."""


def load_model(directory: Path) -> ModelVersion:
    """Reads a model directory: one that was pulled, or any that MLflow wrote.

    A pulled directory is taken at its record's word, after a look at the number of bytes;
    any other is hashed.

    Args:
        directory: A directory with an `MLmodel` file.

    Raises:
        InvalidInput: There is no such directory.
        ModelError: It is no MLflow model, has no `python_function` flavor, or changed since it
            was pulled.
    """
    recorded = load_record(directory)
    if recorded is None:
        return describe_model(directory, file_digests(_files(directory)))
    size = sum(path.stat().st_size for path in _files(directory).values())
    if size != recorded.size:
        raise ModelError(
            f"The model in {directory} changed since it was pulled: "
            f"{size} bytes instead of {recorded.size}.",
            hint="Pull it again.",
        )
    return recorded


def load_record(directory: Path) -> ModelVersion | None:
    """Reads the record of a pulled directory, or gives None where there is none."""
    try:
        data = json.loads((directory / RECORD_NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as failure:
        raise ModelError(
            f"{directory / RECORD_NAME} is not JSON: {failure}.", hint="Pull the model again."
        ) from failure
    if data == UNFINISHED:
        raise ModelError(
            f"{directory} was left behind by a pull that did not finish.", hint="Pull it again."
        )
    if not isinstance(data, dict) or "content_digest" not in data:
        return None
    return ModelVersion.from_dict(data, directory)


def write_record(directory: Path, model: ModelVersion | None) -> None:
    """Writes a directory's record, or for None the mark that it is not finished yet."""
    text = json.dumps(UNFINISHED) + "\n" if model is None else record_text(model)
    (directory / RECORD_NAME).write_text(text, encoding="ascii")


def record_text(model: ModelVersion) -> str:
    """Gives the record of a pulled model: ASCII JSON, the same for the same facts."""
    return json.dumps(model.to_dict(), indent=1, sort_keys=True) + "\n"


def input_example(model: ModelVersion) -> Any:
    """Gives the example that was logged with a model, as MLflow's scoring payload.

    Returns:
        The content of `serving_input_example.json` (such as `{"dataframe_split": …}` or
        `{"inputs": …}`), or None where the model was logged without an example.

    Raises:
        ModelError: The file is not JSON.
    """
    info = _mlmodel(model.directory).get("saved_input_example_info") or {}
    name = str(info.get("serving_input_path") or "serving_input_example.json")
    path = model.directory / name
    if not path.resolve().is_relative_to(model.directory.resolve()) or not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as failure:
        raise ModelError(
            f"The model's input example {name} is not JSON: {failure}.",
            hint="Log the model again with input_example=.",
        ) from failure


def describe_model(
    directory: Path,
    files: Iterable[FileDigest],
    *,
    uri: str = "",
    alias: str = "",
    resolution: Resolution | None = None,
) -> ModelVersion:
    """Gives the `ModelVersion` for a directory whose files were hashed already.

    Args:
        directory: The model's directory.
        files: The digests of all its files.
        uri: What was asked for; "" means the directory's name.
        alias: The alias that was asked for.
        resolution: What the registry said, if it was asked.
    """
    files = list(files)
    text = (directory / MLMODEL_NAME).read_bytes()
    mlmodel = read_mlmodel(text)
    flavors = require_python_function(mlmodel)
    signature = mlmodel.get("signature")
    logged = resolution
    return ModelVersion(
        uri=uri or directory.resolve().name,
        name=logged.name if logged else "",
        version=logged.version if logged else "",
        alias=alias,
        run_id=(logged.run_id if logged else "") or str(mlmodel.get("run_id") or ""),
        model_id=(logged.model_id if logged else "") or str(mlmodel.get("model_id") or ""),
        source=logged.source if logged else "",
        digest=set_digest(files),
        content_digest=content_set_digest(files, text),
        flavors=tuple(sorted(flavors)),
        python_version=_python_version(directory, flavors),
        requirements=_requirements(directory),
        mlflow_version=str(mlmodel.get("mlflow_version") or ""),
        size=sum(file.size for file in files),
        signature=ModelSignature.from_mlmodel(signature) if isinstance(signature, dict) else None,
        aliases=dict(logged.aliases) if logged else {},
        directory=directory,
    )


def require_python_function(mlmodel: dict[str, Any]) -> dict[str, Any]:
    """Gives the flavors of a model that MLflow can serve.

    Raises:
        ModelError: There is no `python_function` flavor.
    """
    flavors = mlmodel.get("flavors")
    if not isinstance(flavors, dict):
        raise ModelError(
            "The MLmodel file names no flavors, so this is no MLflow model.",
            hint="Point to a directory written by mlflow.<flavor>.log_model or save_model.",
        )
    if not isinstance(flavors.get("python_function"), dict):
        raise ModelError(
            "The model has no python_function flavor "
            f"(only: {', '.join(sorted(map(str, flavors))) or 'none'}), so it cannot be served.",
            hint="Log it with a flavor that offers python_function, or wrap it with mlflow.pyfunc.",
        )
    return flavors


def require_mlmodel(names: Iterable[str], where: str) -> None:
    """Raises a ModelError unless the files of a directory include `MLmodel`."""
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


def _mlmodel(directory: Path) -> dict[str, Any]:
    try:
        return read_mlmodel((directory / MLMODEL_NAME).read_bytes())
    except OSError as failure:
        raise ModelError(
            f"{directory / MLMODEL_NAME} cannot be read: {failure.strerror}.",
            hint="Pull the model again.",
        ) from failure


def _python_version(directory: Path, flavors: dict[str, Any]) -> str:
    stated = flavors["python_function"].get("python_version")
    if not stated:
        stated = _yaml(directory / "python_env.yaml").get("python")
    return str(stated or "")


def _requirements(directory: Path) -> tuple[str, ...]:
    try:
        text = (directory / "requirements.txt").read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
    except FileNotFoundError:
        lines = _conda_requirements(directory)
    stripped = (line.strip() for line in lines)
    return tuple(line for line in stripped if line and not line.startswith("#"))


def _conda_requirements(directory: Path) -> list[str]:
    """Models logged before MLflow 1.19 say their pip requirements in `conda.yaml` only."""
    for entry in _yaml(directory / "conda.yaml").get("dependencies") or []:
        if isinstance(entry, dict) and isinstance(entry.get("pip"), list):
            return [str(line) for line in entry["pip"]]
    return []


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}
