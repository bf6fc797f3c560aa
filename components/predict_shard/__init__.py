"""The predict_shard component."""

from kfp_bento.components.predict_shard.component import predict_shard

__all__ = ["predict_shard"]
