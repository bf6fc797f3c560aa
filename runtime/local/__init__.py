"""The embedded default: run a pipeline and serve its release on this machine."""

from kfp_bento.runtime.local.compilation import compile_components, compile_pipelines
from kfp_bento.runtime.local.demo import run_demo
from kfp_bento.runtime.local.pipelines import load_pipeline, typed_arguments
from kfp_bento.runtime.local.runs import Step, run_pipeline
from kfp_bento.runtime.local.target import ADDRESS_VARIABLE, local_target

__all__ = [
    "ADDRESS_VARIABLE",
    "Step",
    "compile_components",
    "compile_pipelines",
    "load_pipeline",
    "local_target",
    "run_demo",
    "run_pipeline",
    "typed_arguments",
]
