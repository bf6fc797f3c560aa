"""The embedded default: run a pipeline and serve its release on this machine."""

from .compilation import compile_components, compile_pipelines
from .demo import Demo, run_demo
from .pipelines import load_pipeline, typed_arguments
from .runs import Run, Step, run_pipeline
from .services import NETWORK_VARIABLE, Service
from .target import ADDRESS_VARIABLE, local_target
from .tracking import TrackingServer, tracking_server

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
