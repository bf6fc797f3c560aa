"""The package_model component."""

from kfp_bento.components.package_model.component import package_model

__all__ = ["package_model"]
