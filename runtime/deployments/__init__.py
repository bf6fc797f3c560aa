"""Deployments: from an image by digest to a release.

`TARGETS` are the ways to serve one: each renders a `Release` out of its options. `diff_release`
says what it would change; `deploy` writes its manifests, hands them to a cluster and waits, or does
what else is possible here. What was deployed is on trial: `confirm_release` keeps it as the good
one, `leave_release` brings the last good one back. `roll_back` and `delete_release` undo it.
"""

from kfp_bento.runtime.deployments.deploy import Deployed, choose_mode, deploy
from kfp_bento.runtime.deployments.kube.namespaces import own_namespace
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.local_target import is_of_this_user
from kfp_bento.runtime.deployments.monitoring import Monitoring
from kfp_bento.runtime.deployments.moving import moved_release
from kfp_bento.runtime.deployments.options.names import label_name_problem, resource_name_problem
from kfp_bento.runtime.deployments.options.option_docs import option_docs
from kfp_bento.runtime.deployments.release.apply import Applied
from kfp_bento.runtime.deployments.release.delete import delete_release
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_release
from kfp_bento.runtime.deployments.release.release_facts import ReleaseFacts, load_given_release
from kfp_bento.runtime.deployments.release.rolling_back import roll_back
from kfp_bento.runtime.deployments.release.rollout import Rollout
from kfp_bento.runtime.deployments.release.status import (
    ReleaseStatus,
    find_release,
    list_releases,
    release_facts,
    release_status,
    served_release,
    unsettled_releases,
    wait_for_release,
)
from kfp_bento.runtime.deployments.release.verdict import Verdict, Waiting
from kfp_bento.runtime.deployments.settling import (
    Settlement,
    confirm_release,
    end_promotion,
    keep_contract,
    kept_contract,
    last_good_image,
    leave_release,
    promotion_under_way,
)
from kfp_bento.runtime.deployments.targets.permissions import OPERATIONS, access_manifests
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.targets import TARGETS, target_of
from kfp_bento.runtime.deployments.targets.task_settings import render_for_task, renderer_for_task

__all__ = [
    "OPERATIONS",
    "TARGETS",
    "Applied",
    "Deployed",
    "Monitoring",
    "ObjectRef",
    "Release",
    "ReleaseDiff",
    "ReleaseFacts",
    "ReleaseStatus",
    "Rollout",
    "Settlement",
    "Verdict",
    "Waiting",
    "access_manifests",
    "choose_mode",
    "confirm_release",
    "delete_release",
    "deploy",
    "diff_release",
    "end_promotion",
    "find_release",
    "is_of_this_user",
    "keep_contract",
    "kept_contract",
    "label_name_problem",
    "last_good_image",
    "leave_release",
    "list_releases",
    "load_given_release",
    "moved_release",
    "option_docs",
    "own_namespace",
    "promotion_under_way",
    "release_facts",
    "release_status",
    "render_for_task",
    "renderer_for_task",
    "resource_name_problem",
    "roll_back",
    "served_release",
    "target_of",
    "unsettled_releases",
    "wait_for_release",
]
