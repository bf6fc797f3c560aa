"""Many rows at once: a bento asked about files of them, in shards, in its locked environment."""

from kfp_bento.runtime.batch.answers import (
    Answers,
    Table,
    bento_answers,
    open_table,
    service_answers,
)
from kfp_bento.runtime.batch.asking import Answered
from kfp_bento.runtime.batch.bodies import table_bodies
from kfp_bento.runtime.batch.columns import numbers, typed_column
from kfp_bento.runtime.batch.options import BatchOptions
from kfp_bento.runtime.batch.plan import load_plan, plan_batch
from kfp_bento.runtime.batch.routes import Route, find_route, route_of
from kfp_bento.runtime.batch.running import Manifest, collect_batch, predict_batch, predict_shard
from kfp_bento.runtime.batch.tables import Rows

__all__ = [
    "Answered",
    "Answers",
    "BatchOptions",
    "Manifest",
    "Route",
    "Rows",
    "Table",
    "bento_answers",
    "collect_batch",
    "find_route",
    "load_plan",
    "numbers",
    "open_table",
    "plan_batch",
    "predict_batch",
    "predict_shard",
    "route_of",
    "service_answers",
    "table_bodies",
    "typed_column",
]
