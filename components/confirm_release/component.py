"""Keep a release on trial as the good one, where its checks passed."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def confirm_release(
    reports: dsl.Input[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    required_checks: list = ["smoke", "replay"],  # noqa: B006 - KFP wants the default in the signature
    wait_seconds: int = 600,
) -> str:
    """Record a release as the last good one if its checks passed; otherwise fail the run.

    For a service without a registered model; promote_model does the same and moves the alias.
    A release that did not pass is left for the last good one. Switch caching off for this step.

    Args:
        reports: The reports of check_release.
        required_checks: Checks that there must be a report of: smoke, replay, or a gate's name.
        wait_seconds: How long the last good release may take to serve when it comes back.

    Returns:
        summary: What became of the release, as Markdown.
        Output: URL of the release.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, deployments, promotion
    from kfp_bento.runtime import reports as written

    found = checks.load_given_reports(reports)
    settled = promotion.confirm_checked(
        found, required_checks, waiting=deployments.Waiting(wait_seconds, progress=written.tell)
    )
    written.write_text(written.settled_summary(found.release, settled), Path(summary.path))
    return found.release.url
