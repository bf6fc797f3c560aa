"""Deployments: from an image by digest to a release.

`TARGETS` are the ways to serve one: each renders manifests out of its options, and tells which
Deployments must serve them. `write_manifests` keeps manifests as files, `diff_manifests` says what
they would change, `apply_manifests` hands them to a cluster, `roll_out` does that and waits,
`roll_back` and `delete_release` undo it; `deploy` does what is possible here.
"""

from .apply import Applied, apply_manifests
from .bento_deployment import BentoDeploymentOptions, render_bento_deployment
from .bento_request import BentoRequestOptions
from .cluster import ObjectRef, cluster_configured
from .delete import Deleted, delete_release
from .deploy import Deployed, choose_mode, deploy
from .diff import ObjectDiff, ReleaseDiff, diff_manifests
from .inference_service import InferenceServiceOptions, canary_name
from .manifests import write_manifests
from .marks import record_release, revision_of
from .names import bento_resource_name, deployment_name
from .option_docs import OptionDoc, option_docs
from .permissions import (
    OPERATIONS,
    Permission,
    access_manifests,
    needed_permissions,
    role_rules,
)
from .portable_subset import manifest_problems
from .release import Release
from .rollout import Rollout, roll_back, roll_out
from .status import (
    ReleaseStatus,
    find_release,
    list_releases,
    release_status,
    wait_for_release,
)
from .target import Kind, Target
from .targets import TARGETS, target_of, watched_release
from .verdict import Verdict
from .wait import wait_until_ready
from .watched import Problem, Watched, WatchedDeployment
from .workload import WorkloadOptions

__all__ = [
    "OPERATIONS",
    "TARGETS",
    "Applied",
    "BentoDeploymentOptions",
    "BentoRequestOptions",
    "Deleted",
    "Deployed",
    "InferenceServiceOptions",
    "Kind",
    "ObjectDiff",
    "ObjectRef",
    "OptionDoc",
    "Permission",
    "Problem",
    "Release",
    "ReleaseDiff",
    "ReleaseStatus",
    "Rollout",
    "Target",
    "Verdict",
    "Watched",
    "WatchedDeployment",
    "WorkloadOptions",
    "access_manifests",
    "apply_manifests",
    "bento_resource_name",
    "canary_name",
    "choose_mode",
    "cluster_configured",
    "delete_release",
    "deploy",
    "deployment_name",
    "diff_manifests",
    "find_release",
    "list_releases",
    "manifest_problems",
    "needed_permissions",
    "option_docs",
    "record_release",
    "release_status",
    "render_bento_deployment",
    "revision_of",
    "role_rules",
    "roll_back",
    "roll_out",
    "target_of",
    "wait_for_release",
    "wait_until_ready",
    "watched_release",
    "write_manifests",
]
