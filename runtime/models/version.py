"""What leaves this stop: one exact model version, with everything later steps need to know."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models.naming import default_name, is_tag_name
from kfp_bento.runtime.models.signature import ModelSignature
from kfp_bento.runtime.models.text import checked_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RECORD_NAME = ".kfp-bento.json"
"""The file beside a model's own files that holds `ModelVersion.to_dict()`."""


class ModelFacts(TypedDict, total=False):
    """What `ModelVersion.to_dict` gives and a bento's record keeps; empty if unknown."""

    uri: str
    served_as: str
    name: str
    version: str
    alias: str
    run_id: str
    model_id: str
    source: str
    digest: str
    content_digest: str
    flavors: list[str]
    python_version: str
    requirements: list[str]
    mlflow_version: str
    size: int
    signature: dict[str, Any] | None
    aliases: dict[str, str]


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
        served_as: The name under which it was pulled, which is its name in a bento; "" for one
            that was not pulled.
        directory: Where the files are. Never serialised.
        reused: Whether the directory already held exactly these bytes, so that nothing was
            downloaded. A fact about one call, not about the model: never serialised, not compared.
        record: `sha256:…` of the record in the directory, if it is one of our own; a step that
            is told it believes the record. Never serialised, not compared.
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
    served_as: str = ""
    reused: bool = field(default=False, compare=False)
    record: str = field(default="", compare=False)

    @property
    def name_in_bento(self) -> str:
        """Its name in a bento: the one it was pulled under, or what its origin suggests."""
        return self.served_as or default_name(self.name, self.uri, self.model_id)

    def to_dict(self) -> ModelFacts:
        """Give the facts as JSON-able data, without `directory`, `reused` and `record`."""
        return {
            "uri": self.uri,
            "served_as": self.served_as,
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
            ModelError: A field is missing or is not what it should be.
        """
        try:
            signature = data["signature"]
            facts: dict[str, Any] = {name: _text(data[name], name) for name in _TEXTS}
            facts |= {name: _digest(data[name], name) for name in ("digest", "content_digest")}
            facts |= {name: _texts(data[name], name) for name in ("flavors", "requirements")}
            return cls(
                **facts,
                version=version_number(data["version"], "version"),
                served_as=_tag(data.get("served_as", "")),  # records of earlier releases lack it
                size=_size(data["size"]),
                signature=None
                if signature is None
                else ModelSignature.from_dict(_mapping(signature, "signature")),
                aliases={
                    _text(alias, "aliases"): version_number(version, "aliases")
                    for alias, version in _mapping(data["aliases"], "aliases").items()
                },
                directory=directory,
            )
        except (KeyError, TypeError, ModelError) as error:
            raise ModelError(
                f"The record {RECORD_NAME} of a pulled model cannot be read: "
                f"{getattr(error, 'message', None) or repr(error)}",
                hint="Pull the model again into an empty directory.",
            ) from error


_TEXTS = (
    *("uri", "name", "alias", "run_id", "model_id", "source"),
    *("python_version", "mlflow_version"),
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,19}")


def version_number(value: Any, what: str) -> str:
    """Give a registered version, which is a number; "" where there is none.

    Raises:
        ModelError: It is something else.
    """
    text = checked_text(value, what)
    if text and not _VERSION.fullmatch(text):
        raise ModelError(
            f"{what} is {text[:60]!r}, which is no version.", hint="Versions are numbers from 1."
        )
    return text


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"field {name!r} is {type(value).__name__}")
    return checked_text(value, name, longest=8_192)


def _tag(value: Any) -> str:
    if value != "" and not (isinstance(value, str) and is_tag_name(value)):
        raise TypeError("field 'served_as' is no name in a bento")
    return str(value)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"field {name!r} is {type(value).__name__}")
    return tuple(_text(item, name) for item in value)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"field {name!r} is {type(value).__name__}")
    return value


def _digest(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise TypeError(f"field {name!r} is no digest")
    return value


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("field 'size' is no number of bytes")
    return value
