"""The embedded default: run a pipeline and serve its release on this machine."""

from kfp_bento.runtime.local.bento_process import Listening
from kfp_bento.runtime.local.compilation import compile_components, compile_pipelines
from kfp_bento.runtime.local.demo import run_demo
from kfp_bento.runtime.local.mlflow_server import tracking_server
from kfp_bento.runtime.local.pipelines import (
    deploys,
    load_pipeline,
    local_arguments,
    typed_arguments,
    values_here,
)
from kfp_bento.runtime.local.run_summary import run_summary, write_summary
from kfp_bento.runtime.local.runs import Run, RunFailed, Step, run_pipeline
from kfp_bento.runtime.local.serving import follow, serve_bento
from kfp_bento.runtime.local.target import ADDRESS_VARIABLE, LocalTarget, local_target
from kfp_bento.runtime.local.trying import Trial, try_image

__all__ = [
    "ADDRESS_VARIABLE",
    "Listening",
    "LocalTarget",
    "Run",
    "RunFailed",
    "Step",
    "Trial",
    "compile_components",
    "compile_pipelines",
    "deploys",
    "follow",
    "load_pipeline",
    "local_arguments",
    "local_target",
    "run_demo",
    "run_pipeline",
    "run_summary",
    "serve_bento",
    "tracking_server",
    "try_image",
    "typed_arguments",
    "values_here",
    "write_summary",
]
