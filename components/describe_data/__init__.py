"""The describe_data component."""

from kfp_bento.components.describe_data.component import describe_data

__all__ = ["describe_data"]
