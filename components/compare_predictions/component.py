"""Compare what is served with what the registry's model predicts."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def compare_predictions(
    url: str,
    model: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    endpoint: str = "/predict",
    request: dict = {},  # noqa: B006 - KFP wants the default in the signature
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 1e-9,
    timeout_seconds: int = 60,
    allow_sources: list = [],  # noqa: B006
):
    """Compare served answers with the registry model's own predictions.

    The model is loaded from the registry's bytes in a process of its own, never from the bento.
    A check that ran and failed is a report, not an error: promote_model refuses it.

    Args:
        url: Base URL of the release.
        model: The model directory that the release was made of.
        report: The check report as JSON.
        metrics: Rows compared, mismatches, largest errors.
        summary: The report as Markdown, with the first differences.
        endpoint: Path of the prediction API.
        request: JSON body to send; empty takes the model's own input example.
        relative_tolerance: Allowed difference relative to the expected value.
        absolute_tolerance: Allowed difference in the value's own unit.
        timeout_seconds: Time limit of each request.
        allow_sources: As for build_bento; counts where an environment is made for the model.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, models, reports

    outcome = checks.compare_predictions(
        url,
        models.load_model(Path(model.path), record=model.metadata.get("record", "")),
        endpoint=endpoint,
        request=request or None,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
        timeout=timeout_seconds,
        allow_sources=allow_sources,
    )
    outcome.save(Path(report.path))
    reports.write_text(reports.check_summary(outcome), Path(summary.path))
    metrics.metadata.update(reports.check_metrics(outcome))
