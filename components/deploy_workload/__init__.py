"""The deploy_workload component."""

from kfp_bento.components.deploy_workload.component import deploy_workload

__all__ = ["deploy_workload"]
