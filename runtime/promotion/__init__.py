"""Last stop: the alias moves to versions whose checks have passed, together with the endpoint."""

from kfp_bento.runtime.promotion.promotion import (
    Promotion,
    confirm_checked,
    promote_release,
    run_name,
)
from kfp_bento.runtime.promotion.rolling_back import MovedBack, roll_back_release, settle_run

__all__ = [
    "MovedBack",
    "Promotion",
    "confirm_checked",
    "promote_release",
    "roll_back_release",
    "run_name",
    "settle_run",
]
