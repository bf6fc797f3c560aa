"""Describe the columns of data, so that a drift can be seen later."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def describe_data(
    data: str,
    statistics: dsl.Output[dsl.Artifact],
    columns: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    input_format: str = "",
) -> int:
    """Describe the columns of data in a small document, in memory that does not grow with the rows.

    Of numbers: mean, spread, extent and the counts between quantiles; of texts and booleans the
    most frequent values. The same data give the same bytes.

    Args:
        data: CSV, Parquet or JSONL: a file or a folder, s3://bucket/key, minio://bucket/key,
            file:///path, or an https:// address of one file.
        columns: Which columns; empty takes all.
        input_format: csv, parquet or jsonl; empty takes what the names of the files say.

    Returns:
        statistics: The statistics as JSON, for detect_drift.
        Output: How many rows there are.
    """
    from pathlib import Path

    from kfp_bento.runtime import checks

    found = checks.describe_data(data, columns, input_format=input_format)
    found.save(Path(statistics.path))
    return found.rows
