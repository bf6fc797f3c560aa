"""The kind that KServe brings."""

from __future__ import annotations

from kfp_bento.runtime.deployments.targets.target import Kind

INFERENCE_SERVICE_KIND = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
