"""A person's word before an alias moves: what is asked, how it is answered, who waits for it.

Question and answer are tags on the model version, so that an approval needs nothing but the
registry, and stays there as evidence. Whoever may write tags of the version may approve it: the
registry's permissions decide, not the name that an answer gives.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from kfp_bento.runtime.checks import CheckReport, ReleaseReports, load_given_reports
from kfp_bento.runtime.errors import InvalidInput, PromotionError, PromotionRefused, plain_text
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.models import (
    choose_tracking,
    missing_as,
    parse_model_uri,
    read_registered_version,
    speaking_to,
    tracking_client,
)
from kfp_bento.runtime.promotion.history import Act
from kfp_bento.runtime.promotion.standing import read_standing

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import ReleaseFacts
    from kfp_bento.runtime.models import ModelVersion

APPROVAL = "approval"
"""Name of the report, for those who require it."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DECISIONS = ("approved", "refused")
_LONGEST_TEXT = 2000
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Decision:
    """What a person decided about one model version, one alias and one image.

    Attributes:
        decision: `approved` or `refused`.
        image: Digest of the image, sha256:…; the decision is about no other.
        by: Who decided, as that person's machine names them.
        at: The time in UTC.
        why: The reason; may be empty.
    """

    decision: str
    image: str
    by: str
    at: str
    why: str = ""

    @property
    def approved(self) -> bool:
        """Whether it is a yes."""
        return self.decision == "approved"


@dataclass(frozen=True)
class Question:
    """What a waiting step asks.

    Attributes:
        image: Digest of the image.
        release: `ReleaseFacts.title` of the release on trial.
        until: The deadline in UTC.
    """

    image: str
    release: str
    until: str


Tag = TypeVar("Tag", bound="Decision | Question")


def approval_tag(alias: str) -> str:
    """Give the key, on a model version, of a decision about an alias."""
    return f"kfp-bento.approval.{alias}"


def question_tag(alias: str) -> str:
    """Give the key, on a model version, of what is asked about an alias."""
    return f"kfp-bento.approval-asked.{alias}"


def decide(
    models: Sequence[str],
    alias: str,
    *,
    image: str = "",
    refuse: bool = False,
    why: str = "",
    tracking_uri: str = "",
) -> dict[str, Decision]:
    """Write down, on each model version, that an image may or may not be promoted with it.

    Args:
        models: Versions as models:/NAME/VERSION.
        alias: The alias that is to move.
        image: The image, by digest or as a reference with one; "" takes what a run asks about.
        refuse: Say no.
        why: The reason, for the history.
        tracking_uri: The tracking server; "" means the environment's.

    Returns:
        The decisions by URI.

    Raises:
        InvalidInput: A URI names no version, the image has no digest, or nothing asks.
        PromotionError: There is no such version, or the registry did not do as asked.
    """
    versions = {uri: _version_of(uri) for uri in models}
    given = _digest_of(image) if image else ""
    tracking = choose_tracking(tracking_uri)
    with speaking_to(tracking, error=PromotionError):
        client = tracking_client(tracking, error=PromotionError)
        about = {
            uri: given or _asked(_tags(client, *version), uri, alias)
            for uri, version in versions.items()
        }
        act = Act.now(why=why)
        made = {
            uri: Decision(_DECISIONS[refuse], digest, act.by, act.at, act.why)
            for uri, digest in about.items()
        }
        for uri, decision in made.items():
            with _known(uri):
                client.set_model_version_tag(
                    *versions[uri], approval_tag(alias), _compact(decision)
                )
    return made


