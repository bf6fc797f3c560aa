"""What a serving pipeline's run has come to, as far as it went: the facts of its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.checks import NAMES
from kfp_bento.runtime.models import load_given_facts, load_models
from kfp_bento.runtime.proof import Golden
from kfp_bento.runtime.reports import run_report, write_json, write_text

if TYPE_CHECKING:
    from kfp_bento.runtime.local.runs import Run
    from kfp_bento.runtime.local.services import Service
    from kfp_bento.runtime.models import ModelVersion

# Steps of the short road, release_model.
_SHORT, _SHORT_END = "package-model", "check-and-promote"
HOST_BASE_NOTE = (
    "made of this machine's own interpreter and libraries: for trying out, not for production"
)


def run_summary(
    run: Run, service: Service | None, seconds: Mapping[str, float], *, failure: str = ""
) -> dict[str, Any]:
    """Give what the steps of a run have left, each part only where its step left it.

    Args:
        run: The run; of one that failed as far as it went.
        service: The release that was started on this machine.
        seconds: Wall time of each step, and of the whole as `total`.
        failure: Why the run failed; empty where it ended well.

    Raises:
        KfpBentoError: What a step has left cannot be read.
    """
    found: dict[str, Any] = {}
    for step, output in (("scan-model", "report"), (_SHORT, "scan")):
        if run.has(step, output):
            found["scan"] = run.record(step, output)
    if models := _models(run):
        found["models"] = [
            model.to_dict()
            | {"uri": f"models:/{model.name}/{model.version}" if model.name else model.uri}
            for model in models
        ]
    for step in ("build-bento", _SHORT):
        if run.has(step, "golden"):
            found["bento"] = _bento(run, step)
    for step in ("build-image", _SHORT):
        if run.has(step, "record"):
            image = run.record(step)
            note = {"base_note": HOST_BASE_NOTE} if image["base"] == "host" else {}
            found["image"] = image | note
    if run.has("deploy-bento", "release"):
        started = {"runtime": service.runtime, "runtime_note": service.note} if service else {}
        found["release"] = run.record("deploy-bento", "release") | started
    for step in ("check-release", _SHORT_END):
        if run.has(step, "reports"):
            found |= _checks(run.record(step, "reports"))
    if run.has("await-approval", "report"):
        asked = run.record("await-approval", "report")
        found["checks"] = [*found.get("checks", ()), *asked["reports"]]
    # Unasked, after an approval, and with the checks.
    found["confirmed"] = run.has("confirm-release", "summary")
    for step in ("promote-model", "promote-model-2", _SHORT_END):
        if run.has(step, "record") and (promoted := run.record(step)):
            if promoted["models"]:
                found["promoted"] = promoted
            else:  # no alias to move: the release alone was kept
                found["confirmed"] = True
    times = {name: round(value, 2) for name, value in seconds.items()}
    return found | {"seconds": times} | ({"failure": failure} if failure else {})


def write_summary(directory: Path, run: Run, summary: Mapping[str, Any]) -> None:
    """Write report.html and summary.json; who finds the last finds the first complete."""
    rendered = run.output("deploy-bento", "manifests")
    files = sorted(rendered.glob("*.yaml")) if rendered.is_dir() else []
    texts = {path.name: path.read_text() for path in files}
    write_text(run_report(summary, texts), directory / "report.html")
    write_json(dict(summary), directory / "summary.json")


def _models(run: Run) -> list[ModelVersion]:
    if run.has("pull-model", "models"):
        return load_models(run.output("pull-model", "models"))
    if run.has(_SHORT, "models"):
        return load_given_facts(SimpleNamespace(path=run.output(_SHORT, "models")))
    return []


def _bento(run: Run, step: str) -> dict[str, Any]:
    bento = load_bento(run.output(step, "bento"), facts=True)
    golden = Golden.load(run.output(step, "golden"))
    models = [{"tag": model.tag, "digest": model.digest} for model in bento.models]
    verified = {"verified": golden.verified, "verified_reason": golden.reason}
    return bento.to_dict() | {"models": models} | verified


def _checks(reports: Mapping[str, Any]) -> dict[str, Any]:
    checks = reports["reports"]
    found = {"checks": checks, "settled": reports.get("settled", "")}
    evidence = [
        one for check in checks if check["name"] == NAMES["replay"] for one in check["evidence"]
    ]
    sample = next((one for one in evidence if one.get("sample")), None)
    if sample is not None:
        found["prediction"] = {key: sample[key] for key in ("served", "expected")}
    return found
