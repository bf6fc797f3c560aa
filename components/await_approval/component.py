"""Wait until a person has approved that a release and its models are promoted."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def await_approval(
    models: dsl.Input[dsl.Artifact],
    reports: dsl.Input[dsl.Artifact],
    alias: str,
    seconds: int,
    report: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    poll_seconds: int = 10,
    tracking_uri: str = "",
) -> NamedTuple("Outputs", [("passed", bool)]):
    """Wait for the word of a person about a release on trial, and write down what it was.

    The log says at once what is to be approved, and the two commands that approve or refuse it:
    kfp-bento approve writes a tag on each model version. An approval counts for exactly the image
    that it names. This step ends well also where somebody refused or nobody came in time;
    promote_model refuses such a report, and brings the last good release back. Where a check did
    not pass nobody is asked. Switch caching off for this step.

    Args:
        models: The facts of the models, from pull_model.
        reports: The reports of check_release; they name the release and its image.
        alias: The registry alias that is to move.
        seconds: How long to wait.
        poll_seconds: Seconds between two looks at the registry.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.

    Returns:
        report: What was decided, for promote_model.
        summary: The same as Markdown.
        passed: Whether it was approved.
    """
    from kfp_bento.runtime import checks, promotion
    from kfp_bento.runtime import models as pulled
    from kfp_bento.runtime import reports as written

    decided = promotion.await_approval(
        pulled.load_given_facts(models),
        checks.load_given_reports(reports),
        alias,
        seconds=seconds,
        poll_seconds=poll_seconds,
        tracking_uri=tracking_uri,
        progress=written.tell,
    )
    written.write_approval(decided, report, summary=summary.path)
    return (decided.passed,)