def await_approval(
    models: Sequence[ModelVersion],
    checked: ReleaseReports,
    alias: str,
    *,
    seconds: float,
    poll_seconds: float = 10.0,
    tracking_uri: str = "",
    progress: Callable[[str], None] = lambda line: None,
) -> ReleaseReports:
    """Wait until each model version carries a decision about the release's image.

    A decision that is there already counts: an image is what it is by its digest, and a run that
    is repeated asks nobody twice. Where the checks did not pass nobody is asked at all.

    Args:
        models: The versions, as they were pulled.
        checked: What the checks found; it names the release.
        alias: The alias that is to move.
        seconds: How long to wait.
        poll_seconds: Seconds between two looks at the registry.
        tracking_uri: The tracking server; "" means the environment's.
        progress: Told what is asked, and how to answer.

    Returns:
        One report, `approval`; it did not pass where somebody refused, or nobody approved in time.

    Raises:
        InvalidInput: There is no time to wait.
        PromotionError: The registry cannot be read at the beginning.
    """
    if seconds <= 0 or poll_seconds <= 0:
        raise InvalidInput(
            f"An approval cannot be waited for {seconds:g} s, looking each {poll_seconds:g} s.",
            hint="Give seconds and poll_seconds more than 0; approval_seconds=0 asks nobody.",
        )
    release = checked.release
    if not checked.passed:
        return _answer(models, release, False, "Nobody was asked: a check did not pass.")
    if not _DIGEST.fullmatch(_digest_part(release.image)):
        return _answer(models, release, False, f"{release.title} has no image by digest.")
    wait = _Wait(models, checked, alias, seconds, poll_seconds, choose_tracking(tracking_uri))
    with speaking_to(wait.tracking, error=PromotionError):
        wait.client = tracking_client(wait.tracking, error=PromotionError)
        try:
            return wait.run(progress)
        except PromotionRefused as refusal:  # the registry holds another model there by now
            return _answer(models, release, False, refusal.message)


def load_given_approval(artifact: Any) -> ReleaseReports | None:
    """Read the approval of an optional input artifact; None where there is no artifact."""
    return None if artifact is None else load_given_reports(artifact)


@dataclass
class _Wait:
    """One wait for the decisions about one release."""

    models: Sequence[ModelVersion]
    checked: ReleaseReports
    alias: str
    seconds: float
    poll_seconds: float
    tracking: Any
    client: Any = None

    def run(self, progress: Callable[[str], None]) -> ReleaseReports:
        began = time.monotonic()
        found = self.decisions()
        if not self.settled(found):
            self.ask(progress)
            try:
                found = self.wait(began + self.seconds, progress)
            finally:
                self.withdraw()
        return self.report(found, time.monotonic() - began)

    def wait(self, deadline: float, progress: Callable[[str], None]) -> dict[str, Decision]:
        """Look until the decisions settle it, or the time is over; a last time at its end."""
        trouble = ""
        while True:
            left = deadline - time.monotonic()
            time.sleep(max(0.0, min(self.poll_seconds, left)))
            found, now = self.look()
            if now and now != trouble:
                progress(now)
            trouble = now
            if left <= 0 or self.settled(found):
                return found

    def look(self) -> tuple[dict[str, Decision], str]:
        """Give the decisions, or what is wrong with the registry: it may be away for a while."""
        try:
            return self.decisions(), ""
        except PromotionRefused:
            raise
        except Exception as failure:
            return {}, f"The registry cannot be read: {failure}"

    def decisions(self) -> dict[str, Decision]:
        """Read what was decided about this very image, by the URI of the version."""
        found = {}
        for model in self.models:
            tags = read_standing(self.client, model, self.alias, str(self.tracking)).tags
            decision = _read(Decision, tags.get(approval_tag(self.alias), ""))
            if decision is not None and decision.image == self.image:
                found[_uri(model)] = decision
        return found

    def settled(self, found: Mapping[str, Decision]) -> bool:
        """Whether somebody refused, or all versions are approved."""
        refused = any(not decision.approved for decision in found.values())
        return refused or len(found) == len(self.models)

    def ask(self, progress: Callable[[str], None]) -> None:
        until = (datetime.now(UTC) + timedelta(seconds=self.seconds)).strftime(_TIME)
        question = Question(self.image, self.checked.release.title, until)
        for model in self.models:
            self.client.set_model_version_tag(
                model.name, model.version, question_tag(self.alias), _compact(question)
            )
        progress(self.text(until))

    def withdraw(self) -> None:
        """Take the question back, so that nobody answers a run that is over."""
        for model in self.models:
            with suppress(Exception):  # its deadline says the same
                self.client.delete_model_version_tag(
                    model.name, model.version, question_tag(self.alias)
                )

    def report(self, found: Mapping[str, Decision], waited: float) -> ReleaseReports:
        release, missing = self.checked.release, len(found) < len(self.models)
        refused = [one for one in found.values() if not one.approved]
        if refused:
            summary = f"Refused by {_told(refused)}."
        elif missing:
            summary = f"Nobody approved within {self.seconds:g} s."
        else:
            summary = f"Approved by {_told([*found.values()])}."
        evidence = [{"model": uri} | asdict(one) for uri, one in found.items()]
        passed = not refused and not missing
        return _answer(self.models, release, passed, summary, evidence, waited_seconds=waited)

    @property
    def image(self) -> str:
        return _digest_part(self.checked.release.image)

    def text(self, until: str) -> str:
        """Say what is asked, and the two commands that answer."""
        release, uris = self.checked.release, [_uri(model) for model in self.models]
        command = shlex.join(
            ["kfp-bento", "approve", *uris, "--alias", self.alias, "--image", self.image]
        )
        checks = "; ".join(f"{one.name}: {one.summary}" for one in self.checked.reports)
        lines = (
            f"Waiting until {until} for a person to approve that {self.alias!r} moves.",
            f"  models   {', '.join(uris)}",
            f"  image    {release.image}",
            f"  release  {release.title} {release.url}",
            f"  checks   {checks}",
            f"  approve: {command}",
            f"  refuse:  {command} --refuse",
        )
        return "\n".join(plain_text(line) for line in lines)


