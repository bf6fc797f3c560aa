"""Moving an alias, once the checks have passed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, PromotionError
from kfp_bento.runtime.files import KEY_VARIABLE
from kfp_bento.runtime.models import (
    choose_tracking,
    missing_as,
    read_registered_model,
    read_registered_version,
    speaking_to,
    tracking_client,
    without_password,
)
from kfp_bento.runtime.promotion.history import (
    history_entries,
    history_tag,
    history_value,
    last_known_good_tag,
    previous_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.models import ModelVersion

# Leaves room for the history tag's own words: the registry takes keys of 250 characters.
_ALIAS = re.compile(r"[\w-]{1,200}")


@dataclass(frozen=True)
class Promotion:
    """What became of an alias.

    Attributes:
        name: Registered model name.
        version: The version that holds the alias now.
        alias: The alias.
        previous: The version that held it before, or "".
        changed: Whether this call moved the alias.
        history_tag: The tag on the model version that records the promotion, or "" where the
            alias had been set by someone else.
    """

    name: str
    version: str
    alias: str
    previous: str
    changed: bool
    history_tag: str

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as JSON-able data."""
        return asdict(self)


def promote_model(
    model: ModelVersion,
    reports: Sequence[CheckReport],
    alias: str,
    *,
    image: str = "",
    tracking_uri: str = "",
) -> Promotion:
    """Set an alias to a version whose checks all passed, and write down that it did.

    The alias must still be where it was when the model was resolved. This is check-then-set,
    not compare-and-set, since MLflow offers none: between the check and the setting there is a
    moment in which another writer is overwritten unnoticed. The alias is read back afterwards.

    Repeating a promotion changes nothing. One that was killed half-way is completed by running
    it again.

    Args:
        model: The version, as it was pulled.
        reports: The checks of exactly this model; at least one, all passed.
        alias: The alias to set, such as "champion".
        image: The image reference with digest that was checked; recorded only.
        tracking_uri: The tracking server; "" means the environment's.

    Raises:
        InvalidInput: The alias is not one the registry takes.
        PromotionError: The checks do not allow it, the alias moved meanwhile, or the registry
            did not do as asked.
    """
    _require_alias(alias)
    _require_registered(model)
    _require_passed(model, reports)
    tracking = choose_tracking(tracking_uri)
    with speaking_to(tracking, error=PromotionError):
        client = tracking_client(tracking, error=PromotionError)
        current = _holder(client, model, alias)
        tags = _tags(client, model, str(tracking))

        def write_history(previous: str) -> str:
            tag = history_tag(alias, max(history_entries(tags, alias), default=0) + 1)
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            value = history_value(model, reports, previous, image, at)
            client.set_model_version_tag(model.name, model.version, tag, value)
            return tag

        if current == model.version:
            return _already_promoted(model, alias, tags, write_history)
        _require_unmoved(model, alias, current)
        if current:
            # Before the alias: until it moves, its holder is what one would roll back to.
            client.set_registered_model_tag(model.name, last_known_good_tag(alias), current)
        client.set_registered_model_alias(model.name, alias, model.version)
        _require_held(client, model, alias)
        tag = write_history(current)
    return Promotion(model.name, model.version, alias, current, True, tag)


def _require_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias):
        raise InvalidInput(
            f"{alias!r} is not an alias.",
            hint="Use up to 200 letters, digits, underscores and dashes.",
        )
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise InvalidInput(
            f"The alias {alias!r} is reserved by MLflow.", hint="Choose one such as 'champion'."
        )


def _require_registered(model: ModelVersion) -> None:
    if not model.name or not model.version:
        raise PromotionError(
            f"{model.uri} is no registered version, so no alias can point to it.",
            hint="Register the model and pull it as models:/NAME/VERSION. A record that came with "
            f"the files does not count, unless {KEY_VARIABLE} is the same where it was written.",
        )


def _require_passed(model: ModelVersion, reports: Sequence[CheckReport]) -> None:
    if not reports:
        raise PromotionError(
            "There are no check reports, so nothing says that the model may be promoted.",
            hint="Run smoke_test and compare_predictions and hand their reports on.",
        )
    for report in reports:
        if not report.passed:
            raise PromotionError(
                f"The check {report.name!r} did not pass: {report.summary}",
                hint="Look at the report's evidence; nothing was changed in the registry.",
            )
        if model.digest not in report.model_digests:
            raise PromotionError(
                f"The check {report.name!r} is about another model: "
                f"{', '.join(report.model_digests) or '(no digest)'}, not {model.digest}.",
                hint="Run the checks for the model that is to be promoted.",
            )


def _holder(client: Any, model: ModelVersion, alias: str) -> str:
    with missing_as(
        f"There is no registered model {model.name!r}.",
        hint="Promote on the tracking server that the model was pulled from.",
        error=PromotionError,
    ):
        answer = client.get_registered_model(model.name)
    return read_registered_model(answer).aliases.get(alias, "")


def _tags(client: Any, model: ModelVersion, where: str) -> dict[str, str]:
    with missing_as(
        f"Version {model.version} of {model.name!r} does not exist any more.",
        hint="Pull and check a version that does.",
        error=PromotionError,
    ):
        answer = client.get_model_version(model.name, model.version)
    found = read_registered_version(answer)
    source = without_password(found.source)
    if source != model.source:
        raise PromotionError(
            f"Version {model.version} of {model.name!r} on {where} is another model than the one "
            f"that was checked: its source is {source}, not {model.source}.",
            hint="Promote on the tracking server that the model was pulled from.",
        )
    return found.tags


def _require_unmoved(model: ModelVersion, alias: str, current: str) -> None:
    expected = model.aliases.get(alias, "")
    if current != expected:
        raise PromotionError(
            f"The alias {alias!r} of {model.name!r} moved while version {model.version} was "
            f"being checked: it was on {_version(expected)} and is on {_version(current)} now.",
            hint="Look who moved it; pull again and repeat the checks if this is still wanted.",
        )


def _require_held(client: Any, model: ModelVersion, alias: str) -> None:
    current = _holder(client, model, alias)
    if current != model.version:
        raise PromotionError(
            f"The alias {alias!r} of {model.name!r} was set to version {model.version} but reads "
            f"back as {_version(current)}.",
            hint="Somebody else is moving it at the same time; find out who, then run again.",
        )


def _already_promoted(
    model: ModelVersion, alias: str, tags: Mapping[str, str], write_history: Callable[[str], str]
) -> Promotion:
    entries = history_entries(tags, alias)
    before = model.aliases.get(alias, "")
    tag = previous = ""
    if entries:
        number, value = list(entries.items())[-1]
        tag, previous = history_tag(alias, number), previous_version(value)
    elif before != model.version:
        # It moved after the model was resolved, and nobody wrote that down: an earlier try of
        # this very promotion was killed between the two.
        tag, previous = write_history(before), before
    return Promotion(model.name, model.version, alias, previous, False, tag)


def _version(version: str) -> str:
    return f"version {version}" if version else "no version"
