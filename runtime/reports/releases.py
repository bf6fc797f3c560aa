"""Releases in Markdown, and the files that a deploying step leaves."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports.files import write_text
from kfp_bento.runtime.reports.json_text import one_line
from kfp_bento.runtime.reports.markdown import code, document, facts, fenced, literal, table
from kfp_bento.runtime.reports.metrics import release_metrics, roll_back_metrics
from kfp_bento.runtime.reports.wording import human_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.deployments import Deployed, ReleaseDiff, Rollout
    from kfp_bento.runtime.promotion import MovedBack

_MODES = {
    "rendered": "Rendered only: the manifests were written and no cluster was touched.",
    "applied": "Applied to the cluster, server-side.",
    "local": "Started on this machine; no cluster was touched.",
}
_TRIAL = "It is **on trial** until promote_model or confirm_release has kept it as the good one."
_NO_DIFF = "# What the release changes\n\nNothing was compared with what runs. {why}\n"
_INSIDE = ".svc"
_LONGEST_SAMPLE = 2000


def tell(line: str) -> None:
    """Say a line in the log of a step at once, as a wait may go on for minutes."""
    print(line, flush=True)


def tell_diff(diff: ReleaseDiff) -> None:
    """Say what is going to change in the log of a step."""
    tell(diff.text or "Nothing would change.")


def write_deployment(
    deployed: Deployed,
    manifests_dir: Path,
    *,
    record: Path,
    facts: MutableMapping[str, Any],
    diff: Path,
    summary: Path,
    metrics: MutableMapping[str, Any],
    request: Mapping[str, Any] | None = None,
) -> None:
    """Write what a deploying step leaves, whether the release serves or not.

    Args:
        deployed: The release, and how it came about.
        manifests_dir: Holds the manifests, *.yaml.
        record: Gets the release as JSON.
        facts: Gets the same.
        diff: Gets the change as Markdown, or why there is none.
        summary: Gets `release_summary`; of a failed release the log gets it too, as Kubeflow
            Pipelines keeps no outputs of a task that failed.
        metrics: Gets `release_metrics`.
        request: Body of a sample request.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    if deployed.failed:
        tell(release_summary(deployed))
    facts.update(deployed.to_dict(), record=deployed.facts.save(record))
    write_text(change_summary(deployed), diff)
    write_text(release_summary(deployed, manifests_dir, request=request), summary)
    metrics.update(release_metrics(deployed))


