"""Last stop: the alias moves to a version whose checks have passed."""

from kfp_bento.runtime.promotion.promotion import Promotion, promote_model

__all__ = ["Promotion", "promote_model"]
