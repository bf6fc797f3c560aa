"""Compare what is served with what the registry's model predicted when the bento was proven."""

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
    golden: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    timeout_seconds: int = 60,
):
    """Compare served answers with the golden ones of the bento.

    Those are the registry model's own predictions, by mlflow.pyfunc, from when build_bento proved
    the bento; neither the model nor its packages are needed any more. A check that ran and failed
    is a report, not an error: promote_model refuses it.

    Args:
        url: Base URL of the release.
        golden: The golden answers of build_bento, with their tolerances.
        report: The check report as JSON.
        metrics: Rows compared, mismatches, largest errors.
        summary: The report as Markdown, with the first differences.
        timeout_seconds: Time limit of each request.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, proof, reports

    outcome = checks.compare_predictions(
        url, proof.load_given_golden(golden), timeout=timeout_seconds
    )
    outcome.save(Path(report.path))
    reports.write_text(reports.check_summary(outcome), Path(summary.path))
    metrics.metadata.update(reports.check_metrics(outcome))
