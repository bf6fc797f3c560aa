"""Promoting models together with the release that serves them, once the checks have passed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks import NAMES
from kfp_bento.runtime.deployments import Waiting, confirm_release, end_promotion, leave_release
from kfp_bento.runtime.errors import (
    InvalidInput,
    KfpBentoError,
    NotServed,
    PromotionError,
    PromotionRefused,
)
from kfp_bento.runtime.files import KEY_VARIABLE
from kfp_bento.runtime.models import choose_tracking, speaking_to, tracking_client
from kfp_bento.runtime.promotion.approval import APPROVAL
from kfp_bento.runtime.promotion.history import (
    Act,
    history_entries,
    history_tag,
    previous_version,
    write_entry,
)
from kfp_bento.runtime.promotion.moving import move_together
from kfp_bento.runtime.promotion.pending import Pending, complete_pending
from kfp_bento.runtime.promotion.standing import Standing, read_standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp_bento.runtime.checks import CheckReport, ReleaseReports
    from kfp_bento.runtime.deployments import ReleaseFacts, Settlement
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
    """What became of an alias, and of the release.

    Attributes:
        alias: The alias.
        models: What became of it on each registered model.
        release: What became of the release, in a sentence; empty where only aliases moved.
    """

    alias: str
    models: tuple[PromotedVersion, ...]
    release: str = ""

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
        return {
            "alias": self.alias,
            "changed": self.changed,
            "models": models,
            "release": self.release,
        }


def promote_models(
    models: Sequence[ModelVersion],
    reports: Sequence[CheckReport],
    alias: str,
    *,
    release: ReleaseFacts | None = None,
    required: Sequence[str] = (),
    image: str = "",
    tracking_uri: str = "",
    by: str = "",
    why: str = "",
    waiting: Waiting | None = None,
) -> Promotion:
    """Set an alias to versions whose checks all passed, on all or on none, and write that down.

    With a release it is one act: the release is confirmed as good, then the aliases move; where
    that is refused, the last good one comes back. Repeating it completes what was cut short.

    Each alias must still be where it was when the models were resolved, which is looked at for all
    before the first one moves. If one cannot be moved, those that were are put back. This is
    check-then-set, as MLflow has no compare-and-set. Aliases are read back afterwards.

    Args:
        models: The versions, as they were pulled.
        reports: The checks of exactly these models; at least one, all passed.
        alias: The alias to set on each, such as "champion".
        release: The release that each report has to be about; None moves aliases alone.
        required: Checks that must be among the reports, such as "smoke" or "replay".
        image: The image that was checked, where no release is given.
        tracking_uri: The tracking server; "" means the environment's.
        by: Who promotes; "" takes the user of this machine.
        why: The reason, for the history.
        waiting: How long the last good release may take.

    Raises:
        InvalidInput: The alias is not one the registry takes.
        PromotionRefused: The checks do not allow it, an alias moved, or another image answers.
        PromotionError: The registry did not do as asked.
        DeploymentError: The release is not what is applied any more.
    """
    _require_alias(alias)
    tracking = choose_tracking(tracking_uri)
    try:
        _require_registered(models)
        _require_passed(models, reports, required)
        _require_about(release, reports)
        found = _standings(models, alias, tracking)
        pending = Pending.of(alias, found)
        told = confirm_release(release, promotion=pending.note).message if release else ""
    except (PromotionRefused, NotServed) as refusal:
        if release is None:
            raise
        raise _left(refusal, release, waiting or Waiting(), tracking_uri, by) from refusal
    title, image = (release.title, release.image) if release else ("", image)
    act = Act.now(by=by, why=why, image=image, release=title)
    promoted = _moved(found, reports, alias, act, tracking)
    if release is not None:
        end_promotion(release, pending.note)
    return Promotion(alias, promoted, told)


def _moved(
    found: Sequence[Standing], reports: Sequence[CheckReport], alias: str, act: Act, tracking: Any
) -> tuple[PromotedVersion, ...]:
    with speaking_to(tracking, error=PromotionError):
        client = tracking_client(tracking, error=PromotionError)
        move_together(client, [one for one in found if not one.is_promoted], alias, tracking)
        promoted = []
        for standing in found:
            history = _History(client, standing, reports, alias, act)
            promoted.append(
                _already_promoted(history) if standing.is_promoted else _promoted(history)
            )
    return tuple(promoted)


def promote_release(
    models: Sequence[ModelVersion],
    checked: ReleaseReports,
    alias: str,
    *,
    required: Sequence[str],
    approval: ReleaseReports | None = None,
    tracking_uri: str = "",
    by: str = "",
    why: str = "",
    waiting: Waiting | None = None,
) -> Promotion:
    """Promote models with the release that their reports are about; see `promote_models`.

    An approval counts like a check, and is required where it was asked for. Where no other reason
    is given the history says who approved.
    """
    given = approval.reports if approval is not None else ()
    return promote_models(
        models,
        (*checked.reports, *given),
        alias,
        release=checked.release,
        required=(*required, APPROVAL) if approval is not None else required,
        tracking_uri=tracking_uri,
        by=by,
        why=why or " ".join(report.summary for report in given),
        waiting=waiting,
    )


def confirm_checked(
    checked: ReleaseReports, required: Sequence[str], *, waiting: Waiting | None = None
) -> Settlement:
    """Keep a release as the good one where all checks passed that are required.

    Raises:
        PromotionRefused: They did not, one is missing, or what answers is not the release; the
            last good one is back.
        DeploymentError: The release is not what is applied any more.
    """
    release = checked.release
    try:
        _require_all_passed(checked.reports)
        _require_named(checked.reports, required)
        _require_about(release, checked.reports)
        return confirm_release(release)
    except (PromotionRefused, NotServed) as refusal:
        settled = leave_release(release, refusal.message, waiting=waiting or Waiting())
        raise _with_end(refusal, release, settled.message) from refusal


def run_name(run: str) -> str:
    """Give who acts, as the history names a pipeline run; "" where there is none."""
    return f"pipeline run {run}" if run else ""


def _standings(models: Sequence[ModelVersion], alias: str, tracking: Any) -> list[Standing]:
    with speaking_to(tracking, error=PromotionError):
        client = tracking_client(tracking, error=PromotionError)
        found = [read_standing(client, model, alias, str(tracking)) for model in models]
    for standing in found:
        _require_unmoved(standing, alias)
    return found


def _left(
    refusal: KfpBentoError, release: ReleaseFacts, waiting: Waiting, tracking_uri: str, by: str
) -> PromotionRefused:
    """Bring the last good release back, and say so with the refusal."""
    settled = leave_release(release, refusal.message, waiting=waiting)
    completed = complete_pending(release, tracking_uri, by=by)
    return _with_end(refusal, release, settled.message, completed)


def _with_end(refusal: KfpBentoError, release: ReleaseFacts, *told: str) -> PromotionRefused:
    """Add to a refusal what became of the release."""
    end = " ".join(text for text in told if text)
    return PromotionRefused(
        f"{refusal.message} The release {release.namespace}/{release.name}: {end}",
        hint=refusal.hint,
    )


@dataclass(frozen=True)
class _History:
    """What is written down of one model's promotion, as a tag of its version."""

    client: Any
    standing: Standing
    reports: Sequence[CheckReport]
    alias: str
    act: Act

    def write(self, previous: str) -> str:
        """Write an entry and give its tag."""
        model = self.standing.model
        return write_entry(
            self.client,
            model.name,
            model.version,
            self.alias,
            self.reports,
            previous,
            self.act,
            model_digest=model.digest,
        )


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
        raise PromotionRefused("There is no model to promote.", hint="Pull one first.")
    names: dict[str, ModelVersion] = {}
    for model in models:
        if not model.name or not model.version:
            raise PromotionRefused(
                f"{model.uri} is no registered version, so no alias can point to it.",
                hint="Register the model and pull it as models:/NAME/VERSION. A record that came "
                f"with the files does not count, unless {KEY_VARIABLE} is the same where it was "
                "written.",
            )
        if (other := names.setdefault(model.name, model)) is not model:
            raise PromotionRefused(
                f"Versions {other.version} and {model.version} of {model.name!r} cannot both hold "
                "one alias, so the models cannot be promoted together.",
                hint="Give one a registered name of its own, and pull it under that: MlflowClient()"
                f".copy_model_version('models:/{model.name}/{model.version}', 'NEW_NAME').",
            )


