"""Deployments: from an image by digest to a release.

`TARGETS` are the ways to serve one: each renders manifests out of its options, and tells which
Deployments must serve them. `write_manifests` keeps manifests as files, `diff_manifests` says what
they would change, `apply_manifests` hands them to a cluster, `roll_out` does that and waits,
`roll_back` and `delete_release` undo it; `deploy` does what is possible here.
"""

from kfp_bento.runtime.deployments.deploy import Deployed, choose_mode, deploy
from kfp_bento.runtime.deployments.kube.cluster import ObjectRef, cluster_configured
from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.deployments.options.names import bento_resource_name, deployment_name
from kfp_bento.runtime.deployments.options.option_docs import OptionDoc, option_docs
from kfp_bento.runtime.deployments.release.apply import Applied, apply_manifests
from kfp_bento.runtime.deployments.release.delete import Deleted, delete_release
from kfp_bento.runtime.deployments.release.diff import ObjectDiff, ReleaseDiff, diff_manifests
from kfp_bento.runtime.deployments.release.marks import record_release, revision_of
from kfp_bento.runtime.deployments.release.release import Release
from kfp_bento.runtime.deployments.release.rollout import Rollout, roll_back, roll_out
from kfp_bento.runtime.deployments.release.status import (
    ReleaseStatus,
    find_release,
    list_releases,
    release_status,
    wait_for_release,
)
from kfp_bento.runtime.deployments.release.verdict import Verdict
from kfp_bento.runtime.deployments.release.wait import wait_until_ready
from kfp_bento.runtime.deployments.targets.kserve.options import InferenceServiceOptions
from kfp_bento.runtime.deployments.targets.kserve.rules import canary_name
from kfp_bento.runtime.deployments.targets.permissions import (
    OPERATIONS,
    Permission,
    access_manifests,
    needed_permissions,
    role_rules,
)
from kfp_bento.runtime.deployments.targets.readiness import Problem, Watched, WatchedDeployment
from kfp_bento.runtime.deployments.targets.target import Kind, Target
from kfp_bento.runtime.deployments.targets.targets import TARGETS, target_of, watched_release
from kfp_bento.runtime.deployments.targets.workload.options import WorkloadOptions
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import manifest_problems
from kfp_bento.runtime.deployments.targets.yatai.request_options import BentoRequestOptions
from kfp_bento.runtime.deployments.targets.yatai.settings import BentoDeploymentOptions

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
