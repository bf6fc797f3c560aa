"""Runs on Kubeflow Pipelines: submitted, followed, and begun when an alias moves."""

from kfp_bento.runtime.runs.following import follow_run
from kfp_bento.runtime.runs.manifests import WatchPod, watch_manifests
from kfp_bento.runtime.runs.package import make_package
from kfp_bento.runtime.runs.registry import Registry, read_watched
from kfp_bento.runtime.runs.server import IN_CLUSTER, PipelinesApi, choose_server
from kfp_bento.runtime.runs.submitting import Submission, submit_run
from kfp_bento.runtime.runs.watching import Trigger, Watch
from kfp_bento.runtime.runs.webhook import (
    SECRET,
    Bell,
    listening,
    read_address,
    require_secret,
    seldom,
)

__all__ = [
    "IN_CLUSTER",
    "SECRET",
    "Bell",
    "PipelinesApi",
    "Registry",
    "Submission",
    "Trigger",
    "Watch",
    "WatchPod",
    "choose_server",
    "follow_run",
    "listening",
    "make_package",
    "read_address",
    "read_watched",
    "require_secret",
    "seldom",
    "submit_run",
    "watch_manifests",
]
