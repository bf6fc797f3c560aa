"""Compare the API that a release describes with an earlier one."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def check_contract(
    url: str,
    report: dsl.Output[dsl.Artifact],
    contract: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    earlier: dsl.Input[dsl.Artifact] = None,
    golden: dsl.Input[dsl.Artifact] = None,
):
    """Compare the API that a release describes (OpenAPI) with an earlier one.

    What would break clients of the earlier one fails: routes, fields, types, values and media
    types that are gone, and new fields that are required. What was added is told. A check that ran
    and failed is a report, not an error; check_release takes it as own_report.

    Args:
        url: Base URL of the release.
        earlier: An earlier contract, or a whole OpenAPI document; without one the check passes.
        golden: The golden answers of build_bento: they say which models the report is about,
            which a promotion asks for.

    Returns:
        report: The check report as JSON.
        contract: The API of the release, reduced to what clients depend on, as JSON; an `earlier`
            for the next release.
        metrics: Routes, breaking changes, additions.
        summary: The report as Markdown, with each breaking change.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, proof, reports

    served = checks.contract_of(url)
    outcome = checks.check_contract(
        url,
        checks.load_given_contract(earlier),
        served=served,
        golden=golden and proof.load_given_golden(golden),
    )
    outcome.save(Path(report.path))
    reports.write_json(served, Path(contract.path))
    reports.write_text(reports.check_summary(outcome), Path(summary.path))
    metrics.metadata.update(reports.check_metrics(outcome))
