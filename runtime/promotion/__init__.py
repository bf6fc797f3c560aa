"""Last stop: the alias moves to versions whose checks have passed, together with the endpoint."""

from kfp_bento.runtime.promotion.approval import await_approval, decide, load_given_approval
from kfp_bento.runtime.promotion.promotion import (
    Promotion,
    confirm_checked,
    promote_release,
    run_name,
)
from kfp_bento.runtime.promotion.releasing import Released, check_and_promote
from kfp_bento.runtime.promotion.rolling_back import MovedBack, roll_back_release, settle_run
from kfp_bento.runtime.promotion.shifting import Shifting, require_passed, shift_requests

__all__ = [
    "MovedBack",
    "Promotion",
    "Released",
    "Shifting",
    "await_approval",
    "check_and_promote",
    "confirm_checked",
    "decide",
    "load_given_approval",
    "promote_release",
    "require_passed",
    "roll_back_release",
    "run_name",
    "settle_run",
    "shift_requests",
]
