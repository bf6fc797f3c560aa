"""Deployments: from an image by digest to a release.

`TARGETS` are the ways to serve one: each renders manifests out of its options, and tells which
Deployments must serve them. `write_manifests` keeps manifests as files, `apply_manifests` hands
them to a cluster, `deploy_bento` does what is possible here.
"""

from .bento_deployment import BentoDeploymentOptions, render_bento_deployment
from .bento_request import BentoRequestOptions
from .cluster import apply_manifests, cluster_configured
from .deploy import choose_mode, deploy_bento
from .inference_service import InferenceServiceOptions, canary_name
from .manifests import write_manifests
from .names import bento_resource_name, deployment_name
from .portable_subset import manifest_problems
from .release import Release
from .targets import TARGETS, Problem, Target, Workload, target_of
from .workload import WorkloadOptions

__all__ = [
    "TARGETS",
    "BentoDeploymentOptions",
    "BentoRequestOptions",
    "InferenceServiceOptions",
    "Problem",
    "Release",
    "Target",
    "Workload",
    "WorkloadOptions",
    "apply_manifests",
    "bento_resource_name",
    "canary_name",
    "choose_mode",
    "cluster_configured",
    "deploy_bento",
    "deployment_name",
    "manifest_problems",
    "render_bento_deployment",
    "target_of",
    "write_manifests",
]
