"""Pipeline components: one interface each, the logic is in kfp_bento.runtime."""

from .build_bento import build_bento
from .build_image import build_image
from .compare_predictions import compare_predictions
from .deploy_bento import deploy_bento
from .promote_model import promote_model
from .pull_model import pull_model
from .smoke_test import smoke_test
from .train_wine_model import train_wine_model

__all__ = [
    "build_bento",
    "build_image",
    "compare_predictions",
    "deploy_bento",
    "promote_model",
    "pull_model",
    "smoke_test",
    "train_wine_model",
]
