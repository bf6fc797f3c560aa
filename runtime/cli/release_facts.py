"""What is told of a release: as JSON for machines, as facts for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from kfp_bento.runtime.cli.output import err, out, print_facts, print_table
from kfp_bento.runtime.errors import InvalidInput, KfpBentoError, plain_text

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import (
        Applied,
        Deployed,
        ObjectRef,
        ReleaseDiff,
        ReleaseStatus,
        Rollout,
        Verdict,
    )

_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_CHANGES = ("created", "changed", "unchanged", "removed")


def deployed_document(deployed: Deployed) -> dict[str, Any]:
    """Give a deployment as plain JSON values."""
    rollout = deployed.rollout
    facts = deployed.to_dict()
    if rollout is None:
        return facts
    return {
        **facts,
        "waited": deployed.waited,
        "seconds": round(deployed.seconds, 2),
        **rollout_document(rollout),
    }


def rollout_document(rollout: Rollout) -> dict[str, Any]:
    """Give what was applied, removed and found as plain JSON values."""
    return {
        "changed": rollout.changed,
        "objects": [{"object": str(one.ref), "change": one.change} for one in rollout.applied],
        "removed": [str(ref) for ref in rollout.removed],
        "verdict": verdict_document(rollout.verdict),
        "rolled_back_to": rollout.rolled_back_to,
        "restored": rollout.restored and verdict_document(rollout.restored),
        "not_restored": rollout.not_restored,
    }


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Give a verdict as plain JSON values."""
    return {**asdict(verdict), "evidence": list(verdict.evidence)}


def diff_document(diff: ReleaseDiff) -> dict[str, Any]:
    """Give a diff as plain JSON values."""
    return {
        "changed": diff.changed,
        "objects": [
            {"object": str(one.ref), "change": one.change, "text": one.text} for one in diff.objects
        ],
    }


def show_deployed(deployed: Deployed) -> None:
    """Print a release: what became of its objects, then the facts."""
    release, rollout = deployed.release, deployed.rollout
    if rollout is not None:
        show_applied(rollout.applied)
    print_facts(
        _title(deployed),
        {
            "target": release.target.kind,
            "namespace": release.namespace,
            **(rollout_facts(rollout) if rollout is not None else {}),
            "revision": release.revision,
            "image": deployed.image,
            "bento": release.bento_tag,
            "on trial": _until(deployed),
            "URL": deployed.url,
            "manifests": "\n".join(str(path) for path in deployed.files),
        },
    )


def _until(deployed: Deployed) -> str:
    """Say what ends the trial of a release."""
    if not deployed.on_trial:
        return ""
    name, place = deployed.release.name, deployed.release.namespace
    return (
        f"until kfp-bento check release {name} -n {place} --golden FILE and kfp-bento promote\n"
        f"have kept it, or kfp-bento release confirm {name} -n {place}, on your own word"
    )


def _title(deployed: Deployed) -> str:
    release, took = deployed.release, f"{deployed.seconds:.1f} s"
    if deployed.rollout is None:
        return f"{deployed.mode.capitalize()} {release.name}"
    if not deployed.waited:
        return f"Applied {release.name} in {took}"
    return f"{release.name} {'does not serve' if deployed.failed else 'serves'}, after {took}"


def show_applied(applied: Iterable[Applied]) -> None:
    """Print what became of each object."""
    rows = [(one.ref.kind, one.ref.name, one.change) for one in applied]
    print_table(("kind", "name", "change"), rows)
    out.print()


def rollout_facts(rollout: Rollout) -> dict[str, str]:
    """Give the verdict and what came after it as facts."""
    verdict, back = rollout.verdict, rollout.restored
    # A failure is told in full by the error that follows.
    told = verdict.message if verdict.ready or verdict.reason == "NotWaited" else verdict.reason
    facts = {"verdict": told, "removed": names(rollout.removed)}
    if back is not None:
        serves = "serves" if back.ready else f"does not serve: {back.message}"
        facts["rolled back to"] = f"{rollout.rolled_back_to}, which {serves}"
    return facts


def show_diff(diff: ReleaseDiff) -> None:
    """Print a unified diff, coloured on a terminal; the summary goes to standard error."""
    for line in diff.text.splitlines():
        heading = line.startswith(("--- ", "+++ "))
        style = "bold" if heading else _STYLES.get(line[:1], "")
        out.print(Text(plain_text(line), style=style), soft_wrap=True)
    counts = dict.fromkeys(_CHANGES, 0)
    for one in diff.objects:
        counts[one.change] += 1
    told = ", ".join(f"{count} {change}" for change, count in counts.items() if count)
    err.print(f"Would be: {told}." if diff.changed else "Nothing would change.")


def status_facts(status: ReleaseStatus) -> dict[str, str]:
    """Give how a release stands as facts."""
    return {
        "target": status.target,
        "namespace": status.namespace,
        "state": status.message,
        "revision": status.revision,
        "on trial": _trial(status),
        "image": status.image,
        "bento": status.bento,
        "last good": status.last_good,
        "good before": status.previous_good,
        "rolled back": status.rolled_back and f"from {status.rolled_back}",
        "URL": status.url,
        "objects": names(status.objects),
        "not believed": "\n".join(status.disbelieved),
    }


def _trial(status: ReleaseStatus) -> str:
    if not status.on_trial:
        return ""
    return f"yes, by run {status.run}" if status.run else "yes"


def short_digest(image: str) -> str:
    """Give the first digits of an image's digest; the whole where it has none."""
    return image.rpartition("@sha256:")[2][:12] if "@sha256:" in image else image


def names(objects: Iterable[ObjectRef]) -> str:
    """Give objects of one namespace, a line each."""
    return "\n".join(f"{ref.kind} {ref.name}" for ref in objects)


@contextlib.contextmanager
def stopped_before_the_verdict() -> Iterator[None]:
    """Say what a Ctrl-C inside leaves: a release that is applied, and goes on without us."""
    try:
        yield
    except KeyboardInterrupt:
        raise KfpBentoError(
            "Stopped before the verdict.",
            hint="What was applied stays: kfp-bento release wait goes on, release roll-back goes "
            "back.",
        ) from None


def check_place(namespace: str, name: str | None = None) -> None:
    """Refuse names that are none: they become paths and selectors of requests."""
    from kfp_bento.runtime.deployments import label_name_problem, resource_name_problem

    if problem := label_name_problem(namespace):
        raise InvalidInput(f"--namespace {namespace!r} {problem}.", hint="Give its name.")
    if name is not None and (problem := resource_name_problem(name)):
        raise InvalidInput(
            f"{name!r} {problem}.", hint="kfp-bento release list shows those that are there."
        )
