"""The train_xgboost component."""

from kfp_bento.components.train_xgboost.component import train_xgboost

__all__ = ["train_xgboost"]
