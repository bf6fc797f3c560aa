"""The embedded default: run a pipeline and serve its release on this machine."""

from kfp_bento.runtime.local.compilation import compile_components, compile_pipelines
from kfp_bento.runtime.local.demo import Demo, run_demo
from kfp_bento.runtime.local.mlflow_server import TrackingServer, tracking_server
from kfp_bento.runtime.local.pipelines import load_pipeline, typed_arguments
from kfp_bento.runtime.local.runs import Run, Step, run_pipeline
from kfp_bento.runtime.local.services import NETWORK_VARIABLE, Service
from kfp_bento.runtime.local.target import ADDRESS_VARIABLE, local_target

__all__ = [
    "ADDRESS_VARIABLE",
    "NETWORK_VARIABLE",
    "Demo",
    "Run",
    "Service",
    "Step",
    "TrackingServer",
    "compile_components",
    "compile_pipelines",
    "load_pipeline",
    "local_target",
    "run_demo",
    "run_pipeline",
    "tracking_server",
    "typed_arguments",
]
