"""Many rows at once: a bento asked about files of them, in shards, in its locked environment."""

from kfp_bento.runtime.batch.bodies import table_bodies
from kfp_bento.runtime.batch.options import BatchOptions
from kfp_bento.runtime.batch.plan import load_plan, plan_batch
from kfp_bento.runtime.batch.running import Manifest, collect_batch, predict_batch, predict_shard

__all__ = [
    "BatchOptions",
    "Manifest",
    "collect_batch",
    "load_plan",
    "plan_batch",
    "predict_batch",
    "predict_shard",
    "table_bodies",
]
