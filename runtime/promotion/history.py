"""The record of promotions that is kept as tags in the registry itself."""

from __future__ import annotations

import getpass
import json
import math
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError, plain_text
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.models import read_registered_version, version_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.checks import CheckReport

# MLflow allows 100 000 characters today; servers up to 2.x and their databases allow 5 000.
_LONGEST_VALUE = 5000
_LONGEST_FACT = 500
_NUMBER = re.compile(r"[0-9]{1,9}")


def history_entries(tags: Mapping[str, str], alias: str) -> dict[int, str]:
    """Give a version's promotions to one alias, number to tag value, oldest first.

    Args:
        tags: The tags of the model version.
        alias: The alias.
    """
    prefix = f"kfp-bento.promoted.{alias}."
    found: dict[int, str] = {}
    for key, value in tags.items():
        number = key.removeprefix(prefix)
        if number != key and _NUMBER.fullmatch(number):
            found[int(number)] = value
    return dict(sorted(found.items()))


def history_tag(alias: str, number: int) -> str:
    """Give the key of one entry; numbers only grow, so no entry is ever overwritten."""
    return f"kfp-bento.promoted.{alias}.{number}"


def last_known_good_tag(alias: str) -> str:
    """Give the key, on the registered model, of the version to roll back to."""
    return f"kfp-bento.last-known-good.{alias}"


@dataclass(frozen=True)
class Act:
    """What moved an alias, as it is written down.

    Attributes:
        at: The time in UTC.
        by: Who did it: a user, or a pipeline run.
        why: The reason, for people; empty where the checks are it.
        image: The image reference with digest, or "".
        release: `ReleaseFacts.title` of the release that serves it, or "".
    """

    at: str
    by: str = ""
    why: str = ""
    image: str = ""
    release: str = ""

    @classmethod
    def now(cls, *, by: str = "", why: str = "", image: str = "", release: str = "") -> Act:
        """Give an act of this moment; a user of this machine does it where nobody is named."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        shown = (plain_text(text)[:_LONGEST_FACT] for text in (by or _user(), why, image, release))
        return cls(at, *shown)


def history_value(
    model_digest: str, reports: Sequence[CheckReport], previous: str, act: Act
) -> str:
    """Give one entry as compact ASCII JSON that fits into a tag.

    Args:
        model_digest: Digest of the version that got the alias.
        reports: Its checks.
        previous: The version that held the alias before, or "".
        act: Who moved it, when and why.
    """
    entry: dict[str, Any] = {
        **{name: value for name, value in asdict(act).items() if value or name == "image"},
        "previous": previous,
        "model_digest": model_digest,
        "checks": {report.name: _finite(report.measures) for report in reports},
    }
    if len(_compact(entry)) > _LONGEST_VALUE:
        entry["checks"] = sorted(entry["checks"])
    while len(_compact(entry)) > _LONGEST_VALUE and entry["checks"]:
        entry["checks"].pop()
        entry["checks_left_out"] = len(reports) - len(entry["checks"])
    return _compact(entry)


def write_entry(
    client: Any,
    name: str,
    version: str,
    alias: str,
    reports: Sequence[CheckReport],
    previous: str,
    act: Act,
    *,
    model_digest: str = "",
) -> str:
    """Write on a model version that it got an alias, and give the tag.

    Args:
        client: An `MlflowClient`.
        name: Registered model.
        version: Its version.
        alias: The alias.
        reports: The checks that allowed it.
        previous: The version that held the alias before, or "".
        act: Who moved it, when and why.
        model_digest: Digest of the version, where it is known.
    """
    tags = read_registered_version(client.get_model_version(name, version)).tags
    tag = history_tag(alias, max(history_entries(tags, alias), default=0) + 1)
    value = history_value(model_digest, reports, previous, act)
    client.set_model_version_tag(name, version, tag, value)
    return tag


def previous_version(value: str) -> str:
    """Give the version that held the alias before, as one entry remembers it."""
    try:
        return version_number(parse_json(value.encode()).get("previous", ""), "previous")
    except (ValueError, ModelError):  # whoever may write tags wrote something else
        return ""


def _user() -> str:
    with suppress(OSError, KeyError, ImportError):  # a uid that has no name
        return getpass.getuser()
    return ""


def _compact(entry: dict[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False)


def _finite(measures: Mapping[str, float]) -> dict[str, float | str]:
    return {name: value if math.isfinite(value) else str(value) for name, value in measures.items()}