def _answer(
    models: Sequence[ModelVersion],
    release: ReleaseFacts,
    passed: bool,
    summary: str,
    evidence: Sequence[dict[str, Any]] = (),
    **measures: float,
) -> ReleaseReports:
    report = CheckReport(
        name=APPROVAL,
        passed=passed,
        summary=summary,
        measures=measures,
        evidence=tuple(evidence),
        model_digests=tuple(model.digest for model in models),
        url=release.url,
        image=release.image,
        release=release.title,
    )
    return ReleaseReports(release, (report,))


def _told(decisions: Sequence[Decision]) -> str:
    """Say who decided, when and why; once where it was one act for several models."""
    return "; ".join(
        dict.fromkeys(
            f"{one.by or 'somebody'} at {one.at}" + (f" ({one.why})" if one.why else "")
            for one in decisions
        )
    )


def _asked(tags: Mapping[str, str], uri: str, alias: str) -> str:
    question = _read(Question, tags.get(question_tag(alias), ""))
    if question is None:
        raise InvalidInput(
            f"No run asks for an approval of {uri} for {alias!r}.",
            hint="Name the image by digest to approve it beforehand: --image sha256:…",
        )
    if question.until < datetime.now(UTC).strftime(_TIME):
        raise InvalidInput(
            f"The run that asked about {uri} for {alias!r} waited until {question.until}.",
            hint=f"Run it again; --image {question.image} approves it beforehand.",
        )
    return _digest_of(question.image)


def _read(kind: type[Tag], value: str) -> Tag | None:
    """Read a tag that whoever may write tags has written; None where it is no such thing."""
    try:
        told = parse_json(value.encode())
        made = kind(**{name: told[name] for name in kind.__dataclass_fields__ if name in told})
    except (ValueError, TypeError, KeyError):
        return None
    texts = [*asdict(made).values()]
    if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts):
        return None
    known = not isinstance(made, Decision) or made.decision in _DECISIONS
    return made if known and _DIGEST.fullmatch(made.image) else None


def _compact(made: Decision | Question) -> str:
    return json.dumps(asdict(made), separators=(",", ":"))


def _tags(client: Any, name: str, version: str) -> dict[str, str]:
    with _known(_uri_of(name, version)):
        return read_registered_version(client.get_model_version(name, version)).tags


def _known(uri: str) -> Any:
    return missing_as(
        f"There is no {uri} in the registry.",
        hint="The log of the waiting step shows the command.",
        error=PromotionError,
    )


def _version_of(uri: str) -> tuple[str, str]:
    parsed = parse_model_uri(uri)
    if parsed.kind != "version":
        raise InvalidInput(
            f"{uri} names no version, and an approval is of exactly one.",
            hint="Write models:/NAME/VERSION.",
        )
    return parsed.name, parsed.version


def _digest_of(image: str) -> str:
    digest = _digest_part(image)
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(
            f"{image!r} names no image by digest.", hint="Write sha256:… or REPOSITORY@sha256:…"
        )
    return digest


def _digest_part(image: str) -> str:
    return image.rpartition("@")[2]


def _uri(model: ModelVersion) -> str:
    return _uri_of(model.name, model.version)


def _uri_of(name: str, version: str) -> str:
    return f"models:/{name}/{version}"
