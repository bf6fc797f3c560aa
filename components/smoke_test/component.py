"""Ask a release whether it is ready, then send it one real request."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def smoke_test(
    url: str,
    model: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    endpoint: str = "/predict",
    request: dict = {},  # noqa: B006 - KFP wants the default in the signature
    timeout_seconds: int = 120,
):
    """Wait until a release is ready, then send one request made of the model's input example.

    A check that ran and failed is a report, not an error: promote_model refuses it.

    Args:
        url: Base URL of the release.
        model: The model directory that the release was made of.
        report: The check report as JSON.
        metrics: Seconds to readiness, milliseconds of the request.
        summary: The report as Markdown.
        endpoint: Path of the prediction API.
        request: JSON body to send; empty takes the model's own input example.
        timeout_seconds: How long to wait for readiness.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, models, reports

    outcome = checks.smoke_test(
        url,
        models.load_model(Path(model.path), record=model.metadata.get("record", "")),
        endpoint=endpoint,
        request=request or None,
        timeout=timeout_seconds,
    )
    outcome.save(Path(report.path))
    reports.write_text(reports.check_summary(outcome), Path(summary.path))
    metrics.metadata.update(reports.check_metrics(outcome))
