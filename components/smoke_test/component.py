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
    golden: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    timeout_seconds: int = 120,
):
    """Wait until a release is ready, then send it the first of its bento's golden requests.

    A check that ran and failed is a report, not an error: promote_model refuses it.

    Args:
        url: Base URL of the release.
        golden: The golden answers of build_bento.
        report: The check report as JSON.
        metrics: Seconds to readiness, milliseconds of the request.
        summary: The report as Markdown.
        timeout_seconds: How long to wait for readiness.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, proof, reports

    outcome = checks.smoke_test(url, proof.load_given_golden(golden), timeout=timeout_seconds)
    outcome.save(Path(report.path))
    reports.write_text(reports.check_summary(outcome), Path(summary.path))
    metrics.metadata.update(reports.check_metrics(outcome))
