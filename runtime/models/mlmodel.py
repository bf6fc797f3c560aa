"""The `MLmodel` file and the examples beside it, read once into values of known types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import (
    parse_json_value,
    parse_yaml,
    read_small_file,
    reading,
)
from kfp_bento.runtime.models.signature import ModelSignature
from kfp_bento.runtime.models.text import checked_text

if TYPE_CHECKING:
    from pathlib import Path

MLMODEL_NAME = "MLmodel"
MLMODEL_LIMIT = 16 << 20
"""Bytes; the signature of a model of 50,000 columns takes four to eight mebibytes."""
EXAMPLE_LIMIT = 32 << 20
"""Bytes of an input example; a service takes smaller bodies than that."""

_EXAMPLE_FILE = "serving_input_example.json"
_PLAIN_EXAMPLE_FILE = "input_example.json"
_MOST_FLAVORS = 1_000
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]{0,99}")


@dataclass(frozen=True)
class Mlmodel:
    """What an `MLmodel` file says, as far as it is needed.

    Attributes:
        flavors: Flavor names, sorted; `python_function` is one of them.
        python_version: The interpreter that logged the model, or "".
        mlflow_version: The MLflow that logged the model, or "".
        run_id: The run that logged the model, or "".
        model_id: The LoggedModel (`m-…`), or "".
        signature: The model's signature, or None.
        has_type_hints: Whether the signature comes from the type hints of the model's code.
    """

    flavors: tuple[str, ...]
    python_version: str = ""
    mlflow_version: str = ""
    run_id: str = ""
    model_id: str = ""
    signature: ModelSignature | None = None
    has_type_hints: bool = False


def read_mlmodel(text: bytes) -> Mlmodel:
    """Read an `MLmodel` file without trusting it (no YAML tags, no MLflow import).

    Raises:
        ModelError: It is not YAML, says something that MLflow would not, or has no
            `python_function` flavor.
    """
    data = mlmodel_mapping(text)
    flavors = _flavors(data)
    signature = data.get("signature")
    return Mlmodel(
        flavors=tuple(sorted(flavors)),
        python_version=version_text(flavors["python_function"].get("python_version"), MLMODEL_NAME),
        mlflow_version=version_text(data.get("mlflow_version"), MLMODEL_NAME),
        run_id=checked_text(data.get("run_id") or "", "run_id in MLmodel"),
        model_id=checked_text(data.get("model_id") or "", "model_id in MLmodel"),
        signature=ModelSignature.from_mlmodel(signature) if isinstance(signature, dict) else None,
        has_type_hints=bool(data.get("is_signature_from_type_hint")),
    )


def read_mlmodel_of(directory: Path) -> Mlmodel:
    """Read the `MLmodel` file of a directory.

    Raises:
        ModelError: It cannot be read, or as `read_mlmodel` says.
    """
    return read_mlmodel(mlmodel_text(directory))


def read_flavors(directory: Path) -> dict[str, dict[str, Any]]:
    """Give what the `MLmodel` file of a directory says of each flavor, as it stands there.

    Raises:
        ModelError: As `read_mlmodel` says.
    """
    flavors = _flavors(mlmodel_mapping(mlmodel_text(directory)))
    return {name: said for name, said in flavors.items() if isinstance(said, dict)}


def mlmodel_text(directory: Path) -> bytes:
    """Give the content of a directory's `MLmodel` file.

    Raises:
        ModelError: It cannot be read, or is larger than `MLMODEL_LIMIT`.
    """
    with reading(
        f"{directory / MLMODEL_NAME} cannot be read", ModelError, hint="Pull the model again."
    ):
        return read_small_file(directory / MLMODEL_NAME, MLMODEL_LIMIT)


def read_example(directory: Path) -> Any:
    """Give a model's input example as its scoring payload, such as `{"dataframe_split": …}`.

    Returns:
        JSON, in which MLflow writes NaN; of an old MLflow, which wrote no payload, the plain
        example. None where the model was logged without any.

    Raises:
        ModelError: The file is not JSON, or larger than `EXAMPLE_LIMIT`.
    """
    payload = _example(directory, _EXAMPLE_FILE)
    return _example(directory, _PLAIN_EXAMPLE_FILE) if payload is None else payload


def _example(directory: Path, name: str) -> Any:
    path = directory / name
    if not path.resolve().is_relative_to(directory.resolve()) or not path.is_file():
        return None
    with reading(
        f"The model's input example {name} is not valid JSON",
        ModelError,
        hint="Log the model again with input_example=.",
    ):
        return parse_json_value(read_small_file(path, EXAMPLE_LIMIT), nan=True)


def version_text(value: Any, where: str) -> str:
    """Give a version as text; "" where none is stated.

    Raises:
        ModelError: It is none: it could add a line to what is installed.
    """
    if value is None or value == "":
        return ""
    text = str(value) if isinstance(value, str | int | float) else ""
    if not _VERSION.fullmatch(text):
        raise ModelError(
            f"{where} states the version {str(value)[:60]!r}, which is none.",
            hint="Log the model again with mlflow.<flavor>.log_model.",
        )
    return text


def mlmodel_mapping(text: bytes) -> dict[str, Any]:
    """Give the content of an `MLmodel` file, of which nothing but the outer mapping is checked.

    Raises:
        ModelError: It is not a YAML mapping.
    """
    with reading(
        "The MLmodel file is not valid YAML",
        ModelError,
        hint="Download the model again, or log it again.",
    ):
        if len(text) > MLMODEL_LIMIT:
            raise ValueError(f"it is larger than {MLMODEL_LIMIT} bytes")
        data = parse_yaml(text)
    if not isinstance(data, dict):
        raise ModelError(
            "The MLmodel file is not a YAML mapping.",
            hint="Point to a directory written by mlflow.<flavor>.log_model or save_model.",
        )
    return data


def _flavors(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the flavors of a model that MLflow can serve."""
    flavors = data.get("flavors")
    if not isinstance(flavors, dict) or len(flavors) > _MOST_FLAVORS:
        raise ModelError(
            "The MLmodel file names no flavors, so this is no MLflow model.",
            hint="Point to a directory written by mlflow.<flavor>.log_model or save_model.",
        )
    for name in flavors:
        checked_text(name, "A flavor's name in MLmodel")
    if not isinstance(flavors.get("python_function"), dict):
        raise ModelError(
            "The model has no python_function flavor "
            f"(only: {', '.join(sorted(flavors)) or 'none'}), so it cannot be served.",
            hint="Log it with a flavor that offers python_function, or wrap it with mlflow.pyfunc.",
        )
    return flavors
