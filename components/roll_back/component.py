"""Bring the last good release back."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def roll_back(
    name: str,
    target: str,
    diff: dsl.Output[dsl.Markdown],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    namespace: str = "",
    alias: str = "",
    tracking_uri: str = "",
    leaving_image: str = "",
    to_revision: str = "",
    wait_seconds: int = 600,
    force: bool = False,
    tolerated: list = [],  # noqa: B006 - KFP wants the default in the signature
    unschedulable_seconds: int = 30,
    run: str = "",
    why: str = "",
) -> NamedTuple("Outputs", [("image", str), ("revision", str)]):
    """Restore a good release from what is recorded on its objects, and let the alias follow.

    The alias moves to the versions that the restored release serves, once it does. From a release
    that failed it goes to the last good one, from a good one to the one before. Nothing is applied
    that the target would not have rendered for this release. Switch caching off for this step: it
    acts outside the pipeline.

    Args:
        name: Name of the release.
        target: bento-deployment, bento-request, inference-service or workload.
        namespace: Namespace of the release; empty takes that of the run.
        alias: Registry alias of its models; empty brings the endpoint back alone.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        leaving_image: The image to leave, by digest; where another one is applied by now, nothing
            changes, so that a retry goes no further back. Whatever is applied when empty.
        to_revision: A good revision that is on record; chosen as above when empty.
        wait_seconds: How long the restored release may take to serve.
        force: Take over fields that another field manager owns.
        tolerated: Reasons of a wait that are no failure here, such as "DomainSuffix".
        unschedulable_seconds: How long the scheduler may find no node.
        run: The pipeline run, for the history: dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        why: The reason, for the history.

    Returns:
        diff: What going back changes on the cluster, object by object.
        summary: What serves now, what changed, evidence of a failure.
        metrics: Objects by what happened to them, failed or not.
        image: The image that serves now.
        revision: The revision that serves now.
    """
    from pathlib import Path

    from kfp_bento.runtime import deployments, promotion, reports

    back = promotion.roll_back_release(
        name,
        target=target,
        namespace=deployments.own_namespace(namespace),
        alias=alias,
        tracking_uri=tracking_uri,
        by=promotion.run_name(run),
        why=why,
        leaving=leaving_image,
        to=to_revision,
        waiting=deployments.Waiting(
            wait_seconds,
            tolerated=tolerated,
            unschedulable=unschedulable_seconds,
            progress=reports.tell,
        ),
        force=force,
        before=reports.tell_diff,
    )
    reports.write_roll_back(
        back.rollout,
        name,
        alias=alias,
        models=back.models,
        diff=Path(diff.path),
        summary=Path(summary.path),
        metrics=metrics.metadata,
    )
    back.rollout.raise_if_failed(name)
    return (back.rollout.image, back.rollout.revision)
