"""The check_contract component."""

from kfp_bento.components.check_contract.component import check_contract

__all__ = ["check_contract"]
