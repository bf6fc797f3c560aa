"""Deployments: from an image by digest to a release.

`render_bento_deployment` gives manifests, `write_manifests` keeps them as files, `diff_manifests`
says what they would change, `apply_manifests` hands them to a cluster, `roll_out` does that and
waits, `roll_back` and `delete_release` undo it; `deploy_bento` does what is possible here.
"""

from .apply import Applied, apply_manifests
from .bento_deployment import render_bento_deployment
from .cluster import ObjectRef, cluster_configured
from .delete import Deleted, delete_release
from .deploy import choose_mode, deploy_bento
from .diff import ObjectDiff, ReleaseDiff, diff_manifests
from .manifests import write_manifests
from .names import bento_resource_name, deployment_name
from .permissions import Permission, needed_permissions, role_rules
from .portable_subset import manifest_problems
from .record import record_release
from .release import Release
from .rollback import Rollout, roll_back, roll_out
from .status import ReleaseStatus, release_status
from .wait import Verdict, Watched, WatchedDeployment, wait_until_ready, watched_release

__all__ = [
    "Applied",
    "Deleted",
    "ObjectDiff",
    "ObjectRef",
    "Permission",
    "Release",
    "ReleaseDiff",
    "ReleaseStatus",
    "Rollout",
    "Verdict",
    "Watched",
    "WatchedDeployment",
    "apply_manifests",
    "bento_resource_name",
    "choose_mode",
    "cluster_configured",
    "delete_release",
    "deploy_bento",
    "deployment_name",
    "diff_manifests",
    "manifest_problems",
    "needed_permissions",
    "record_release",
    "release_status",
    "render_bento_deployment",
    "role_rules",
    "roll_back",
    "roll_out",
    "wait_until_ready",
    "watched_release",
    "write_manifests",
]
