"""Which models a pull is for: read, named and resolved before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import InvalidInput, plain_text
from kfp_bento.runtime.models.directory import load_record
from kfp_bento.runtime.models.naming import default_name, is_tag_name, tag_name
from kfp_bento.runtime.models.resolution import Resolution, resolve_model
from kfp_bento.runtime.models.tracking import Tracking
from kfp_bento.runtime.models.uri import FORMS, ModelUri, parse_model_uri, without_password


@dataclass(frozen=True)
class Entry:
    """One model as it was asked for.

    Attributes:
        uri: Its URI.
        name: Its name in the bento, or "" where nobody chose one.
    """

    uri: ModelUri
    name: str = ""

    @property
    def needs_tracking(self) -> bool:
        """Whether a tracking server has to be asked; s3://… and folders need none."""
        if self.uri.kind == "artifact":
            return self.uri.text.startswith("mlflow-artifacts:")
        return self.uri.kind != "directory"


@dataclass(frozen=True)
class ModelSource:
    """One exact model, and where its files come from.

    Attributes:
        uri: What was asked for.
        name: Its name in the bento, and of its folder in a set.
        resolution: What the registry said; None for a directory on this machine.
        tracking: The servers that said so; None where none was asked.
    """

    uri: ModelUri
    name: str
    resolution: Resolution | None = None
    tracking: Tracking | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """What two sources have in common that are one model."""
        found = self.resolution
        if found is None:
            return (str(Path(self.uri.path).resolve()),)
        return (found.name, found.version) if found.name else (found.location,)


def read_entries(texts: Sequence[Any]) -> list[Entry]:
    """Read what models are asked for: each a URI, or NAME=URI.

    Raises:
        InvalidInput: There is none, one cannot be read, or a name is chosen twice.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("The models are no list of texts.", hint=FORMS)
    if not texts:
        raise InvalidInput("No model was asked for.", hint=FORMS)
    entries = [_entry(text) for text in texts]
    _require_once([entry.name for entry in entries if entry.name])
    return entries


def resolve_sources(
    entries: Sequence[Entry], tracking: Tracking | None, client: Callable[[], Any]
) -> list[ModelSource]:
    """Ask the registry once what each entry means.

    Args:
        entries: What `read_entries` gave.
        tracking: The servers, if one has to be asked.
        client: Gives the `MlflowClient` for them.

    Raises:
        InvalidInput: Two entries are one version, or would have one name.
        ModelError: A model, alias, version, run or path does not exist.
    """
    asked = client() if any(entry.needs_tracking for entry in entries) else None
    sources = [_resolved(entry, tracking, asked) for entry in entries]
    seen: dict[tuple[str, ...], ModelSource] = {}
    for source in sources:
        if (other := seen.setdefault(source.identity, source)) is not source:
            raise InvalidInput(
                f"{_shown(other)} and {_shown(source)} are the same model, version "
                f"{source.identity[-1]}.",
                hint="Give each model once; a service finds it under one name.",
            )
    _require_once([source.name for source in sources])
    return sources


def _entry(text: str) -> Entry:
    name, equals, rest = text.strip().partition("=")
    if not equals or "/" in name or ":" in name:  # a sign in a path or a registered name
        return Entry(parse_model_uri(text))
    name = name.strip()
    if not is_tag_name(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a model in a bento.",
            hint="Use up to 63 of a-z, 0-9, '-', '_' and '.', for example "
            f"{tag_name(name)}={rest.strip()}; a folder with such a name is written ./{text}.",
        )
    return Entry(parse_model_uri(rest), name)


def _resolved(entry: Entry, tracking: Tracking | None, client: Any) -> ModelSource:
    uri = entry.uri
    if uri.kind == "directory":
        return ModelSource(uri, entry.name or _name_of_directory(Path(uri.path)))
    if entry.needs_tracking:
        found = resolve_model(uri, client)
    else:
        tracking, found = None, Resolution(uri.text, source=without_password(uri.text))
    name = default_name(found.name, without_password(uri.text), found.model_id)
    return ModelSource(uri, entry.name or name, found, tracking)


def _name_of_directory(directory: Path) -> str:
    recorded = load_record(directory)
    if recorded is not None:
        return recorded.name_in_bento
    return default_name("", plain_text(directory.resolve().name), "")


def _require_once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(
                f"Two of the models would be called {name!r} in the bento.",
                hint=f"Give one another name: {name}-2=URI, for example "
                f"{name}-2=models:/NAME/VERSION.",
            )


def _shown(source: ModelSource) -> str:
    return without_password(source.uri.text)