def _require_passed(
    models: Sequence[ModelVersion], reports: Sequence[CheckReport], required: Sequence[str]
) -> None:
    _require_all_passed(reports)
    digests = {model.digest: model for model in models}
    for report in reports:
        checked = set(report.model_digests)
        if checked != digests.keys():
            missing = [one for digest, one in digests.items() if digest not in checked]
            raise PromotionRefused(
                f"The check {report.name!r} is about other models: "
                f"{', '.join(report.model_digests) or '(no digest)'}, "
                + (
                    f"not {_named(missing[0])}." if missing else "which are more than are promoted."
                ),
                hint="Run the checks for exactly the models that are to be promoted.",
            )
    _require_named(reports, required)


def _require_all_passed(reports: Sequence[CheckReport]) -> None:
    if not reports:
        raise PromotionRefused(
            "There are no check reports, so nothing says that it may be promoted.",
            hint="Run check_release and hand its reports on.",
        )
    for report in reports:
        if not report.passed:
            raise PromotionRefused(
                f"The check {report.name!r} did not pass: {report.summary}",
                hint="Look at the report's evidence; nothing was changed in the registry.",
            )


def _require_named(reports: Sequence[CheckReport], required: Sequence[str]) -> None:
    made = {report.name for report in reports}
    for name in required:
        if NAMES.get(name, name) not in made:
            raise PromotionRefused(
                f"The check {name!r} is required, and there is no report of it.",
                hint="Ask check_release for it, in its gates. "
                f"There are: {', '.join(sorted(made))}.",
            )


def _require_about(release: ReleaseFacts | None, reports: Sequence[CheckReport]) -> None:
    if release is None:
        return
    for report in reports:
        if (report.release, report.image) != (release.title, release.image):
            raise PromotionRefused(
                f"The check {report.name!r} is about another release: "
                f"{report.release or report.url}, not {release.title}.",
                hint="Run the checks for exactly the release that is to be promoted.",
            )


def _named(model: ModelVersion) -> str:
    return f"version {model.version} of {model.name!r} ({model.digest})"


def _require_unmoved(standing: Standing, alias: str) -> None:
    model, current = standing.model, standing.current
    expected = model.aliases.get(alias, "")
    if not standing.is_promoted and current != expected:
        raise PromotionRefused(
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
