"""The record of promotions that is kept as tags in the registry itself."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.models import version_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.models import ModelVersion

# MLflow allows 100 000 characters today; servers up to 2.x and their databases allow 5 000.
_LONGEST_VALUE = 5000
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


def history_value(
    model: ModelVersion, reports: Sequence[CheckReport], previous: str, image: str, at: str
) -> str:
    """Give one entry as compact ASCII JSON that fits into a tag.

    Args:
        model: The version that was promoted.
        reports: Its checks.
        previous: The version that held the alias before, or "".
        image: The image reference with digest, or "".
        at: The time in UTC.
    """
    entry: dict[str, Any] = {
        "at": at,
        "previous": previous,
        "image": image,
        "model_digest": model.digest,
        "checks": {report.name: _finite(report.measures) for report in reports},
    }
    if len(_compact(entry)) > _LONGEST_VALUE:
        entry["checks"] = sorted(entry["checks"])
    while len(_compact(entry)) > _LONGEST_VALUE and entry["checks"]:
        entry["checks"].pop()
        entry["checks_left_out"] = len(reports) - len(entry["checks"])
    return _compact(entry)


def previous_version(value: str) -> str:
    """Give the version that held the alias before, as one entry remembers it."""
    try:
        return version_number(parse_json(value.encode()).get("previous", ""), "previous")
    except (ValueError, ModelError):  # whoever may write tags wrote something else
        return ""


def _compact(entry: dict[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False)


def _finite(measures: Mapping[str, float]) -> dict[str, float | str]:
    return {name: value if math.isfinite(value) else str(value) for name, value in measures.items()}
