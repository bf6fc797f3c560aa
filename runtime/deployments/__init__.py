"""Deployments: from an image by digest to a release.

`render_bento_deployment` gives manifests, `write_manifests` keeps them as files,
`apply_manifests` hands them to a cluster, `deploy_bento` does what is possible here.
"""

from .apply import apply_manifests
from .bento_deployment import render_bento_deployment
from .cluster import cluster_configured
from .deploy import choose_mode, deploy_bento
from .manifests import write_manifests
from .names import bento_resource_name, deployment_name
from .portable_subset import manifest_problems
from .release import Release

__all__ = [
    "Release",
    "apply_manifests",
    "bento_resource_name",
    "choose_mode",
    "cluster_configured",
    "deploy_bento",
    "deployment_name",
    "manifest_problems",
    "render_bento_deployment",
    "write_manifests",
]
