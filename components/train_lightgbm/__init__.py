"""The train_lightgbm component."""

from kfp_bento.components.train_lightgbm.component import train_lightgbm

__all__ = ["train_lightgbm"]
