"""Last stop: the alias moves to versions whose checks have passed."""

from kfp_bento.runtime.promotion.promotion import Promotion, promote_models

__all__ = ["Promotion", "promote_models"]
