"""The train_sklearn component."""

from kfp_bento.components.train_sklearn.component import train_sklearn

__all__ = ["train_sklearn"]
