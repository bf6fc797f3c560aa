"""Policies and tokens of releases, as a real API server takes, keeps and forgets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live_cluster import LiveCluster
from releases import roll_out
from sample_bentos import generated_bento, make_bento
from test_every_target_is_accepted import lost
from workload_releases import FIRST

from kfp_bento.runtime.deployments import TARGETS, Release, delete_release, diff_release

POLICY = ("networking.k8s.io/v1", "NetworkPolicy")
GIVEN: dict[str, dict[str, Any]] = {
    "own namespace": {"ingress": []},
    "nobody is called": {"ingress": ["team"], "egress": "none"},
    "dns": {"egress": "dns"},
    "all of it": {
        "ingress": [
            "istio-system",
            {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            {"ipBlock": {"cidr": "fd00::/8"}},
        ],
        "egress": ["dns", {"ipBlock": {"cidr": "10.0.0.7/32"}, "ports": [443.0]}],
    },
}


def rendered(target: str, namespace: str, **options: Any) -> Release:
    given = {"namespace": namespace, **options}
    image = "" if target == "bento-request" else FIRST
    if target == "bento-request":
        given["archive_url"] = "s3://b/wine.bento"
    return TARGETS[target].render(image, make_bento(), given)


@pytest.mark.parametrize("given", GIVEN.values(), ids=list(GIVEN))
@pytest.mark.parametrize("target", TARGETS)
def test_a_policy_is_taken_and_kept_as_it_is(
    cluster: LiveCluster, namespace: str, target: str, given: dict[str, Any]
) -> None:
    manifests = rendered(target, namespace, network_policy=given).manifests
    policy = next(one for one in manifests if one["kind"] == "NetworkPolicy")
    kept = cluster.api.apply(policy)
    found = [place for place in lost(policy, kept) if not place.endswith(".egress")]
    assert found == []
    # Nobody may be called: the API server leaves the empty list out, and the type stays.
    assert kept["spec"]["policyTypes"] == policy["spec"]["policyTypes"]


def test_a_policy_comes_with_the_release_shows_in_a_diff_and_goes_when_it_is_not_asked_for(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    apart = rendered("workload", namespace, network_policy=GIVEN["nobody is called"])
    shown = diff_release(apart)
    assert "kind: NetworkPolicy" in shown.text
    assert roll_out(apart).verdict.ready
    assert cluster.api.get(*POLICY, namespace, "wine")
    assert not roll_out(apart).changed
    done = roll_out(rendered("workload", namespace))
    assert [ref.kind for ref in done.removed] == ["NetworkPolicy"]
    assert cluster.api.get(*POLICY, namespace, "wine") is None
    roll_out(apart)
    gone = delete_release("wine", target="workload", namespace=namespace)
    assert "NetworkPolicy" in [ref.kind for ref in gone.removed]


def test_a_pod_whose_token_is_missing_does_not_start(
    cluster: LiveCluster, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    bento = generated_bento(tmp_path / "bento")
    secret = {"name": "wine-token", "key": "token"}
    options = {"namespace": namespace, "api_token_secret": secret}
    assert roll_out(TARGETS["workload"].render(FIRST, bento, options)).applied
    (pod,) = cluster.pods_of(namespace)
    (entry,) = pod["spec"]["containers"][0]["env"]
    # Not optional: the kubelet starts no container without it.
    assert entry["valueFrom"] == {"secretKeyRef": secret}
