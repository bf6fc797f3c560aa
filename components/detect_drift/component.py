"""Compare data with the statistics of those that a model was trained on."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def detect_drift(
    data: str,
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    statistics: dsl.Input[dsl.Artifact] = None,
    model_uri: str = "",
    psi: float = 0.2,
    ks: float = 0.0,
    total_variation: float = 0.0,
    missing: float = 0.1,
    new_values: float = 0.05,
    share: float = 0.3,
    columns: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    prediction: str = "",
    least_rows: int = 30,
    input_format: str = "",
    tracking_uri: str = "",
) -> bool:
    """Say whether data have drifted away from others, column by column.

    The answer is the step's one return value, so that a pipeline can branch on it. A limit of 0
    switches a measure off; few rows have to exceed what chance gives as well.

    Args:
        data: The data in question, CSV, Parquet or JSONL: a file or a folder, s3://bucket/key,
            minio://bucket/key, file:///path, or an https:// address of one file.
        statistics: What describe_data said of the other data; or else a model is named.
        model_uri: A model such as models:/credit@prod whose run has the artifact statistics.json,
            as the training components leave it.
        psi: Population stability index above which a column has drifted.
        ks: Kolmogorov-Smirnov statistic above which a column of numbers has.
        total_variation: Total variation above which a column of categories has.
        missing: Change of the share of missing values above which a column has.
        new_values: Share of rows with categories that were not there above which a column has.
        share: Share of the columns that may have drifted before the data have. A column
            that is missing or of another kind, and the prediction, always count.
        columns: Which columns; empty takes all that are described.
        prediction: The column of predictions, if the data have one.
        least_rows: Fewer rows than these are refused.
        input_format: csv, parquet or jsonl; empty takes what the names of the files say.
        tracking_uri: MLflow tracking server of the model; empty takes MLFLOW_TRACKING_URI.

    Returns:
        report: The check report as JSON, with each column.
        metrics: Columns, those that drifted, and the PSI of each.
        summary: The report as Markdown.
        page: The report with a histogram of each column, then and now, as HTML.
        Output: Whether the data have drifted.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks, reports

    found = checks.detect_drift(
        checks.given_statistics(statistics, model_uri, tracking_uri=tracking_uri),
        data,
        checks.DriftOptions(
            psi=psi,
            ks=ks,
            total_variation=total_variation,
            missing=missing,
            new_values=new_values,
            share=share,
            columns=tuple(columns),
            prediction=prediction,
            least_rows=least_rows,
        ),
        input_format=input_format,
    )
    reports.write_drift_check(
        found,
        report=Path(report.path),
        summary=Path(summary.path),
        page=Path(page.path),
        metrics=metrics.metadata,
    )
    return not found.passed
