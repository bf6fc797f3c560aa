"""The predict_batch component."""

from kfp_bento.components.predict_batch.component import predict_batch

__all__ = ["predict_batch"]
