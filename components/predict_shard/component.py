"""Ask a bento about one shard of a table."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def predict_shard(
    bento: dsl.Input[dsl.Model],
    plan: dsl.Input[dsl.Artifact],
    shard: int,
    input_uri: str,
    output_uri: str,
    workers: int = 0,
) -> int:
    """Ask a bento about one shard of a plan, and write its part; a finished one is kept.

    The bento runs in its locked environment, without network. The part and then its record appear
    whole or not at all.

    Credentials come from the environment, from a Secret mounted at /etc/kfp-bento/storage, or from
    the pod's identity; the bento sees none of them.

    Args:
        bento: The bento that the plan was made for.
        plan: From plan_batch.
        shard: The number of the shard.
        input_uri: The input that the plan was made for; it must not have changed.
        output_uri: A folder for the parts, their records and manifest.json: s3://bucket/folder,
            minio://bucket/folder or file:///path.
        workers: Processes of the bento; 0 takes one for each processor.

    Returns:
        Output: How many rows the part has.
    """
    from pathlib import Path

    from kfp_bento.runtime import batch, bentos

    part = batch.predict_shard(
        bentos.load_given_bento(bento),
        batch.load_plan(Path(plan.path)),
        shard,
        input_uri,
        output_uri,
        workers=workers,
    )
    return part.rows
