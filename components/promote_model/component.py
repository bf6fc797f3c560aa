"""Move a registry alias to model versions whose release passed its checks."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def promote_model(
    models: dsl.Input[dsl.Model],
    smoke_report: dsl.Input[dsl.Artifact],
    comparison_report: dsl.Input[dsl.Artifact],
    alias: str,
    record: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    image: str = "",
    tracking_uri: str = "",
) -> NamedTuple("Outputs", [("versions", dict)]):
    """Set the alias on each model, after the checks and only if they passed: on all or on none.

    Refuses when a check did not pass, when a report is about other models, and when the alias of
    one moved since the models were resolved. Keeps each previous version as last known good and
    writes a history tag on each version. Switch caching off for this step.

    Args:
        models: The models from pull_model.
        smoke_report: Report of smoke_test.
        comparison_report: Report of compare_predictions.
        alias: The registry alias to move, for example prod; the same for all models.
        record: JSON record of the promotion: alias, and of each model version and previous version.
        summary: The promotion as Markdown.
        image: The image that was checked, for the history tags.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.

    Returns:
        versions: The version of each registered model that holds the alias now.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, promotion, reports
    from kfp_bento.runtime.models import load_given_models

    promoted = promotion.promote_models(
        load_given_models(models),
        [checks.CheckReport.load(Path(r.path)) for r in (smoke_report, comparison_report)],
        alias,
        image=image,
        tracking_uri=tracking_uri,
    )
    reports.write_json(promoted.to_dict(), Path(record.path))
    reports.write_text(reports.promotion_summary(promoted), Path(summary.path))
    return (promoted.versions,)
