"""Finish a batch whose shards are all there."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def collect_batch(
    plan: dsl.Input[dsl.Artifact],
    output_uri: str,
    manifest: dsl.Output[dsl.Artifact],
    part_rows: list = [],  # noqa: B006 - KFP wants the default in the signature
) -> NamedTuple("Outputs", [("rows", int), ("errors", int)]):
    """Make sure that every shard of a plan is there, and write the manifest of the whole.

    Parts that an earlier batch left in the same folder are removed.

    Credentials come from the environment, from a Secret mounted at /etc/kfp-bento/storage, or from
    the pod's identity.

    Args:
        plan: From plan_batch.
        output_uri: A folder for the parts, their records and manifest.json: s3://bucket/folder,
            minio://bucket/folder or file:///path.
        part_rows: What the steps of the shards gave, so that this one waits for them.

    Returns:
        manifest: Counts, and the digests of input, bento and each part.
        rows: How many rows there are.
        errors: How many of them have an error instead of an answer.
    """
    from pathlib import Path

    from kfp_bento.runtime import batch

    done = batch.collect_batch(batch.load_plan(Path(plan.path)), output_uri)
    done.save(Path(manifest.path))
    return (done.plan.rows, done.errors)
