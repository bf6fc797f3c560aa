"""Ask a release as many users at once, and hold its answers and times against limits."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def load_test(
    url: str,
    golden: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    users: int = 10,
    duration_seconds: int = 30,
    ramp_seconds: int = 5,
    payloads: str = "golden",
    rows_per_request: int = 1,
    max_requests_per_second: float = 0.0,
    max_requests: int = 100000,
    timeout_seconds: int = 30,
    limits: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
):
    """Ask a release as many users at once, and hold what it does against limits.

    Each answer is compared with the golden one; an answer that is wrong, late or missing has
    failed. Nothing but the release's own address is asked. A check that ran and failed is a
    report, not an error; check_release takes it as own_report, or runs the same as a gate.

    Args:
        url: Base URL of the release.
        golden: The golden answers of build_bento.
        users: How many ask at the same time, each again as soon as it has an answer.
        duration_seconds: How long all users ask.
        ramp_seconds: How long it takes before that until all users ask.
        payloads: golden, or rows to ask about: a CSV, Parquet or JSONL file, or a folder of them,
            s3://bucket/key, minio://bucket/key, file:///path, or an https:// address of one file.
        rows_per_request: How many rows of such a table make a request.
        max_requests_per_second: Requests per second of all users together at most; 0 is no cap.
        max_requests: Ends the load earlier, after so many requests.
        timeout_seconds: A request without an answer by then has failed.
        limits: What has to hold, for example {"p95_ms": 200, "failure_ratio": 0.01}; also p50_ms,
            p99_ms and requests_per_second. Without failure_ratio none may fail.

    Returns:
        report: The check report as JSON.
        metrics: Requests, failures, latency (p50, p95, p99, max, mean), requests per second.
        summary: The report as Markdown.
        page: The report as a page, with latency over time and its distribution.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, proof, reports

    options = checks.LoadOptions.of(
        {
            "users": users,
            "duration_seconds": duration_seconds,
            "ramp_seconds": ramp_seconds,
            "payloads": payloads,
            "rows_per_request": rows_per_request,
            "max_requests_per_second": max_requests_per_second,
            "max_requests": max_requests,
            "timeout_seconds": timeout_seconds,
            "limits": limits,
        }
    )
    outcome = checks.load_test(url, proof.load_given_golden(golden), options)
    outcome.save(Path(report.path))
    reports.write_text(reports.load_summary(outcome), Path(summary.path))
    reports.write_text(reports.load_page(outcome), Path(page.path))
    metrics.metadata.update(reports.check_metrics(outcome))
