"""A NetworkPolicy for the pods of a release: who gets in, and whom model code may call.

Only a network plugin that enforces policies makes it effective; Kubernetes takes it without one
too. The kubelet's probes always get through (Kubernetes documentation, "Network Policies").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest
from kfp_bento.runtime.deployments.kube.shapes import Fields, Items, Shape, Value, settled
from kfp_bento.runtime.deployments.options.core_shapes import (
    LABEL_SELECTOR,
    NUMBER_OR_TEXT,
    one_of,
)
from kfp_bento.runtime.deployments.options.names import namespace_problem
from kfp_bento.runtime.deployments.options.options import (
    Object,
    choice,
    listing,
    mapping,
    without_empty,
)
from kfp_bento.runtime.errors import InvalidInput

OPTION = "network_policy"
NONE, DNS = "none", "dns"
# What kube-dns and CoreDNS carry on nearly every cluster.
_DNS_RULE: Mapping[str, Any] = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}
_OWN_NAMESPACE: Mapping[str, Any] = {"podSelector": {}}


def _range_problem(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return "is no CIDR such as 10.0.0.0/8"
    return ""


_CIDR = Value(str, _range_problem)
_PEER: dict[str, Shape] = {
    "namespaceSelector": LABEL_SELECTOR,
    "podSelector": LABEL_SELECTOR,
    "ipBlock": Fields({"cidr": _CIDR, "except": Items(_CIDR)}, frozenset({"cidr"})),
}
_PORT = Fields(
    {"port": NUMBER_OR_TEXT, "protocol": one_of("TCP", "UDP", "SCTP")}, frozenset({"port"})
)


def policy_manifests(
    metadata: Mapping[str, Any],
    pods: Mapping[str, str],
    given: Object | None,
    ports: Sequence[int] = (),
) -> list[Manifest]:
    """Give the NetworkPolicy that the option asks for; none where it is empty.

    Args:
        metadata: Of the policy, as the release's other objects have it.
        pods: Labels that all pods of the release have, and no others.
        given: `ingress` and `egress`, see `PodOptions`.
        ports: Ports of the pods that may be called; all when empty.

    Raises:
        InvalidInput: A peer that no policy can have.
    """
    if not given:
        return []
    mapping(OPTION, given, ("ingress", "egress"))
    peers = [
        _peer(f"{OPTION}.ingress[{index}]", entry)
        for index, entry in enumerate(listing(f"{OPTION}.ingress", given.get("ingress") or []))
    ]
    inside = {
        "from": [dict(_OWN_NAMESPACE), *peers],
        "ports": [{"protocol": "TCP", "port": port} for port in ports],
    }
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": dict(pods)},
        "policyTypes": ["Ingress"],
        "ingress": [without_empty(inside)],
    }
    if given.get("egress") not in (None, "", []):
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = _egress(given["egress"])
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": dict(metadata),
            "spec": spec,
        }
    ]


def check_who_has_to_get_in(given: Object | None, field: str, who: str) -> None:
    """Refuse a policy that keeps out what another option brings in.

    Args:
        given: The option.
        field: The other option.
        who: Whose pods have to get in for it.

    Raises:
        InvalidInput: Nobody from elsewhere is let in.
    """
    if given and not given.get("ingress"):
        raise InvalidInput(
            f"{OPTION}.ingress: with {field} {who} has to get in, and nobody from outside "
            "the namespace is let in.",
            hint="Name the namespace where its pods run.",
        )


def check_who_is_called(given: Object | None, field: str, what: str) -> None:
    """Refuse a policy that keeps the pods from what another option makes them call.

    Args:
        given: The option.
        field: The other option.
        what: What the pods call for it.

    Raises:
        InvalidInput: They may call nobody, or DNS alone.
    """
    if (given or {}).get("egress") in (NONE, DNS):
        raise InvalidInput(
            f"{OPTION}.egress: with {field} the pods call {what}.",
            hint="List it: ['dns', {'ipBlock': {'cidr': ...}, 'ports': [443]}].",
        )


def _egress(given: Any) -> list[dict[str, Any]]:
    field = f"{OPTION}.egress"
    if isinstance(given, str):
        choice(field, given, (NONE, DNS))
        return [] if given == NONE else [dict(_DNS_RULE)]
    return [
        dict(_DNS_RULE) if entry == DNS else _rule(f"{field}[{index}]", entry)
        for index, entry in enumerate(listing(field, given))
    ]


def _rule(field: str, entry: Any) -> dict[str, Any]:
    peer = dict(mapping(field, entry))
    ports = [
        {"protocol": "TCP", "port": port} if isinstance(port, int | float) else port
        for port in listing(f"{field}.ports", peer.pop("ports", []))
    ]
    rule = {
        "to": [_peer(field, peer)],
        "ports": settled(f"{field}.ports", ports, Items(_PORT), "For example [443]."),
    }
    return without_empty(rule)


def _peer(field: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        if problem := namespace_problem(entry):
            raise InvalidInput(
                f"{field}: {entry!r} {problem}.", hint="Name a namespace, or write a peer."
            )
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": entry}}}
    peer: dict[str, Any] = settled(field, entry, Fields(_PEER))
    _check_peer(field, peer)
    return peer


def _check_peer(field: str, peer: Mapping[str, Any]) -> None:
    """Refuse what Kubernetes refuses: no peer at all, or an address and a selector in one."""
    if not peer or ("ipBlock" in peer and len(peer) > 1):
        raise InvalidInput(
            f"{field}: a peer is an ipBlock, or a namespaceSelector and a podSelector.",
            hint="Write two entries.",
        )
    block = peer.get("ipBlock", {})
    for inner in block.get("except", ()):
        outer, cut = ipaddress.ip_network(block["cidr"]), ipaddress.ip_network(inner)
        if outer.version != cut.version or not cut.subnet_of(outer):  # type: ignore[arg-type]
            raise InvalidInput(
                f"{field}.ipBlock.except: {inner} is not inside {block['cidr']}.",
                hint="Leave it out.",
            )
