"""Checking a release on trial: one check after the other, and back if one does not pass.

What each check found outlives the run that fails because of it: Kubeflow drops all outputs of a
failed step, so the step that checks ends well, and the one that would promote fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.check_report import CheckReport
from kfp_bento.runtime.checks.comparison import compare_predictions
from kfp_bento.runtime.checks.contract import check_contract, contract_of
from kfp_bento.runtime.checks.load import load_test
from kfp_bento.runtime.checks.load_options import LoadOptions
from kfp_bento.runtime.checks.metrics_gate import MetricsGate
from kfp_bento.runtime.checks.release_reports import ReleaseReports
from kfp_bento.runtime.checks.smoke import smoke_test
from kfp_bento.runtime.deployments import (
    ReleaseFacts,
    Waiting,
    keep_contract,
    kept_contract,
    leave_release,
    served_release,
)
from kfp_bento.runtime.errors import CheckError, InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden


@dataclass(frozen=True)
class Gate:
    """A further check of a release.

    Attributes:
        read: Reads its options; what is wrong with one is an `InvalidInput` that names it.
        run: Carries it out, with the options as they were read.
    """

    read: Callable[[Mapping[str, Any]], Any]
    run: Callable[[ReleaseFacts, Golden, Any], CheckReport]


REPLAY_SECONDS = 60.0
NAMES = {
    "smoke": "smoke_test",
    "served": "served_image",
    "replay": "compare_predictions",
    "load": "load_test",
    "contract": "check_contract",
    "metrics": "check_metrics",
}
"""Short names of checks, as pipelines and commands take them, and the names of their reports."""


def check_release(
    release: ReleaseFacts,
    golden: Golden,
    *,
    gates: Mapping[str, Mapping[str, Any]] | None = None,
    others: Sequence[CheckReport] = (),
    ready_seconds: float = 120.0,
    leave: bool = True,
    waiting: Waiting | None = None,
) -> ReleaseReports:
    """Check a release on trial: that it is ready, its answers, and whatever else is asked for.

    The checks run in order, and the first that does not pass is the last: a gate costs nothing
    where it is not wanted, and none loads a service that answers wrongly. A release that was
    refused is left for the last good one at once.

    Args:
        release: The release, as its deployment gave it.
        golden: The golden answers of its bento.
        gates: Further checks by their short name, each with its options; see `GATES`.
        others: Reports of other checks of this release, which count as well.
        ready_seconds: How long it may take to become ready.
        leave: Bring the last good release back if a check fails.
        waiting: How long that one may take to serve.

    Returns:
        The reports, each with the image and the release that it is about. They did not pass where
        the release does not serve at all.

    Raises:
        InvalidInput: There is no such gate, or an option of one is wrong, by its name.
        CheckError: The release was only rendered, or a check could not run.
        DeploymentError: The last good release was to be brought back, and the cluster refused.
    """
    wanted = _gates(gates or {})
    if release.mode == "rendered":
        raise CheckError(
            f"{release.title} was only rendered: there is nothing that could be asked.",
            hint="Deploy it with mode 'apply' or 'local', or let the pipeline end there.",
        )
    found = [_about(report, release) for report in _run(release, golden, wanted, ready_seconds)]
    found += [_about(report, release) for report in others]
    reports = ReleaseReports(release, tuple(found))
    if reports.passed or not leave:
        return reports
    why = reports.failed[0].summary
    settled = leave_release(release, why, waiting=waiting or Waiting())
    return replace(reports, settled=settled.message)


def _run(
    release: ReleaseFacts,
    golden: Golden,
    gates: Sequence[tuple[Gate, Any]],
    ready_seconds: float,
) -> list[CheckReport]:
    if release.failure:
        return [_does_not_serve(release, golden)]
    checks: list[Callable[[], CheckReport]] = [
        lambda: smoke_test(release.url, golden, timeout=ready_seconds),
        lambda: compare_predictions(release.url, golden, timeout=REPLAY_SECONDS),
    ]
    checks += [_bound(gate, release, golden, options) for gate, options in gates]
    if release.mode == "applied":
        # After the others: the answers that they judged came from these pods.
        checks.append(lambda: _served(release, golden))
    found: list[CheckReport] = []
    for check in checks:
        found.append(check())
        if not found[-1].passed:
            break
    return found


def _bound(
    gate: Gate, release: ReleaseFacts, golden: Golden, options: Any
) -> Callable[[], CheckReport]:
    return lambda: gate.run(release, golden, options)


def _gates(wanted: Mapping[str, Mapping[str, Any]]) -> list[tuple[Gate, Any]]:
    """Give the gates with their options, read before anything runs."""
    chosen = []
    for name, options in wanted.items():
        if name not in GATES:
            known = ", ".join(GATES)
            raise InvalidInput(f"gates: {name!r} is no gate.", hint=f"Known are: {known}.")
        if not isinstance(options, Mapping):
            raise InvalidInput(
                f"gates: {name} has no options by name.", hint=f'Write {{"{name}": {{}}}}.'
            )
        chosen.append((GATES[name], GATES[name].read(options)))
    return chosen


def _does_not_serve(release: ReleaseFacts, golden: Golden) -> CheckReport:
    return CheckReport(
        name=NAMES["smoke"],
        passed=False,
        summary=release.failure,
        measures={},
        evidence=(),
        model_digests=golden.digests,
        url=release.url,
    )


def _served(release: ReleaseFacts, golden: Golden) -> CheckReport:
    """Ask the pods which image has answered."""
    verdict = served_release(release)
    images = sorted({pod.runs or pod.image for pod in verdict.pods})
    ready = sum(pod.ready for pod in verdict.pods)
    return CheckReport(
        name=NAMES["served"],
        passed=verdict.ready,
        summary=f"{verdict.message} Pods run {', '.join(images)}." if images else verdict.message,
        measures={"pods": float(len(verdict.pods)), "ready_pods": float(ready)},
        evidence=tuple(pod.to_dict() for pod in verdict.pods),
        model_digests=golden.digests,
        url=release.url,
    )


def _about(report: CheckReport, release: ReleaseFacts) -> CheckReport:
    return replace(report, image=release.image, release=release.title)


def _load(release: ReleaseFacts, golden: Golden, options: LoadOptions) -> CheckReport:
    return load_test(release.url, golden, options)


def _contract(release: ReleaseFacts, golden: Golden, options: None) -> CheckReport:
    served = contract_of(release.url)
    report = check_contract(release.url, kept_contract(release), served=served, golden=golden)
    keep_contract(release, served)
    return report


def _metrics(release: ReleaseFacts, golden: Golden, options: MetricsGate) -> CheckReport:
    return options.report(release.url, golden)


def _no_options(options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInput(
            f"gates: contract has no option {next(iter(options))!r}.", hint="It takes none."
        )


GATES: dict[str, Gate] = {
    "load": Gate(LoadOptions.of, _load),
    "contract": Gate(_no_options, _contract),
    "metrics": Gate(MetricsGate.of, _metrics),
}
"""Further checks of a release, by the name under which pipelines ask for them."""
