"""The deploy_inference_service component."""

from .component import deploy_inference_service

__all__ = ["deploy_inference_service"]
