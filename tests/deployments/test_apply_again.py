"""What an apply did, and what it takes to make one fail; a real server in tests/cluster/."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from releases import apply_manifests, trial_changes
from stub_api_server import ApiServer, write_kubeconfig

from kfp_bento.runtime.errors import DeploymentError


def changes(manifests: list[dict[str, Any]], **options: Any) -> list[str]:
    return [entry.change for entry in apply_manifests(manifests, **options)]


def test_it_says_what_was_created_changed_and_left_alone(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    assert changes(manifests) == ["created", "created"]
    assert changes(manifests) == ["unchanged", "unchanged"]
    manifests[1]["spec"]["resources"]["limits"]["cpu"] = "900m"
    assert trial_changes(manifests) == ["unchanged", "changed"]
    assert changes(manifests) == ["unchanged", "changed"]


@pytest.mark.parametrize("status", [0, 409, 429, 500, 503, 504])
def test_what_passes_is_tried_again(
    api: ApiServer, manifests: list[dict[str, Any]], status: int
) -> None:
    api.passing = [(status, {}), (status, {})]
    assert changes(manifests) == ["created", "created"]
    assert api.passing == []


def test_the_server_s_wish_to_wait_is_kept(api: ApiServer, manifests: list[dict[str, Any]]) -> None:
    api.passing = [(429, {"Retry-After": "1"})]
    begun = time.monotonic()
    assert changes(manifests) == ["created", "created"]
    assert time.monotonic() - begun >= 1


def test_a_wish_longer_than_our_patience_ends_it(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    api.passing = [(429, {"Retry-After": "3600"})]
    with pytest.raises(DeploymentError, match="429"):
        changes(manifests, patience_seconds=5)


@pytest.mark.parametrize("status", [400, 403, 422])
def test_what_does_not_pass_is_asked_once(
    api: ApiServer, manifests: list[dict[str, Any]], status: int
) -> None:
    api.passing = [(status, {}), (status, {})]
    with pytest.raises(DeploymentError, match=f"{status}"):
        changes(manifests)
    assert len(api.passing) == 1


def test_a_token_that_was_renewed_on_disk_is_read_again(
    api: ApiServer,
    manifests: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_kubeconfig(tmp_path / "expiring", api.url, token="old")
    monkeypatch.setenv("KUBECONFIG", str(path))
    api.token = "old"
    seen: list[int] = []
    original = api.patch

    def patch(*arguments: Any) -> Any:
        if not seen:
            seen.append(1)
            write_kubeconfig(path, api.url, token="new")
            api.token = "new"
        return original(*arguments)

    monkeypatch.setattr(api, "patch", patch)
    assert changes(manifests) == ["created", "created"]


def test_a_token_that_stays_refused_is_an_error_without_the_token(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    api.token = "another"
    with pytest.raises(DeploymentError, match="401") as refused:
        changes(manifests)
    assert "none" not in str(refused.value)
    assert api.patches == []


def test_an_object_that_is_going_away_is_not_applied(
    api: ApiServer, manifests: list[dict[str, Any]]
) -> None:
    apply_manifests(manifests)
    api.objects["bentodeployments/wine"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.patches.clear()
    with pytest.raises(DeploymentError, match="is being deleted"):
        apply_manifests(manifests)
    assert {patch["query"].get("dryRun") for patch in api.patches} == {"All"}
