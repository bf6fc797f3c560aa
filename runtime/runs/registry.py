"""Which versions hold the aliases that are watched, and what was submitted for them.

What was submitted stands in the registry itself, as a tag of the version: it outlives whoever
watches, and goes with the version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import InvalidInput, ModelError, RunUnavailable, plain_text
from kfp_bento.runtime.models import (
    RegisteredModel,
    choose_tracking,
    list_registered_models,
    missing_as,
    parse_model_uri,
    read_registered_model,
    read_registered_version,
    speaking_to,
    tracking_client,
)

_LONGEST_NAME = 40


@dataclass(frozen=True)
class Watched:
    """An alias, of one registered model or of all that have a tag.

    Attributes:
        alias: The alias.
        model: The registered model; empty where a tag chooses.
        tag: Name and value of the tag; the value may be empty, which takes any.
    """

    alias: str
    model: str = ""
    tag: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Holder:
    """The version of a registered model that holds an alias now.

    Attributes:
        model: The registered model.
        alias: The alias.
        version: Its number.
        source: Where the registry says its files are; with the rest it tells two versions apart.
        tags: The tags of the version.
        problem: Why it cannot be used now, such as an upload that is not over; empty otherwise.
    """

    model: str
    alias: str
    version: str
    source: str
    tags: dict[str, str]
    problem: str = ""

    @property
    def uri(self) -> str:
        """The URI of this very version."""
        return f"models:/{self.model}/{self.version}"

    def run_name(self, pipeline: str) -> str:
        """Give the name of the run that this is submitted as: the same for the same content."""
        known = [self.model, self.version, self.source, self.alias, pipeline]
        digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]
        model = _slug(self.model)[:_LONGEST_NAME].strip("-") or "model"
        return f"{_slug(pipeline)}-{model}-{self.version}-{digest}"

    def note_tag(self, pipeline: str) -> str:
        """Give the key of the tag that says which run it was submitted as."""
        return f"kfp-bento.submitted.{self.alias}.{_slug(pipeline)}"

    def noted(self, pipeline: str) -> str:
        """Give the id of the run that it was submitted as; "" where nothing says so."""
        return self.tags.get(self.note_tag(pipeline), "")


def read_watched(models: Sequence[str], tagged: Sequence[str], alias: str) -> list[Watched]:
    """Read what is to be watched.

    Args:
        models: URIs such as models:/credit@candidate.
        tagged: KEY or KEY=VALUE, tags of registered models.
        alias: The alias of those that a tag chooses.

    Raises:
        InvalidInput: Nothing is given, or a URI names no alias.
    """
    found = []
    for text in models:
        uri = parse_model_uri(text)
        if uri.kind != "alias":
            raise InvalidInput(
                f"{text} names no alias, and only an alias moves.",
                hint="Write models:/NAME@ALIAS.",
            )
        found.append(Watched(uri.alias, model=uri.name))
    if tagged and not alias:
        raise InvalidInput("--tagged: which alias?", hint="Add --alias, such as candidate.")
    for text in tagged:
        key, _, value = text.partition("=")
        found.append(Watched(alias, tag=(key, value)))
    if not found:
        raise InvalidInput(
            "There is nothing to watch.", hint="Name models:/NAME@ALIAS, or --tagged KEY=VALUE."
        )
    return found


class Registry:
    """A registry, asked for the holders of aliases.

    Args:
        tracking_uri: The tracking server; "" means the environment's.

    Raises:
        InvalidInput: The tracking settings cannot be used.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking = choose_tracking(tracking_uri)

    def holders(self, watched: Watched) -> list[Holder]:
        """Give the versions that hold an alias now; none where it stands nowhere.

        Raises:
            RunUnavailable: The registry does not answer.
            ModelError: There is no such model.
        """
        if watched.model:
            with speaking_to(self.tracking, error=RunUnavailable):
                client = tracking_client(self.tracking, error=RunUnavailable)
                with missing_as(
                    f"There is no registered model {watched.model!r}.",
                    hint="It is looked for again.",
                    error=ModelError,
                ):
                    answer = client.get_registered_model(watched.model)
            models = [read_registered_model(answer)]
        else:
            models = [one for one in self._all() if _has(one, watched.tag)]
        return [
            self._holder(one.name, watched.alias, one.aliases[watched.alias])
            for one in models
            if one.aliases.get(watched.alias)
        ]

    def note(self, holder: Holder, pipeline: str, run_id: str) -> None:
        """Write down which run a version was submitted as."""
        with speaking_to(self.tracking, error=RunUnavailable):
            tracking_client(self.tracking, error=RunUnavailable).set_model_version_tag(
                holder.model, holder.version, holder.note_tag(pipeline), run_id
            )

    def _all(self) -> Iterator[RegisteredModel]:
        try:
            yield from list_registered_models(self.tracking.tracking_uri)
        except ModelError as failure:
            raise RunUnavailable(failure.message, hint=failure.hint) from failure

    def _holder(self, model: str, alias: str, version: str) -> Holder:
        with speaking_to(self.tracking, error=RunUnavailable):
            client: Any = tracking_client(self.tracking, error=RunUnavailable)
            found = read_registered_version(client.get_model_version(model, version))
        problem = "" if found.status.partition(" ")[0] == "READY" else f"It is {found.status}."
        return Holder(model, alias, version, found.source, found.tags, plain_text(problem))


def _has(model: RegisteredModel, tag: tuple[str, str]) -> bool:
    key, value = tag
    return key in model.tags and value in ("", model.tags[key])


def _slug(text: str) -> str:
    """Give a text as it may stand in names of runs and tags."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
