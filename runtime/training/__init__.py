"""Ready-made training: a table becomes a registered model, which the road takes from there."""

from kfp_bento.runtime.training.options import TrainOptions
from kfp_bento.runtime.training.train import train_model

__all__ = ["TrainOptions", "train_model"]
