"""The train_wine_model component."""

from .component import train_wine_model

__all__ = ["train_wine_model"]
