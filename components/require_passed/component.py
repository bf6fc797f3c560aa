"""Fail a run whose release was refused, with the reason."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def require_passed(reports: dsl.Input[dsl.Artifact]):
    """Fail where a check did not pass, with what it says as the last line of the log.

    A step that finds something wrong ends well, so that Kubeflow keeps its reports; this one makes
    the run fail.

    Args:
        reports: The reports of check_and_promote, check_release or shift_requests.
    """
    from kfp_bento.runtime import promotion

    promotion.require_passed(reports)
