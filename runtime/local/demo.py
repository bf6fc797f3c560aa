"""The whole road on one machine: train, register, build, serve, check, promote."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.images import choose_base
from kfp_bento.runtime.local.mlflow_server import TrackingServer, tracking_server
from kfp_bento.runtime.local.run_summary import run_summary, write_summary
from kfp_bento.runtime.local.runs import Run, Step, run_pipeline
from kfp_bento.runtime.local.services import Service
from kfp_bento.runtime.local.target import ADDRESS_VARIABLE, local_target

PIPELINE = "train_to_serve"
ALIAS = "champion"
MODEL = "wine"


@dataclass(frozen=True)
class Demo:
    """A demo that ran to its end.

    Attributes:
        directory: Holds summary.json, report.html, manifests/ and image/.
        summary: What summary.json says.
    """

    directory: Path
    summary: dict[str, Any]


def run_demo(
    directory: Path,
    *,
    base: str = "",
    network: str = "",
    on_step: Callable[[Step], None] = lambda step: None,
) -> Demo:
    """Run train_to_serve from nothing to a promoted model, with everything on this machine.

    A real MLflow server runs for as long as it takes, and the release is really served; both are
    stopped at the end. A second run in the same directory trains a new version and finds that
    bento and image are what they were.

    Args:
        directory: Receives everything that is written.
        base: Base image; empty takes KFP_BENTO_BASE_IMAGE, else python:<minor>-slim if its
            registry answers, else a base made of this machine.
        network: What the release reaches, see `local_target`.
        on_step: Called when a step begins and when it ends.

    Raises:
        KfpBentoError: If a step fails.
    """
    began = time.monotonic()
    shown, directory = directory, directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    for stale in ("summary.json", "report.html"):
        (directory / stale).unlink(missing_ok=True)
    for stale in ("run", "manifests"):
        shutil.rmtree(directory / stale, ignore_errors=True)

    seconds: dict[str, float] = {}

    def note(step: Step) -> None:
        if step.seconds is not None:
            seconds[step.name] = step.seconds
        on_step(step)

    run, service = _whole_road(directory, base, network, note)
    seconds["total"] = time.monotonic() - began
    summary = run_summary(run, service, seconds)
    summary["image"]["location"] = f"oci:{shown / 'image'}"  # as it was given: no path of ours
    _write(directory, run, summary)
    return Demo(directory, summary)


def _whole_road(
    directory: Path, base: str, network: str, on_step: Callable[[Step], None]
) -> tuple[Run, Service]:
    """Run the pipeline beside a tracking server and a target for its release, both ours."""
    cache = directory.parent / "cache"
    with (
        tracking_server(directory / "mlflow") as tracking,
        local_target(directory / "service", network=network, cache=cache) as target,
    ):
        run = run_pipeline(
            PIPELINE,
            {
                "model_name": MODEL,
                "tracking_uri": tracking.address,
                "image_base": choose_base(_python_minor(), wanted=base),
                "image_destination": f"oci:{directory / 'image'}",
                "deploy_mode": "local",
                "promote_alias": ALIAS,
            },
            directory / "run",
            environment={
                **tracking.environment,
                ADDRESS_VARIABLE: target.address,
                "KFP_BENTO_CACHE": str(cache),
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            hidden="MLFLOW_",  # whatever server and run the user works with, the demo has its own
            before=lambda: _wait(tracking, on_step),
            on_step=on_step,
        )
        tracking.finish()  # nothing needs it any more, and it takes its time to end
        return run, target.services[-1]


def _wait(tracking: TrackingServer, on_step: Callable[[Step], None]) -> None:
    began = time.monotonic()
    on_step(Step("tracking-server"))
    tracking.wait()
    on_step(Step("tracking-server", time.monotonic() - began, True))


def _python_minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _write(directory: Path, run: Run, summary: dict[str, Any]) -> None:
    manifests = directory / "manifests"
    shutil.copytree(run.output("deploy-bento", "manifests"), manifests)
    write_summary(directory, run, summary)
