"""The resolve_models component."""

from kfp_bento.components.resolve_models.component import resolve_models

__all__ = ["resolve_models"]
