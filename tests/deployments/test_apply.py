"""Server-side apply, against a stub.

The stub speaks just enough discovery and PATCH to see what is sent and to give answers that a
real API server gives seldom; it validates and merges nothing. tests/cluster/ does, with a real
kube-apiserver and the real CRDs.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from releases import apply_manifests, trial_changes
from sample_bentos import IMAGE, make_bento
from stub_api_server import ApiServer, conflict, refusal, write_kubeconfig

from kfp_bento.runtime.deployments import TARGETS, diff_release
from kfp_bento.runtime.errors import DeploymentError

BENTOES, DEPLOYMENTS = "bentoes", "bentodeployments"


def test_all_manifests_are_tried_before_any_is_applied(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    apply_manifests(manifests)
    sent = [(patch["plural"], patch["query"].get("dryRun")) for patch in api.patches]
    assert sent == [
        (BENTOES, "All"),
        (DEPLOYMENTS, "All"),
        (BENTOES, None),
        (DEPLOYMENTS, None),
    ]


def test_what_is_sent_is_a_server_side_apply_under_our_name(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    apply_manifests(manifests)
    last = api.patches[-1]
    assert last["path"] == (
        "/apis/serving.yatai.ai/v2alpha1/namespaces/serving/bentodeployments/wine"
    )
    assert last["content_type"] == "application/apply-patch+yaml"
    assert last["query"] == {
        "fieldManager": "kfp-bento",
        "force": "False",
        "fieldValidation": "Strict",
    }
    assert last["body"] == manifests[1]


def test_a_dry_run_changes_nothing(api: ApiServer, manifests: list[dict[str, Any]]) -> None:
    assert trial_changes(manifests) == ["created", "created"]
    assert {patch["query"].get("dryRun") for patch in api.patches} == {"All"}
    assert api.objects == {}


def test_a_refusal_of_the_second_leaves_the_first_unapplied(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    api.refusals[(DEPLOYMENTS, True)] = refusal(422, "Invalid", "spec.bento: Required value")
    with pytest.raises(
        DeploymentError, match=r"BentoDeployment serving/wine was refused.*Required"
    ):
        apply_manifests(manifests)
    assert api.objects == {}


def test_a_conflict_names_the_owners_and_their_fields(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    api.refusals[(DEPLOYMENTS, True)] = conflict(
        ("kubectl", ".spec.autoscaling"), ("argocd", ".spec.bento"), ("kubectl", ".spec.resources")
    )
    with pytest.raises(DeploymentError) as conflicted:
        apply_manifests(manifests)
    told = conflicted.value.message
    assert "kubectl owns .spec.autoscaling, .spec.resources; argocd owns .spec.bento" in told
    assert "force" in conflicted.value.hint
    assert api.objects == {}


def test_fields_are_taken_over_only_when_asked(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    for trial in (True, False):
        api.refusals[(DEPLOYMENTS, trial)] = conflict(("kubectl", ".spec.bento"))
    apply_manifests(manifests, force=True)
    assert f"{DEPLOYMENTS}/wine" in api.objects


@pytest.mark.parametrize(
    ("groups", "missing"),
    [
        (("resources.yatai.ai",), "serving.yatai.ai/v2alpha1 BentoDeployment"),
        ((), "resources.yatai.ai/v1alpha1 Bento"),
    ],
)
def test_missing_crds_are_named_with_what_to_install(
    api: ApiServer, groups: tuple[str, ...], missing: str
) -> None:
    api.groups = groups
    release = TARGETS["bento-deployment"].render(IMAGE, make_bento(), {"namespace": "serving"})
    with pytest.raises(DeploymentError) as unknown:
        diff_release(release)
    assert missing in unknown.value.message
    assert "yatai-deployment" in unknown.value.hint
    assert api.patches == []


@pytest.mark.parametrize(
    ("status", "reason", "message", "hint"),
    [
        (401, "Unauthorized", "Unauthorized", "credentials"),
        (403, "Forbidden", 'cannot patch resource "bentoes"', "kustomize base"),
        (404, "NotFound", 'namespaces "serving" not found', "Create the namespace"),
        (503, "ServiceUnavailable", "shutting down", "again is safe"),
    ],
)
def test_a_refusal_says_what_the_server_said_and_what_to_do(
    api: ApiServer,
    manifests: list[dict[str, Any]],
    status: int,
    reason: str,
    message: str,
    hint: str,
) -> None:
    api.refusals[(BENTOES, True)] = refusal(status, reason, message)
    with pytest.raises(DeploymentError) as refused:
        apply_manifests(manifests, patience_seconds=0.5)
    assert f"({status}): {message}" in refused.value.message
    assert hint in refused.value.hint


def test_a_silent_cluster_is_an_error_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests: list[dict[str, Any]]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    config = write_kubeconfig(tmp_path / "kubeconfig", f"http://{address}")
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(DeploymentError, match=f"{address} does not answer"):
        apply_manifests(manifests, patience_seconds=0.5)


def test_a_context_that_does_not_exist_is_an_error(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    with pytest.raises(DeploymentError, match=r"No cluster is configured.*staging"):
        apply_manifests(manifests, context="staging")


def test_discovery_leaves_no_cache_behind(
    api: ApiServer,
    manifests: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    apply_manifests(manifests)
    assert list(scratch.iterdir()) == []