def write_roll_back(
    rollout: Rollout,
    name: str,
    *,
    summary: Path,
    metrics: MutableMapping[str, Any],
    diff: Path | None = None,
    alias: str = "",
    models: Sequence[MovedBack] = (),
) -> None:
    """Write what a roll back leaves, whether the restored release serves or not.

    Args:
        rollout: What the roll back did.
        name: Name of the release.
        summary: Gets `roll_back_summary`; the log gets it too where the release does not serve.
        metrics: Gets `roll_back_metrics`.
        diff: Gets the change as Markdown.
        alias: The alias that followed; empty where none did.
        models: What became of it on each registered model.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    if diff is not None:
        write_text(diff_summary(rollout.diff) if rollout.diff else _NO_DIFF.format(why=""), diff)
    text = roll_back_summary(rollout, name, alias, models)
    if not rollout.verdict.ready:
        tell(text)
    write_text(text, summary)
    metrics.update(roll_back_metrics(rollout))


def release_summary(
    deployed: Deployed,
    manifests_dir: Path | None = None,
    *,
    request: Mapping[str, Any] | None = None,
) -> str:
    """Give a release as Markdown: whether it serves, what changed, how to ask it, its manifests.

    Args:
        deployed: The release, and how it came about.
        manifests_dir: Holds the manifests, *.yaml; they are left out when None.
        request: Body of a sample request; none is shown when None.
    """
    release, rollout = deployed.release, deployed.rollout
    named = {
        "Answers at": "" if deployed.failed else code(deployed.url),
        "Target": code(release.target.kind),
        "Namespace": code(release.namespace),
        "Revision": code(release.revision),
        "Bento": code(release.bento_tag),
        "Image": code(deployed.image),
        "Waited": human_seconds(deployed.seconds) if deployed.waited else "",
    }
    return document(
        f"# Release {literal(release.name)}{_outcome(deployed)}",
        _TRIAL if deployed.on_trial else "",
        _MODES.get(deployed.mode, literal(deployed.mode)),
        literal(rollout.verdict.message) if rollout else "",
        _went_back(rollout) if rollout else "",
        literal(rollout.what_serves_now) if rollout and rollout.taken_away else "",
        facts(named),
        _evidence(rollout) if rollout else "",
        _changes(rollout) if rollout else "",
        "" if deployed.failed else _sample(deployed, request),
        *_manifests(manifests_dir),
    )


def roll_back_summary(
    rollout: Rollout, name: str, alias: str = "", models: Sequence[MovedBack] = ()
) -> str:
    """Give a roll back as Markdown: what serves now, what that took, and where the alias is.

    Args:
        rollout: What the roll back did.
        name: Name of the release.
        alias: The alias that followed; empty where none did.
        models: What became of it on each registered model.
    """
    rows = (
        (
            literal(one.name),
            literal(one.version),
            literal(one.previous) or "none",
            "yes" if one.changed else "no, it was there already",
        )
        for one in models
    )
    aliases = table(("Model", "Version", "Previous version", "Moved"), rows)
    verdict = rollout.verdict
    outcome = "" if verdict.ready else f": FAILED ({literal(verdict.reason)})"
    kept = "It was there already, and nothing was changed."
    return document(
        f"# Release {literal(name)} is back at revision {literal(rollout.revision)}{outcome}",
        literal(verdict.message),
        "" if rollout.changed else kept,
        facts({"Image": code(rollout.image), "Bento": code(rollout.bento)}),
        f"## The alias {literal(alias)}\n\n{aliases}" if alias and aliases else "",
        _evidence(rollout),
        _changes(rollout),
    )


def change_summary(deployed: Deployed) -> str:
    """Give what a release changed on its cluster as Markdown, or why that is not known."""
    if deployed.diff is not None:
        return diff_summary(deployed.diff)
    return _NO_DIFF.format(why=_MODES.get(deployed.mode, literal(deployed.mode)))


def diff_summary(diff: ReleaseDiff) -> str:
    """Give what an apply would change as Markdown: a table of objects, and their diffs."""
    rows = (
        (literal(f"{one.ref.kind} {one.ref.namespace}/{one.ref.name}"), literal(one.change))
        for one in diff.objects
    )
    changed = (one for one in diff.objects if one.text)
    return document(
        "# What the release changes",
        table(("Object", "Change"), rows),
        "" if diff.changed else "Nothing changes.",
        *(
            f"## {literal(f'{one.ref.kind} {one.ref.name}')}\n\n{fenced(one.text, 'diff')}"
            for one in changed
        ),
    )


def _outcome(deployed: Deployed) -> str:
    if not (deployed.waited and deployed.rollout):
        return ""
    verdict = deployed.rollout.verdict
    return " serves" if verdict.ready else f": FAILED ({literal(verdict.reason)})"


def _went_back(rollout: Rollout) -> str:
    if rollout.restored is None:
        return ""
    serves = "serves" if rollout.restored.ready else "does NOT serve"
    revision, told = code(rollout.rolled_back_to), literal(rollout.restored.message)
    return f"**Rolled back** to revision {revision}, which {serves}: {told}"


def _evidence(rollout: Rollout) -> str:
    parts = []
    for title, verdict in (
        ("Evidence", rollout.verdict),
        ("Evidence about the restored release", rollout.restored),
    ):
        if verdict and verdict.evidence:
            parts += [f"## {title}", fenced("\n".join(verdict.evidence), "text")]
    return "\n\n".join(parts)


def _changes(rollout: Rollout) -> str:
    rows = [(entry.ref, str(entry.change)) for entry in rollout.applied]
    rows += [(ref, "removed") for ref in rollout.removed]
    shown = ((literal(ref.kind), code(ref.name), literal(change)) for ref, change in rows)
    found = table(("Object", "Name", "Change"), shown)
    return f"## What changed\n\n{found}" if found else ""


def _sample(deployed: Deployed, request: Mapping[str, Any] | None) -> str:
    if not deployed.url or request is None:
        return ""
    body = one_line(request)
    if len(body) > _LONGEST_SAMPLE:
        return ""
    url = shlex.quote(f"{deployed.url.rstrip('/')}/predict")
    command = f"curl -sS {url} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    where = "From a pod of the cluster:" if _INSIDE in deployed.url else ""
    return document("## A sample request", where, fenced(command, "sh")).rstrip()


def _manifests(directory: Path | None) -> Iterator[str]:
    if directory is None:
        return
    yield "## Manifests"
    for path in sorted(directory.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        yield f"### {literal(path.name)}\n\n{fenced(text, 'yaml')}"
