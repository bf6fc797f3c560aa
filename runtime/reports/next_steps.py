"""What the reader of a report can do next."""

from __future__ import annotations

from dataclasses import dataclass

from kfp_bento.runtime.reports.story import Facts, failed_checks, part, verdict


@dataclass(frozen=True)
class NextStep:
    """Something to do, and the command that does it where there is one."""

    text: str
    command: str = ""


def next_steps(summary: Facts) -> list[NextStep]:
    """Give what to do after a run that ended like this one."""
    ended_well = verdict(summary).promoted
    return [*(_onwards(summary) if ended_well else _repair(summary)), *_look(summary)]


def _onwards(summary: Facts) -> list[NextStep]:
    model, image, promoted = (part(summary, name) for name in ("model", "image", "promoted"))
    name, alias = promoted.get("name") or model.get("name"), promoted.get("alias")
    steps = []
    if part(summary, "release").get("mode") != "applied":
        steps.append(
            NextStep(
                "Take the same road in a cluster: upload pipelines/compiled/serve_model.yaml to "
                "Kubeflow Pipelines and run it with an image_destination that the cluster can "
                f"pull from and model_uri=models:/{name}@{alias}."
            )
        )
    if image.get("base") == "host":
        minor = ".".join(str(model.get("python_version") or "3.11").split(".")[:2])
        steps.append(
            NextStep(
                "Build on a base image for production:",
                f"kfp-bento demo --base docker.io/library/python:{minor}-slim",
            )
        )
    if promoted.get("previous") and promoted.get("changed") is not False:
        arguments = ", ".join(repr(str(one)) for one in (name, alias, promoted["previous"]))
        steps.append(
            NextStep(
                "Should this version disappoint, point the alias back:",
                f"MlflowClient().set_registered_model_alias({arguments})",
            )
        )
    return steps


def _repair(summary: Facts) -> list[NextStep]:
    if failed_checks(summary):
        return [
            NextStep(
                "Read why the check failed, in the section Checks. Answers that differ most often "
                "come from a service of one's own that changes inputs, or from a model that was "
                "logged with other library versions than its requirements name."
            ),
            NextStep(
                "Correct the model or the service and run the pipeline again; steps whose "
                "inputs are the same give the same bytes again."
            ),
        ]
    if not summary.get("checks"):
        return [
            NextStep(
                "Give the checks a service to ask: deploy with mode apply on a configured cluster, "
                "or mode local on one machine. Rendering alone starts nothing."
            )
        ]
    return [
        NextStep(
            "See why the promotion did not happen in the log of the step promote-model, and run "
            "the pipeline again; promotion refuses when the alias moved meanwhile."
        )
    ]


def _look(summary: Facts) -> list[NextStep]:
    location = str(part(summary, "image").get("location") or "")
    if not location.startswith("oci:"):
        return []
    return [NextStep("Look into the image:", f"skopeo inspect {location}")]
