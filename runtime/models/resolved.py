"""Which exact models a run is about: what its first step says, and the later ones keep to."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.models.sources import ModelSource, read_entries, resolve_sources
from kfp_bento.runtime.models.tracking import choose_tracking, speaking_to
from kfp_bento.runtime.models.uri import without_password

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOKED_AT = "looked_at"


@dataclass(frozen=True)
class ResolvedModel:
    """What a URI means now.

    Attributes:
        entry: The same model without an alias, NAME=URI, as `pull_models` takes it.
        identity: What no other model of that URI has: source, run and model id, as JSON.
        name: Its registered name, or "".
        aliases: Alias to version of the registered model, from the same read.
    """

    entry: str
    identity: str
    name: str
    aliases: Mapping[str, str]


def resolve_models(entries: Sequence[str], *, tracking_uri: str = "") -> list[ResolvedModel]:
    """Look model URIs up once, and fetch nothing.

    Args:
        entries: As for `pull_models`.
        tracking_uri: The tracking server; "" means the environment's.

    Raises:
        InvalidInput: An entry or the tracking settings cannot be used, or two entries are one model
            or would have one name.
        ModelError: A model, alias, version or run does not exist.
    """
    asked = read_entries(entries)
    tracking = choose_tracking(tracking_uri) if any(one.needs_tracking for one in asked) else None
    with speaking_to(tracking) if tracking else nullcontext():
        return [_resolved(source) for source in resolve_sources(asked, tracking)]


def require_resolved(sources: Sequence[ModelSource], identities: Sequence[str]) -> None:
    """Refuse models that are others than those that were resolved, under the same names.

    Args:
        sources: What the entries mean now.
        identities: What they meant, in the same order; none where nobody looked before.

    Raises:
        InvalidInput: There are more or fewer of them.
        ModelError: One is another.
    """
    if not identities:
        return
    if len(identities) != len(sources):
        raise InvalidInput(
            f"There are {len(sources)} models and {len(identities)} identities.",
            hint="Hand on both lists of resolve_models, or no identities.",
        )
    for source, identity in zip(sources, map(_without_time, identities), strict=True):
        if identity_of(source) != identity:
            raise ModelError(
                f"{without_password(source.uri.text)} is another model than at the beginning of "
                "this run: it was deleted and registered anew meanwhile.",
                hint="Start the run again.",
            )


def identity_of(source: ModelSource) -> str:
    """Give what no other model of the same URI has; "" for a directory on this machine."""
    found = source.resolution
    if found is None:
        return ""
    facts = {name: getattr(found, name) for name in ("source", "run_id", "model_id")}
    return json.dumps({name: text for name, text in facts.items() if text}, sort_keys=True)


def _without_time(identity: str) -> str:
    facts = _facts_of(identity)
    facts.pop(_LOOKED_AT, None)
    return json.dumps(facts, sort_keys=True) if facts else ""


def _facts_of(identity: str) -> dict[str, Any]:
    try:
        return parse_json(identity.encode()) if identity else {}
    except ValueError as error:
        raise InvalidInput(
            f"identities: {error}.", hint="Hand on what resolve_models has said."
        ) from None


def _resolved(source: ModelSource) -> ResolvedModel:
    found = source.resolution
    named = found is not None and bool(found.name)
    uri = f"models:/{found.name}/{found.version}" if found and named else source.uri.text
    identity = identity_of(source)
    if not (found and (found.name or found.model_id)):
        # Nobody vouches for what lies at an address, in a run or in a folder: it is another one in
        # each run of a pipeline. Versions and logged models stay what they are.
        facts = {**_facts_of(identity), _LOOKED_AT: time.time_ns()}
        identity = json.dumps(facts, sort_keys=True)
    return ResolvedModel(
        f"{source.name}={uri}",
        identity,
        found.name if found else "",
        dict(found.aliases) if found else {},
    )
