"""Check a release on trial, and keep it and move the alias, or bring the last good one back."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def check_and_promote(
    release: dsl.Input[dsl.Artifact],
    golden: dsl.Input[dsl.Artifact],
    reports: dsl.Output[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    models: dsl.Input[dsl.Artifact] = None,
    alias: str = "",
    gates: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
    required_checks: list = ["smoke", "replay"],  # noqa: B006
    ready_seconds: int = 120,
    wait_seconds: int = 600,
    tracking_uri: str = "",
    run: str = "",
    why: str = "",
) -> bool:
    """Do what check_release and promote_model do, in one step.

    Where a check does not pass, or the promotion is refused, the last good release comes back at
    once and no alias moves. This step ends well all the same, so that Kubeflow keeps its reports:
    let require_passed come after it where the output says so, and the run fails with the reason.
    Switch caching off for this step.

    Args:
        release: The release of deploy_bento.
        golden: The golden answers of package_model or build_bento.
        models: The facts of the models; left out for a service without any.
        alias: The registry alias to move, the same for all models; empty moves none, and the
            release is kept as the good one.
        gates: Further checks by name, each with its options, see check_release.
        required_checks: Checks that there must be a report of: smoke, replay, or a gate's name.
        ready_seconds: How long the release may take to become ready.
        wait_seconds: How long the last good release may take to serve when it comes back.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        run: The pipeline run, for the history: dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        why: The reason, for the history.

    Returns:
        reports: All reports as one JSON document, for require_passed.
        record: JSON record of the promotion, as promote_model gives it; empty where there is none.
        page: The report of the release: models, image, checks, and the alias before and now; or
            the checks alone where it was refused.
        metrics: The measures of all checks, and whether they passed.
        summary: The checks and the promotion as Markdown.
        Output: Whether the release was refused.
    """
    from kfp_bento.runtime import deployments, promotion, proof
    from kfp_bento.runtime import models as pulled
    from kfp_bento.runtime import reports as written

    done = promotion.check_and_promote(
        deployments.load_given_release(release),
        proof.load_given_golden(golden),
        pulled.load_given_facts(models),
        alias,
        gates=gates,
        required=required_checks,
        ready_seconds=ready_seconds,
        tracking_uri=tracking_uri,
        by=promotion.run_name(run),
        why=why,
        waiting=deployments.Waiting(wait_seconds, progress=written.tell),
    )
    written.write_released(
        done,
        reports,
        record=record.path,
        page=page.path,
        summary=summary.path,
        metrics=metrics.metadata,
    )
    return not done.passed
