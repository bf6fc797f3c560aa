"""Check a release on trial, and bring the last good one back where a check fails."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def check_release(
    release: dsl.Input[dsl.Artifact],
    golden: dsl.Input[dsl.Artifact],
    reports: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    own_report: dsl.Input[dsl.Artifact] = None,
    gates: dict = {},  # noqa: B006 - KFP wants the default in the signature
    ready_seconds: int = 120,
    wait_seconds: int = 600,
) -> NamedTuple("Outputs", [("passed", bool)]):
    """Wait until a release is ready, replay its bento's golden requests, and run further gates.

    At the end its pods are asked which image has answered. The first check that does not pass is
    the last; then the last good release comes back at once. This step ends well all the same, so
    that Kubeflow keeps its reports: promote_model and confirm_release refuse them, and fail the
    run. Switch caching off for this step.

    Args:
        release: The release of deploy_bento.
        golden: The golden answers of build_bento.
        own_report: Report of a check of your own, in the form of a CheckReport; it counts too.
        gates: Further checks by name, each with its options, for example {"load": {"users": 10}}.
        ready_seconds: How long the release may take to become ready.
        wait_seconds: How long the last good release may take to serve when it comes back.

    Returns:
        reports: All reports as one JSON document, for promote_model or confirm_release.
        page: The reports for people, as a page.
        metrics: The measures of all checks, and whether they passed.
        summary: The reports as Markdown, with the first differences.
        passed: Whether all checks passed; the release is still on trial then.
    """
    from kfp_bento.runtime import checks, deployments, proof
    from kfp_bento.runtime import reports as written

    found = checks.check_release(
        deployments.load_given_release(release),
        proof.load_given_golden(golden),
        gates=gates,
        others=checks.given_report(own_report),
        ready_seconds=ready_seconds,
        waiting=deployments.Waiting(wait_seconds, progress=written.tell),
    )
    written.write_checks(
        found, reports, page=page.path, summary=summary.path, metrics=metrics.metadata
    )
    return (found.passed,)
