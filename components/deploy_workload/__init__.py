"""The deploy_workload component."""

from .component import deploy_workload

__all__ = ["deploy_workload"]
