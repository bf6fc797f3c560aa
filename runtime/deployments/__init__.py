"""Deployments: from an image by digest to a release.

`TARGETS` are the ways to serve one: each renders a `Release` out of its options. `diff_release`
says what it would change; `deploy` writes its manifests, hands them to a cluster and waits, or does
what else is possible here; `roll_back` and `delete_release` undo it.
"""

from kfp_bento.runtime.deployments.deploy import Deployed, choose_mode, deploy
from kfp_bento.runtime.deployments.kube.cluster import ObjectRef, cluster_configured
from kfp_bento.runtime.deployments.options.names import bento_resource_name, deployment_name
from kfp_bento.runtime.deployments.options.option_docs import OptionDoc, option_docs
from kfp_bento.runtime.deployments.release.apply import Applied
from kfp_bento.runtime.deployments.release.delete import Deleted, delete_release
from kfp_bento.runtime.deployments.release.diff import ObjectDiff, ReleaseDiff, diff_release
from kfp_bento.runtime.deployments.release.rollout import Rollout, roll_back
from kfp_bento.runtime.deployments.release.status import (
    ReleaseStatus,
    find_release,
    list_releases,
    release_status,
    wait_for_release,
)
from kfp_bento.runtime.deployments.release.verdict import Verdict, Waiting
from kfp_bento.runtime.deployments.targets.kserve.render import InferenceServiceOptions, canary_name
from kfp_bento.runtime.deployments.targets.permissions import (
    OPERATIONS,
    Permission,
    access_manifests,
    needed_permissions,
    role_rules,
)
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.target import Kind, Target
from kfp_bento.runtime.deployments.targets.targets import TARGETS, target_of
from kfp_bento.runtime.deployments.targets.task_settings import render_for_task
from kfp_bento.runtime.deployments.targets.workload.render import WorkloadOptions
from kfp_bento.runtime.deployments.targets.yatai.deployment import BentoDeploymentOptions
from kfp_bento.runtime.deployments.targets.yatai.request import BentoRequestOptions

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
    "Release",
    "ReleaseDiff",
    "ReleaseStatus",
    "Rollout",
    "Target",
    "Verdict",
    "Waiting",
    "WorkloadOptions",
    "access_manifests",
    "bento_resource_name",
    "canary_name",
    "choose_mode",
    "cluster_configured",
    "delete_release",
    "deploy",
    "deployment_name",
    "diff_release",
    "find_release",
    "list_releases",
    "needed_permissions",
    "option_docs",
    "release_status",
    "render_for_task",
    "role_rules",
    "roll_back",
    "target_of",
    "wait_for_release",
]
