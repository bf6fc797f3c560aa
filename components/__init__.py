"""Pipeline components: one interface each, the logic is in kfp_bento.runtime."""

from .build_bento import build_bento
from .build_image import build_image
from .compare_predictions import compare_predictions
from .deploy_bento import deploy_bento
from .deploy_inference_service import deploy_inference_service
from .deploy_workload import deploy_workload
from .promote_model import promote_model
from .pull_model import pull_model
from .request_bento import request_bento
from .roll_back import roll_back
from .smoke_test import smoke_test
from .train_wine_model import train_wine_model

__all__ = [
    "build_bento",
    "build_image",
    "compare_predictions",
    "deploy_bento",
    "deploy_inference_service",
    "deploy_workload",
    "promote_model",
    "pull_model",
    "request_bento",
    "roll_back",
    "smoke_test",
    "train_wine_model",
]
