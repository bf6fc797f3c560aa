"""Settle what a run has left on trial, as its exit handler."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def settle_run(
    run: str,
    summary: dsl.Output[dsl.Markdown],
    target: str = "bento-deployment",
    namespace: str = "",
    mode: str = "auto",
    tracking_uri: str = "",
    wait_seconds: int = 600,
):
    """Bring the last good release back where a run ended with its own still on trial.

    A promotion whose release was confirmed is completed. Where the run ended well there is nothing
    to settle. Made to be the exit task of a pipeline's exit handler.

    Args:
        run: The run, as deploy_bento was told it: dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        target: The target of deploy_bento.
        namespace: The namespace of deploy_bento; empty takes that of the run.
        mode: The mode of deploy_bento; nothing is settled where no cluster is deployed to.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        wait_seconds: How long the last good release may take to serve when it comes back.

    Returns:
        summary: What was settled, as Markdown.
    """
    from pathlib import Path

    from kfp_bento.runtime import deployments, promotion, reports

    done = promotion.settle_run(
        run,
        target=target,
        namespace=deployments.own_namespace(namespace),
        mode=mode,
        tracking_uri=tracking_uri,
        waiting=deployments.Waiting(wait_seconds, progress=reports.tell),
    )
    reports.write_text(reports.run_settled_summary(done), Path(summary.path))
