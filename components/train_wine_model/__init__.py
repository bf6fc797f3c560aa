"""The train_wine_model component."""

from kfp_bento.components.train_wine_model.component import train_wine_model

__all__ = ["train_wine_model"]
