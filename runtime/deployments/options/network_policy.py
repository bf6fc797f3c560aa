"""A NetworkPolicy for the pods of a release: who gets in, and whom model code may call.

Only a network plugin that enforces policies makes it effective; Kubernetes takes it without one
too. The kubelet's probes always get through (Kubernetes documentation, "Network Policies").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Required

from pydantic import AfterValidator, BeforeValidator
from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.options.core import LabelSelector, Protocol
from kfp_bento.runtime.deployments.options.names import label_name_problem
from kfp_bento.runtime.deployments.options.options import IntOrText, Settings, without_empty
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import Refused, valid

OPTION = "network_policy"
_OWN_NAMESPACE: Mapping[str, Any] = {"podSelector": {}}


def _of_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


# What kube-dns and CoreDNS carry on nearly every cluster.
_DNS: Mapping[str, Any] = {
    **_of_namespace("kube-system"),
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}


def _range_problem(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return "is no CIDR such as 10.0.0.0/8"
    return ""


_Cidr = Annotated[str, valid(_range_problem, "Set the bits behind the prefix to zero.")]
_Block = TypedDict("_Block", {"cidr": Required[_Cidr], "except": list[_Cidr]}, total=False)


class _Peer(TypedDict, total=False):
    namespaceSelector: LabelSelector
    podSelector: LabelSelector
    ipBlock: _Block


class _Port(TypedDict, total=False):
    port: Required[IntOrText]
    protocol: Protocol


def _tcp(given: Any) -> Any:
    return {"protocol": "TCP", "port": given} if isinstance(given, int) else given


class _CalledPeer(_Peer, total=False):
    ports: list[Annotated[_Port, BeforeValidator(_tcp)]]


def _named(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if problem := label_name_problem(given):
        raise Refused(f": {given!r} {problem}", "Name a namespace, or write a peer.")
    return _of_namespace(given)


def _called(given: Any) -> Any:
    return dict(_DNS) if given == "dns" else given


def _words(given: Any) -> Any:
    """Give `egress` as a list; None where it is not said."""
    if not isinstance(given, str):
        return given or None
    words: Mapping[str, list[str] | None] = {"none": [], "dns": ["dns"], "": None}
    if given not in words:
        raise Refused(f": {given!r} is unknown", "One of none and dns, or a list.")
    return words[given]


def _possible(peer: Any) -> Any:
    """Refuse what Kubernetes refuses: no peer at all, or an address and a selector in one."""
    fields = peer.keys() - {"ports"}
    if not fields or ("ipBlock" in fields and len(fields) > 1):
        raise Refused(
            ": a peer is an ipBlock, or a namespaceSelector and a podSelector", "Write two entries."
        )
    block = peer.get("ipBlock", {})
    for inner in block.get("except", ()):
        outer, cut = ipaddress.ip_network(block["cidr"]), ipaddress.ip_network(inner)
        if outer.version != cut.version or not cut.subnet_of(outer):  # type: ignore[arg-type]
            raise Refused(
                f": {inner} is not inside {block['cidr']}", "Leave it out.", ".ipBlock.except"
            )
    return peer


class NetworkPolicy(Settings):
    """Who may talk with the pods, besides those of their own namespace."""

    ingress: list[Annotated[_Peer, BeforeValidator(_named), AfterValidator(_possible)]] = []
    egress: Annotated[
        list[Annotated[_CalledPeer, BeforeValidator(_called), AfterValidator(_possible)]] | None,
        BeforeValidator(_words),
    ] = None


def policy_manifests(
    metadata: Mapping[str, Any],
    pods: Mapping[str, str],
    policy: NetworkPolicy | None,
    ports: Sequence[int] = (),
) -> list[Manifest]:
    """Give the NetworkPolicy that the option asks for; none where it is empty.

    Args:
        metadata: Of the policy, as the release's other objects have it.
        pods: Labels that all pods of the release have, and no others.
        policy: The option.
        ports: Ports of the pods that may be called; all when empty.
    """
    if policy is None:
        return []
    inside = {
        "from": [dict(_OWN_NAMESPACE), *policy.ingress],
        "ports": [{"protocol": "TCP", "port": port} for port in ports],
    }
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": dict(pods)},
        "policyTypes": ["Ingress"],
        "ingress": [without_empty(inside)],
    }
    if policy.egress is not None:
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = [_rule(called) for called in policy.egress]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": dict(metadata),
            "spec": spec,
        }
    ]


def check_who_has_to_get_in(policy: NetworkPolicy | None, field: str, who: str) -> None:
    """Refuse a policy that keeps out what another option brings in.

    Args:
        policy: The option.
        field: The other option.
        who: Whose pods have to get in for it.

    Raises:
        InvalidInput: Nobody from elsewhere is let in.
    """
    if policy and not policy.ingress:
        raise InvalidInput(
            f"{OPTION}.ingress: with {field} {who} has to get in, and nobody from outside "
            "the namespace is let in.",
            hint="Name the namespace where its pods run.",
        )


def check_who_is_called(policy: NetworkPolicy | None, field: str, what: str) -> None:
    """Refuse a policy that keeps the pods from what another option makes them call.

    Args:
        policy: The option.
        field: The other option.
        what: What the pods call for it.

    Raises:
        InvalidInput: They may call nobody, or DNS alone.
    """
    if policy and policy.egress in ([], [_DNS]):
        raise InvalidInput(
            f"{OPTION}.egress: with {field} the pods call {what}.",
            hint="List it: ['dns', {'ipBlock': {'cidr': ...}, 'ports': [443]}].",
        )


def _rule(called: _CalledPeer) -> dict[str, Any]:
    peer = {key: value for key, value in called.items() if key != "ports"}
    return without_empty({"to": [peer], "ports": called.get("ports")})
