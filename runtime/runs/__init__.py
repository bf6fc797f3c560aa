"""Runs on Kubeflow Pipelines: submitted, followed, and begun when an alias moves."""

from kfp_bento.runtime.runs.following import follow_run
from kfp_bento.runtime.runs.server import PipelinesApi, choose_server
from kfp_bento.runtime.runs.submitting import Submission, submit_run

__all__ = [
    "PipelinesApi",
    "Submission",
    "choose_server",
    "follow_run",
    "submit_run",
]
