"""The deploy_inference_service component."""

from kfp_bento.components.deploy_inference_service.component import deploy_inference_service

__all__ = ["deploy_inference_service"]
