"""What leaves this stop: one exact model version, with everything later steps need to know."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RECORD_NAME = ".kfp-bento.json"
"""The file beside a model's own files that holds `ModelVersion.to_dict()`."""


def specification_kind(specs: tuple[dict[str, Any], ...]) -> str:
    """Names the shape of one side of a signature.

    Args:
        specs: The entries of `inputs` or `outputs`, as MLflow writes them.

    Returns:
        "columns" (named columns), "unnamed" (columns without names), "tensor" (one unnamed
        tensor), "tensors" (named tensors) or "" where the side is empty.
    """
    if not specs:
        return ""
    named = all(spec.get("name") not in (None, "") for spec in specs)
    if any(spec.get("type") == "tensor" for spec in specs):
        return "tensors" if named else "tensor"
    return "columns" if named else "unnamed"


@dataclass(frozen=True)
class ModelSignature:
    """A model's signature as the lists that MLflow writes into `MLmodel`.

    Attributes:
        inputs: One entry per column (`type`, `name`, `required`) or per tensor
            (`type: tensor`, `tensor-spec: {dtype, shape}`, perhaps `name`).
        outputs: The same for what the model answers.
        params: One entry per inference parameter (`name`, `type` or `dtype`, `default`, `shape`).
    """

    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    params: tuple[dict[str, Any], ...] = ()

    @property
    def kind(self) -> str:
        """The shape of the inputs; see `specification_kind`."""
        return specification_kind(self.inputs)

    @classmethod
    def from_mlmodel(cls, data: Mapping[str, Any]) -> ModelSignature:
        """Reads the `signature` mapping of an `MLmodel` file, whose values are JSON strings.

        Raises:
            ModelError: A value is not JSON, or not a list of objects.
        """
        return cls(*(_specifications(data, side) for side in ("inputs", "outputs", "params")))

    def to_dict(self) -> dict[str, Any]:
        """The signature as plain lists, ready for JSON."""
        return {
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "params": list(self.params),
        }


@dataclass(frozen=True)
class ModelVersion:
    """One exact model: where it came from, what it is, and the directory that holds its files.

    Attributes:
        uri: The URI as it was asked for (a plain directory: its name only, never a host path).
        name: Registered model name, or "".
        version: Registered version, or "".
        alias: The alias that was asked for, or "".
        run_id: The run that logged the model, or "".
        model_id: The LoggedModel (`m-…`), or "".
        source: What the registry recorded as the version's source, or "".
        digest: `sha256:…` of the file tree exactly as the registry holds it.
        content_digest: The same without `MLmodel`'s run-specific keys: two trainings that give
            the same model give the same value.
        flavors: Flavor names, sorted.
        python_version: The interpreter that logged the model, such as "3.11.7", or "".
        requirements: The lines of `requirements.txt`, without comments and blank lines.
        mlflow_version: The MLflow that logged the model, or "".
        size: Bytes of all files.
        signature: The model's signature, or None.
        aliases: Alias to version of the registered model at the moment of resolution.
        directory: Where the files are. Never serialised.
        reused: Whether the directory already held exactly these bytes, so that nothing was
            downloaded. A fact about one call, not about the model: never serialised, not compared.
    """

    uri: str
    name: str
    version: str
    alias: str
    run_id: str
    model_id: str
    source: str
    digest: str
    content_digest: str
    flavors: tuple[str, ...]
    python_version: str
    requirements: tuple[str, ...]
    mlflow_version: str
    size: int
    signature: ModelSignature | None
    aliases: dict[str, str]
    directory: Path
    reused: bool = field(default=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON-able data, without `directory` and `reused`."""
        return {
            "uri": self.uri,
            "name": self.name,
            "version": self.version,
            "alias": self.alias,
            "run_id": self.run_id,
            "model_id": self.model_id,
            "source": self.source,
            "digest": self.digest,
            "content_digest": self.content_digest,
            "flavors": list(self.flavors),
            "python_version": self.python_version,
            "requirements": list(self.requirements),
            "mlflow_version": self.mlflow_version,
            "size": self.size,
            "signature": None if self.signature is None else self.signature.to_dict(),
            "aliases": dict(sorted(self.aliases.items())),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], directory: Path) -> ModelVersion:
        """Rebuilds the value from `to_dict()` for the directory that holds the files.

        Raises:
            ModelError: A field is missing or of the wrong kind.
        """
        try:
            values: dict[str, Any] = {
                name: _checked(name, data[name], kind) for name, kind in _KINDS.items()
            }
            signature = values["signature"]
            values["signature"] = None if signature is None else _signature(signature)
            values["flavors"] = tuple(values["flavors"])
            values["requirements"] = tuple(values["requirements"])
            return cls(**values, directory=directory)
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"The record {RECORD_NAME} of a pulled model cannot be read: {error!s}.",
                hint="Pull the model again into an empty directory.",
            ) from error


_KINDS: dict[str, type | tuple[type, ...]] = {
    "uri": str,
    "name": str,
    "version": str,
    "alias": str,
    "run_id": str,
    "model_id": str,
    "source": str,
    "digest": str,
    "content_digest": str,
    "flavors": list,
    "python_version": str,
    "requirements": list,
    "mlflow_version": str,
    "size": int,
    "signature": (dict, type(None)),
    "aliases": dict,
}


def _checked(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"field {name!r} is {type(value).__name__}")
    return value


def _signature(data: Mapping[str, Any]) -> ModelSignature:
    return ModelSignature(
        **{side.name: tuple(data[side.name]) for side in dataclasses.fields(ModelSignature)}
    )


def _specifications(data: Mapping[str, Any], side: str) -> tuple[dict[str, Any], ...]:
    text = data.get(side)
    if not text:
        return ()
    try:
        specs = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        specs = None
    if specs is None and text == "null":
        return ()
    if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
        raise ModelError(
            f"The signature in MLmodel cannot be read: `{side}` is not a JSON list of objects.",
            hint="Log the model again with mlflow.models.infer_signature.",
        )
    return tuple(specs)
