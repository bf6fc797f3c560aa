"""Promoting models together, once the checks have passed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, PromotionError
from kfp_bento.runtime.files import KEY_VARIABLE
from kfp_bento.runtime.models import choose_tracking, speaking_to, tracking_client
from kfp_bento.runtime.promotion.history import (
    history_entries,
    history_tag,
    history_value,
    previous_version,
)
from kfp_bento.runtime.promotion.moving import move_together
from kfp_bento.runtime.promotion.standing import Standing, read_standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.models import ModelVersion

# Leaves room for the history tag's own words: the registry takes keys of 250 characters.
_ALIAS = re.compile(r"[\w-]{1,200}")


@dataclass(frozen=True)
class PromotedVersion:
    """What became of the alias of one registered model.

    Attributes:
        name: Registered model name.
        version: The version that holds the alias now.
        previous: The version that held it before, or "".
        changed: Whether this call moved the alias.
        history_tag: The tag on the model version that records the promotion, or "" where the
            alias had been set by someone else.
    """

    name: str
    version: str
    previous: str
    changed: bool
    history_tag: str


@dataclass(frozen=True)
class Promotion:
    """What became of an alias.

    Attributes:
        alias: The alias.
        models: What became of it on each registered model.
    """

    alias: str
    models: tuple[PromotedVersion, ...]

    @property
    def changed(self) -> bool:
        """Whether this call moved the alias of any model."""
        return any(model.changed for model in self.models)

    @property
    def versions(self) -> dict[str, str]:
        """The version that holds the alias now, by registered model."""
        return {model.name: model.version for model in self.models}

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as JSON-able data."""
        models = [asdict(model) for model in self.models]
        return {"alias": self.alias, "changed": self.changed, "models": models}


def promote_models(
    models: Sequence[ModelVersion],
    reports: Sequence[CheckReport],
    alias: str,
    *,
    image: str = "",
    tracking_uri: str = "",
) -> Promotion:
    """Set an alias to versions whose checks all passed, on all or on none, and write that down.

    Each alias must still be where it was when the models were resolved, which is looked at for all
    before the first one moves. If one cannot be moved, those that were are put back. This is
    check-then-set, not compare-and-set, since MLflow offers none: between the check and the setting
    there is a moment in which another writer is overwritten unnoticed. The aliases are read back
    afterwards.

    Repeating a promotion changes nothing. One that was killed half-way, between two models too, is
    completed by running it again.

    Args:
        models: The versions, as they were pulled.
        reports: The checks of exactly these models; at least one, all passed.
        alias: The alias to set on each, such as "champion".
        image: The image reference with digest that was checked; recorded only.
        tracking_uri: The tracking server; "" means the environment's.

    Raises:
        InvalidInput: The alias is not one the registry takes.
        PromotionError: The checks do not allow it, an alias moved meanwhile, or the registry
            did not do as asked.
    """
    _require_alias(alias)
    _require_registered(models)
    _require_passed(models, reports)
    tracking = choose_tracking(tracking_uri)
    with speaking_to(tracking, error=PromotionError):
        client = tracking_client(tracking, error=PromotionError)
        found = [read_standing(client, model, alias, str(tracking)) for model in models]
        for standing in found:
            _require_unmoved(standing, alias)
        move_together(client, [one for one in found if not one.is_promoted], alias, tracking)
        promoted = []
        for standing in found:
            history = _History(client, standing, reports, alias, image)
            promoted.append(
                _already_promoted(history) if standing.is_promoted else _promoted(history)
            )
    return Promotion(alias, tuple(promoted))


@dataclass(frozen=True)
class _History:
    """What is written down of one model's promotion, as a tag of its version."""

    client: Any
    standing: Standing
    reports: Sequence[CheckReport]
    alias: str
    image: str

    def write(self, previous: str) -> str:
        """Write an entry and give its tag."""
        model = self.standing.model
        number = max(history_entries(self.standing.tags, self.alias), default=0) + 1
        tag = history_tag(self.alias, number)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        value = history_value(model, self.reports, previous, self.image, at)
        self.client.set_model_version_tag(model.name, model.version, tag, value)
        return tag


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


def _require_registered(models: Sequence[ModelVersion]) -> None:
    if not models:
        raise PromotionError("There is no model to promote.", hint="Pull one first.")
    names: dict[str, ModelVersion] = {}
    for model in models:
        if not model.name or not model.version:
            raise PromotionError(
                f"{model.uri} is no registered version, so no alias can point to it.",
                hint="Register the model and pull it as models:/NAME/VERSION. A record that came "
                f"with the files does not count, unless {KEY_VARIABLE} is the same where it was "
                "written.",
            )
        if (other := names.setdefault(model.name, model)) is not model:
            raise PromotionError(
                f"Versions {other.version} and {model.version} of {model.name!r} cannot both hold "
                "one alias, so the models cannot be promoted together.",
                hint="Give one a registered name of its own, and pull it under that: MlflowClient()"
                f".copy_model_version('models:/{model.name}/{model.version}', 'NEW_NAME').",
            )


def _require_passed(models: Sequence[ModelVersion], reports: Sequence[CheckReport]) -> None:
    if not reports:
        raise PromotionError(
            "There are no check reports, so nothing says that the models may be promoted.",
            hint="Run smoke_test and compare_predictions and hand their reports on.",
        )
    digests = {model.digest: model for model in models}
    for report in reports:
        if not report.passed:
            raise PromotionError(
                f"The check {report.name!r} did not pass: {report.summary}",
                hint="Look at the report's evidence; nothing was changed in the registry.",
            )
        checked = set(report.model_digests)
        if checked != digests.keys():
            missing = [one for digest, one in digests.items() if digest not in checked]
            raise PromotionError(
                f"The check {report.name!r} is about other models: "
                f"{', '.join(report.model_digests) or '(no digest)'}, "
                + (
                    f"not {_named(missing[0])}." if missing else "which are more than are promoted."
                ),
                hint="Run the checks for exactly the models that are to be promoted.",
            )


def _named(model: ModelVersion) -> str:
    return f"version {model.version} of {model.name!r} ({model.digest})"


def _require_unmoved(standing: Standing, alias: str) -> None:
    model, current = standing.model, standing.current
    expected = model.aliases.get(alias, "")
    if not standing.is_promoted and current != expected:
        raise PromotionError(
            f"The alias {alias!r} of {model.name!r} moved while version {model.version} was "
            f"being checked: it was on {_version(expected)} and is on {_version(current)} now.",
            hint="Look who moved it; pull again and repeat the checks if this is still wanted.",
        )


def _version(version: str) -> str:
    return f"version {version}" if version else "no version"


def _promoted(history: _History) -> PromotedVersion:
    model, previous = history.standing.model, history.standing.current
    return PromotedVersion(model.name, model.version, previous, True, history.write(previous))


def _already_promoted(history: _History) -> PromotedVersion:
    model = history.standing.model
    entries = history_entries(history.standing.tags, history.alias)
    before = model.aliases.get(history.alias, "")
    tag = previous = ""
    if entries:
        number, value = list(entries.items())[-1]
        tag, previous = history_tag(history.alias, number), previous_version(value)
    elif before != model.version:
        # It moved after the model was resolved, and nobody wrote that down: an earlier try of
        # this very promotion was killed between the two.
        tag, previous = history.write(before), before
    return PromotedVersion(model.name, model.version, previous, False, tag)
