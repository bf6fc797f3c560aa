"""Look what loading models would run, before anything loads them."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def scan_model(
    models: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    policy: str = "warn",
    allow: list = [],  # noqa: B006 - KFP wants the default in the signature
) -> NamedTuple("Outputs", [("passed", bool), ("verdict", dict)]):
    """Look into every file of each model without importing or running anything of it.

    Pickles are read opcode by opcode and compared with lists of names that are known to be
    harmless, for each flavor; code folders, native files and archives are told of. A model that
    does not pass is a report, not an error: build_bento refuses its verdict.

    Args:
        models: The models from pull_model.
        policy: off looks at nothing, warn reports, enforce lets nothing pass that was found.
        allow: Names of findings, exactly as the report has them, that do not count.

    Returns:
        report: What was found, as JSON: where, what, why it matters and what to do.
        metrics: Findings by severity, and files looked at.
        summary: The report as Markdown.
        passed: Whether the policy lets all models go on.
        verdict: The same for each model by its digest, with the reason, for build_bento.
    """
    from pathlib import Path

    from kfp_bento.runtime import reports, scan
    from kfp_bento.runtime.models import load_given_models

    found = scan.scan_models(load_given_models(models), policy=policy, allow=allow)
    reports.write_json(found.to_dict(), Path(report.path))
    reports.write_text(reports.scan_summary(found), Path(summary.path))
    metrics.metadata.update(reports.check_metrics(found))
    return (found.passed, found.verdict())
