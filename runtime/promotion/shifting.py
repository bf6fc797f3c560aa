"""Shifting requests to a new image in steps, each of them checked, beside the last good one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks import CheckReport, ReleaseReports, check_release, load_given_reports
from kfp_bento.runtime.deployments import (
    TARGETS,
    Release,
    ReleaseFacts,
    Waiting,
    choose_mode,
    deploy,
    last_good_image,
    leave_release,
    wait_for_release,
)
from kfp_bento.runtime.errors import InvalidInput, PromotionRefused

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden

NAME = "shift_requests"


@dataclass(frozen=True)
class Shifting:
    """How requests are shifted.

    Attributes:
        steps: Percent of the requests that the new image gets, step by step, each from 1 to 99.
        soak_seconds: How long each step goes on before it is looked at once more.
        gates: Further checks at each step; see `check_release`.
        ready_seconds: How long the new pods may take to answer.
        mode: See `deploy`; nothing is shifted where nothing is applied.
        run: The pipeline run.
        waiting: How long a step may take to serve, and as long again the last good release.
    """

    steps: tuple[int, ...] = (10, 50)
    soak_seconds: float = 60.0
    gates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ready_seconds: float = 120.0
    mode: str = "auto"
    run: str = ""
    waiting: Waiting = field(default_factory=Waiting)

    def __post_init__(self) -> None:
        in_order = all(one < next_ for one, next_ in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not in_order or not all(0 < one < 100 for one in self.steps):
            raise InvalidInput(
                f"steps: {list(self.steps)} are no percents from 1 to 99 that grow.",
                hint="Give some such as [10, 50]; all requests follow with the release itself.",
            )


def shift_requests(
    render: Callable[[Mapping[str, Any]], Release],
    golden: Golden,
    directory: Path,
    shifting: Shifting,
) -> ReleaseReports:
    """Send a new image more and more of the requests, and check it at each step.

    At each step the image runs beside the last good one, is checked at an address of its own where
    the target gives it one, then left alone for a while and looked at once more. What does not pass
    is left for the last good release at once, and no further step is taken. Where nothing is
    applied to a cluster, or no other release was good before, there is nothing to shift.

    Args:
        render: Gives the release by further rendering options.
        golden: The golden answers of its bento.
        directory: Receives the manifests of each step, in a folder of its own.
        shifting: The steps.

    Returns:
        The reports of all steps, and what became of the release where one did not pass. The image
        has the requests of the last step only: what comes next deploys it whole.

    Raises:
        InvalidInput: The target cannot split requests, or an option cannot be honoured.
        DeploymentError: The cluster refused.
        CheckError: A check could not run.
    """
    whole = render({})
    canary = whole.target.canary
    if canary is None:
        can = [kind for kind, target in TARGETS.items() if target.canary]
        raise InvalidInput(
            f"target: {whole.target.kind} cannot split requests by percent.",
            hint=f"Those that can are {' and '.join(can)}; docs/releases.md says what each needs. "
            "serve_model brings a release out at once.",
        )
    facts = ReleaseFacts(
        whole.target.kind,
        "rendered",
        whole.name,
        whole.namespace,
        whole.revision,
        image=whole.image,
    )
    if choose_mode(shifting.mode) != "apply":
        return _nothing(facts, golden, "Nothing was shifted: no cluster is deployed to.")
    stable = last_good_image(facts)
    if not stable or stable == whole.image:
        return _nothing(facts, golden, "Nothing was shifted: no other release was good before.")
    found = ReleaseReports(facts, ())
    for percent in shifting.steps:
        release = render(canary.options(percent, stable))
        step = _step(release, golden, directory / str(percent), shifting)
        named = [replace(one, name=f"{one.name} at {percent} %") for one in step.reports]
        found = ReleaseReports(step.release, (*found.reports, *named), step.settled)
        if not step.passed:
            break
    return found


def require_passed(artifact: Any) -> None:
    """Refuse to go on where the reports of an optional input artifact did not pass.

    Raises:
        PromotionRefused: They did not; says what was found and what became of the release.
    """
    if artifact is None:
        return
    found = load_given_reports(artifact)
    for report in found.failed:
        raise PromotionRefused(
            f"The check {report.name!r} did not pass: {report.summary} {found.settled}",
            hint="Look at the report's evidence; nothing more was deployed.",
        )


def _step(release: Release, golden: Golden, directory: Path, shifting: Shifting) -> ReleaseReports:
    deployed = deploy(
        release,
        directory,
        mode="apply",
        waiting=shifting.waiting,
        roll_back_on_failure=True,
        run=shifting.run,
    )
    facts = replace(deployed.facts, url=release.canary_url)
    if facts.url or facts.failure:
        found = _checked(facts, golden, shifting, shifting.gates)
    else:
        found = ReleaseReports(facts, (_serves(facts, golden, "It serves its share."),))
    if found.passed and shifting.soak_seconds:
        time.sleep(shifting.soak_seconds)
        found = _looked_at_again(found, golden, shifting)
    return found


def _checked(
    facts: ReleaseFacts, golden: Golden, shifting: Shifting, gates: Mapping[str, Any]
) -> ReleaseReports:
    return check_release(
        facts,
        golden,
        gates=gates,
        ready_seconds=shifting.ready_seconds,
        waiting=shifting.waiting,
    )


def _looked_at_again(found: ReleaseReports, golden: Golden, shifting: Shifting) -> ReleaseReports:
    """Look at a step once more after a while: whether it still serves, and as it did."""
    facts = found.release
    verdict = wait_for_release(
        facts.name,
        target=facts.target,
        namespace=facts.namespace,
        waiting=replace(shifting.waiting, seconds=shifting.ready_seconds),
    )
    if not verdict.ready:
        settled = leave_release(facts, verdict.message, waiting=shifting.waiting)
        report = _serves(facts, golden, verdict.message, passed=False)
        return replace(found, reports=(*found.reports, report), settled=settled.message)
    if not facts.url:
        return found
    again = _checked(facts, golden, shifting, {})
    return again if again.failed else found


def _serves(
    facts: ReleaseFacts, golden: Golden, summary: str, *, passed: bool = True
) -> CheckReport:
    return CheckReport(
        NAME, passed, summary, {}, (), golden.digests, facts.url, facts.image, facts.title
    )


def _nothing(facts: ReleaseFacts, golden: Golden, why: str) -> ReleaseReports:
    return ReleaseReports(facts, (_serves(facts, golden, why),))
