"""Who may talk with a release, whom its model code may call, and who has to show a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sample_bentos import IMAGE, generated_bento, make_bento
from sample_targets import SIDE, STORED

from kfp_bento.runtime.bentos import Bento, can_require_token
from kfp_bento.runtime.deployments import TARGETS, Release
from kfp_bento.runtime.deployments.release.apply import in_order
from kfp_bento.runtime.deployments.release.good_release import believed, encode_good
from kfp_bento.runtime.deployments.targets.permissions import needed_permissions
from kfp_bento.runtime.errors import InvalidInput

OWN = {"podSelector": {}}
ARCHIVE = {"archive_url": "s3://b/wine.bento"}
WITH_PODS = ("workload", "inference-service")
TOKEN = {"name": "wine-token", "key": "token"}


def render(target: str, bento: Bento | None = None, **options: Any) -> tuple[Any, ...]:
    return released(target, bento, **options).manifests


def released(target: str, bento: Bento | None = None, **options: Any) -> Release:
    more = ARCHIVE if target == "bento-request" else {}
    image = "" if target == "bento-request" or "storage_uri" in options else IMAGE
    made = None if "storage_uri" in options else bento or make_bento()
    return TARGETS[target].render(image, made, {**more, **options})


def policy(target: str, given: dict[str, Any], **options: Any) -> Any:
    manifests = render(target, network_policy=given, **options)
    return next(one for one in manifests if one["kind"] == "NetworkPolicy")["spec"]


# -- who gets in -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_kept_apart_unless_asked(target: str) -> None:
    assert "NetworkPolicy" not in [one["kind"] for one in render(target)]
    assert "NetworkPolicy" not in [one["kind"] for one in render(target, network_policy={})]


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ("workload", "app.kubernetes.io/instance"),
        ("inference-service", "serving.kserve.io/inferenceservice"),
        ("bento-deployment", "yatai.ai/bento-deployment"),
        ("bento-request", "yatai.ai/bento-deployment"),
    ],
)
def test_only_pods_of_the_namespace_get_in_by_default(target: str, label: str) -> None:
    spec = policy(target, {"ingress": []})
    assert spec["podSelector"]["matchLabels"][label] == "wine"
    (rule,) = spec["ingress"]
    assert rule["from"] == [OWN]
    assert spec["policyTypes"] == ["Ingress"]


def test_a_workload_is_reached_on_its_port_only() -> None:
    spec = policy("workload", {"ingress": ["team"]})
    assert spec["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 3000}]


def test_the_pods_that_a_policy_chooses_are_those_of_the_deployment_and_its_canary() -> None:
    other = IMAGE.replace("a1", "b2")
    options = {"route": {"gateway": "infra/public"}, "canary_percent": 5, "stable_image": other}
    given = {"ingress": ["infra"]}
    chosen = policy("workload", given, **options)["podSelector"]["matchLabels"]
    made = [one for one in render("workload", **options) if one["kind"] == "Deployment"]
    assert len(made) == 2
    for one in made:
        assert chosen.items() <= one["spec"]["template"]["metadata"]["labels"].items()


def test_namespaces_selectors_and_addresses_get_in_as_they_are_named() -> None:
    peers = [
        "istio-system",
        {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]
    spec = policy("workload", {"ingress": peers})
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "istio-system"}}}
    assert spec["ingress"][0]["from"] == [OWN, named, *peers[1:]]


def test_the_ports_of_a_transformer_and_of_kserve_s_agent_are_open_too() -> None:
    ports = policy("inference-service", {"ingress": ["a"]}, transformer=SIDE)["ingress"][0]["ports"]
    assert [one["port"] for one in ports] == [3000, 8081]
    with_agent = {"logger": {"url": "http://collector.ns.svc/"}}
    assert (
        "ports" not in policy("inference-service", {"ingress": ["a"]}, **with_agent)["ingress"][0]
    )


# -- whom it may call ------------------------------------------------------------------------


def test_model_code_may_call_nobody_dns_or_who_is_named() -> None:
    assert policy("workload", {"egress": "none"})["egress"] == []
    (dns,) = policy("workload", {"egress": "dns"})["egress"]
    assert {one["port"] for one in dns["ports"]} == {53}
    assert dns["to"][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    listed = ["dns", {"ipBlock": {"cidr": "10.0.0.7/32"}, "ports": [443.0]}]
    rules = policy("workload", {"egress": listed})["egress"]
    assert rules == [
        dns,
        {
            "to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}],
            "ports": [{"protocol": "TCP", "port": 443}],
        },
    ]
    assert policy("workload", {"egress": "none"})["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize(
    ("target", "options", "field"),
    [
        ("workload", {"network_policy": {"from": []}}, "network_policy.from"),
        ("workload", {"network_policy": {"ingress": "team"}}, "network_policy.ingress"),
        ("workload", {"network_policy": {"ingress": ["Team!"]}}, "network_policy.ingress[0]"),
        ("workload", {"network_policy": {"ingress": [{}]}}, "network_policy.ingress[0]"),
        ("workload", {"network_policy": {"ingress": [{"pods": {}}]}}, "ingress[0].pods"),
        ("workload", {"network_policy": {"egress": "some"}}, "network_policy.egress"),
        ("workload", {"network_policy": {"egress": [{"ports": [1]}]}}, "network_policy.egress[0]"),
        (
            "workload",
            {"network_policy": {"ingress": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}},
            "ipBlock.cidr",
        ),
        (
            "workload",
            {
                "network_policy": {
                    "ingress": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]
                }
            },
            "ipBlock.except",
        ),
        (
            "workload",
            {
                "network_policy": {
                    "ingress": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]
                }
            },
            "ingress[0]",
        ),
        (
            "workload",
            {"network_policy": {"egress": "none"}, "route": {"gateway": "infra/public"}},
            "with route the Gateway has to get in",
        ),
        (
            "workload",
            {"network_policy": {"egress": "none"}, "metrics": "service-monitor"},
            "Prometheus has to get in",
        ),
        (
            "inference-service",
            {"network_policy": {"ingress": ["a"]}, "deployment_mode": "Knative"},
            "Knative's activator",
        ),
        (
            "inference-service",
            {**STORED, "network_policy": {"egress": "dns"}},
            "the storage of the model",
        ),
        (
            "inference-service",
            {"network_policy": {"egress": "none"}, "logger": {"url": "http://c.ns.svc/"}},
            "the receiver of its log",
        ),
        (
            "bento-deployment",
            {"network_policy": {"egress": "none"}, "ingress": {"enabled": True}},
            "Ingress's controller",
        ),
        ("workload", {"api_token_secret": TOKEN}, "asks for no token"),
        ("inference-service", {**STORED, "api_token_secret": TOKEN}, "knows no such token"),
        ("bento-deployment", {"api_token_secret": TOKEN}, "drops envs[].valueFrom"),
        ("bento-request", {"api_token_secret": TOKEN}, "drops envs[].valueFrom"),
        ("workload", {"envs": {"KFP_BENTO_API_TOKEN": "x"}}, "api_token_secret"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(
    target: str, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        render(target, **options)
    assert field in refused.value.message


# -- tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", WITH_PODS)
def test_a_token_comes_out_of_a_secret_and_is_never_in_a_manifest(
    target: str, tmp_path: Path
) -> None:
    bento = generated_bento(tmp_path / "bento")
    manifests = render(target, bento, api_token_secret=TOKEN, envs={"A": "1"})
    spec = TARGETS[target].primary(manifests)["spec"]
    pod = spec["template"]["spec"] if target == "workload" else spec["predictor"]
    assert pod["containers"][0]["env"] == [
        {"name": "KFP_BENTO_API_TOKEN", "valueFrom": {"secretKeyRef": TOKEN}},
        {"name": "A", "value": "1"},
    ]


def test_probes_and_the_wait_need_no_token(tmp_path: Path) -> None:
    manifests = render("workload", generated_bento(tmp_path / "b"), api_token_secret=TOKEN)
    container = TARGETS["workload"].primary(manifests)["spec"]["template"]["spec"]["containers"][0]
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")}
    assert paths == {"/readyz", "/livez"}


def test_a_secret_is_named_and_its_key_is_token_unless_said(tmp_path: Path) -> None:
    bento = generated_bento(tmp_path / "bento")
    manifests = render("workload", bento, api_token_secret={"name": "wine-token"})
    container = TARGETS["workload"].primary(manifests)["spec"]["template"]["spec"]["containers"][0]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == TOKEN
    for wrong in ({"name": ""}, {"key": "a"}, {"name": "A B"}, {"name": "a", "value": "b"}):
        with pytest.raises(InvalidInput, match="api_token_secret"):
            render("workload", bento, api_token_secret=wrong)


def test_a_service_without_tokens_is_none_that_asks_for_one(tmp_path: Path) -> None:
    assert can_require_token(generated_bento(tmp_path / "new"))
    assert not can_require_token(generated_bento(tmp_path / "old", guarded=False))
    assert not can_require_token(make_bento(directory=tmp_path / "nowhere"))


# -- all of it belongs to the release --------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("egress", ["none", "dns", ["dns", {"ipBlock": {"cidr": "10.0.0.0/8"}}]])
def test_a_policy_is_recorded_and_comes_back(target: str, egress: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"network_policy": {"ingress": ["team"], "egress": egress}}
    if target in WITH_PODS:
        options["api_token_secret"] = TOKEN
    release = released(target, generated_bento(tmp_path / "bento"), **options)
    assert believed(encode_good(release), release.primary).release == release


@pytest.mark.parametrize("target", TARGETS)
def test_a_policy_stands_before_the_pods_do(target: str) -> None:
    manifests = render(target, network_policy={"egress": "none"})
    kinds = [one["kind"] for one in in_order(manifests)]
    assert kinds.index("NetworkPolicy") < kinds.index(TARGETS[target].primary_kind.name)


@pytest.mark.parametrize("target", TARGETS)
def test_the_rights_hold_for_policies_too(target: str) -> None:
    found = needed_permissions(["apply", "delete"], [target])
    verbs = {one.verb for one in found if one.resource == "networkpolicies"}
    assert verbs == {"create", "delete", "get", "list", "patch"}
