"""Move a registry alias to model versions whose release passed its checks."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def promote_model(
    models: dsl.Input[dsl.Artifact],
    reports: dsl.Input[dsl.Artifact],
    alias: str,
    record: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    approval: dsl.Input[dsl.Artifact] = None,
    required_checks: list = ["smoke", "replay"],  # noqa: B006 - KFP wants the default in the signature
    tracking_uri: str = "",
    aliases: dict = {},  # noqa: B006
    run: str = "",
    why: str = "",
    wait_seconds: int = 600,
) -> NamedTuple("Outputs", [("versions", dict)]):
    """Keep a release as the good one and set the alias on its models: both, or neither.

    Refuses when a check did not pass or is missing, when a report is about other models, another
    image or another release, and when the alias of a model moved since the models were resolved;
    then the last good release comes back, and the run fails. Keeps each previous version as last
    known good and writes a history tag on each version. Switch caching off for this step.

    Args:
        models: The facts of the models, from pull_model.
        reports: The reports of check_release; they name the release.
        alias: The registry alias to move, for example prod; the same for all models.
        approval: The report of await_approval; it is required where it is given.
        required_checks: Checks that there must be a report of: smoke, replay, or a gate's name.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        aliases: Where the aliases were when this run began, as resolve_models says; empty takes
            what pull_model found.
        run: The pipeline run, for the history: dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        why: The reason, for the history.
        wait_seconds: How long the last good release may take to serve when it comes back.

    Returns:
        record: JSON record of the promotion: alias, and of each model version and previous version.
        summary: The promotion as Markdown.
        page: The report of the release: models, image, checks, approval, the alias before and now.
        versions: The version of each registered model that holds the alias now.
    """
    from kfp_bento.runtime import checks, deployments, promotion
    from kfp_bento.runtime import models as pulled
    from kfp_bento.runtime import reports as written

    kept = (pulled.load_given_facts(models, aliases), checks.load_given_reports(reports))
    approved = promotion.load_given_approval(approval)
    promoted = promotion.promote_release(
        *kept,
        alias,
        required=required_checks,
        approval=approved,
        tracking_uri=tracking_uri,
        by=promotion.run_name(run),
        why=why,
        waiting=deployments.Waiting(wait_seconds, progress=written.tell),
    )
    written.write_promotion(
        promoted,
        *kept,
        approval=approved,
        record=record.path,
        summary=summary.path,
        page=page.path,
    )
    return (promoted.versions,)
