"""Look at a table before a bento is asked about it."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def plan_batch(
    bento: dsl.Input[dsl.Model],
    input_uri: str,
    plan: dsl.Output[dsl.Artifact],
    api: str = "",
    inputs: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    keep: list = ["*"],  # noqa: B006
    input_format: str = "",
    output_format: str = "",
    on_error: str = "fail",
    batch_rows: int = 0,
    params: dict = {},  # noqa: B006
    shards: int = 4,
) -> list:
    """Count and digest the rows of a table, check them against the bento, and cut shards.

    A column that the model needs and the table lacks ends the run here. Nothing of the bento runs.

    Credentials come from the environment, from a Secret mounted at /etc/kfp-bento/storage, or from
    the pod's identity.

    Args:
        bento: A bento directory from build_bento or import_bento.
        input_uri: A file, or a folder of files in the order of their names: s3://bucket/key,
            minio://bucket/key, file:///path, or an https:// address of one file.
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

    Returns:
        plan: What predict_shard and collect_batch go by.
        Output: The numbers of the shards, for a loop. (The local runner of Kubeflow Pipelines loops
            over a component's only output alone.)
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
    made = batch.plan_batch(bentos.load_given_bento(bento), input_uri, options, shards=shards)
    made.save(Path(plan.path))
    plan.metadata.update(rows=made.rows, key=made.key)
    return list(range(len(made.shards)))
