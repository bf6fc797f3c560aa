"""The deploy_bento component."""

from kfp_bento.components.deploy_bento.component import deploy_bento

__all__ = ["deploy_bento"]
