"""Ask a bento about all rows of a table."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def predict_batch(
    bento: dsl.Input[dsl.Model],
    input_uri: str,
    output_uri: str,
    manifest: dsl.Output[dsl.Artifact],
    api: str = "",
    inputs: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    keep: list = ["*"],  # noqa: B006
    input_format: str = "",
    output_format: str = "",
    on_error: str = "fail",
    batch_rows: int = 0,
    params: dict = {},  # noqa: B006
    shards: int = 0,
    workers: int = 0,
) -> NamedTuple("Outputs", [("rows", int), ("errors", int)]):
    """Ask a bento about all rows of CSV, Parquet or JSONL, in this one step.

    The bento runs in its locked environment, without network. Rows in are rows out, in order. A
    step that was killed goes on with the shards that were finished; the same input, bento and
    options give the same bytes.

    Credentials come from the environment, from a Secret mounted at /etc/kfp-bento/storage, or from
    the pod's identity; the bento sees none of them.

    Args:
        bento: A bento directory from build_bento or import_bento.
        input_uri: A file, or a folder of files in the order of their names: s3://bucket/key,
            minio://bucket/key, file:///path, or an https:// address of one file.
        output_uri: A folder for the parts, their records and manifest.json: s3://bucket/folder,
            minio://bucket/folder or file:///path.
        api: The API that answers: its name, its path, or one of several models; empty where there
            is one only.
        inputs: Columns that the model gets, in its order, where its signature names none; empty
            gives it all.
        keep: Columns of the input that stand before the predictions in the output; ["*"] keeps all.
        input_format: csv, parquet or jsonl; empty takes what the names of the files say.
        output_format: csv, parquet or jsonl; empty takes that of the input.
        on_error: fail ends the step at a row that the model refuses; row gives that row an error.
        batch_rows: Rows of one request; 0 takes what suits the number of columns.
        params: The model's parameters, or other arguments of the API.
        shards: Parts of the output, at most; 0 makes one for every 100,000 rows.
        workers: Processes of the bento; 0 takes one for each processor.

    Returns:
        manifest: Counts, and the digests of input, bento and each part.
        rows: How many rows there are.
        errors: How many of them have an error instead of an answer.
    """
    from pathlib import Path

    from kfp_bento.runtime import batch, bentos

    options = batch.BatchOptions(
        api=api,
        inputs=tuple(inputs),
        keep=tuple(keep),
        input_format=input_format,
        output_format=output_format,
        on_error=on_error,
        batch_rows=batch_rows,
        params=params,
    )
    done = batch.predict_batch(
        bentos.load_given_bento(bento),
        input_uri,
        output_uri,
        options,
        shards=shards,
        workers=workers,
    )
    done.save(Path(manifest.path))
    return (done.plan.rows, done.errors)
