"""Move a registry alias to a model version whose release passed its checks."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def promote_model(
    model: dsl.Input[dsl.Model],
    smoke_report: dsl.Input[dsl.Artifact],
    comparison_report: dsl.Input[dsl.Artifact],
    alias: str,
    record: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    image: str = "",
    tracking_uri: str = "",
) -> str:
    """Set the alias, after the checks and only if they passed.

    Refuses when a check did not pass, when a report is about another model, and when the alias
    moved since the model was resolved. Keeps the previous version as last known good and writes
    a history tag on the version. Switch caching off for this step.

    Args:
        model: The model directory from pull_model.
        smoke_report: Report of smoke_test.
        comparison_report: Report of compare_predictions.
        alias: The registry alias to move, for example prod.
        record: JSON record of the promotion: alias, version, previous version.
        summary: The promotion as Markdown.
        image: The image that was checked, for the history tag.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.

    Returns:
        The version that holds the alias now.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, models, promotion, reports

    promoted = promotion.promote_model(
        models.load_model(Path(model.path), record=model.metadata.get("record", "")),
        [checks.CheckReport.load(Path(r.path)) for r in (smoke_report, comparison_report)],
        alias,
        image=image,
        tracking_uri=tracking_uri,
    )
    reports.write_json(promoted.to_dict(), Path(record.path))
    reports.write_text(reports.promotion_summary(promoted), Path(summary.path))
    return promoted.version
