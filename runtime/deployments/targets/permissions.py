"""Which rights each operation needs, for a Role and for a test of that Role."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.deployments.targets.target import AUTOSCALER, Kind, Target
from kfp_bento.runtime.deployments.targets.targets import TARGETS
from kfp_bento.runtime.errors import InvalidInput

OPERATIONS = ("apply", "diff", "wait", "status", "roll_back", "prune", "delete")

_RBAC = "rbac.authorization.k8s.io"
# Where Kubeflow Pipelines is installed, and whom its steps run as there.
_PIPELINES = ("pipeline-runner", "kubeflow")
# Whom they run as in the namespace of a profile.
_EDITOR = "default-editor"

# Server-side apply is a PATCH, and a create where there is nothing yet.
_APPLY = ("create", "get", "patch")
_LOOK = (
    ("", "events", ("list",)),
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("apps", "deployments", ("get", "list")),
    ("apps", "replicasets", ("list",)),
)
# What is waited for after an object that is deleted before what it owns.
_OWNED = (("", "pods"), ("apps", "deployments"), ("apps", "replicasets"))


@dataclass(frozen=True, order=True)
class Permission:
    """One verb on one resource of an API group; the core group is empty."""

    group: str
    resource: str
    verb: str


def needed_permissions(
    operations: Collection[str] = OPERATIONS, targets: Collection[str] = tuple(TARGETS)
) -> frozenset[Permission]:
    """Give what an identity must be allowed in the namespace of a release.

    Reading CRDs, namespaces or discovery is not among it: every authenticated identity may
    read discovery, and nothing else is asked.

    Args:
        operations: Any of `OPERATIONS`; `roll_out` of a release is apply, wait and prune.
        targets: Any of the targets.

    Raises:
        InvalidInput: No such operation or target.
    """
    for known, asked, what in (
        (OPERATIONS, operations, "operation"),
        (tuple(TARGETS), targets, "target"),
    ):
        for name in asked:
            if name not in known:
                raise InvalidInput(f"{name!r} is no {what}.", hint=f"One of {', '.join(known)}.")
    found: set[Permission] = set()
    for target in targets:
        for operation in operations:
            found |= _of(operation, TARGETS[target])
    return frozenset(found)


def role_rules(permissions: Collection[Permission]) -> list[dict[str, Any]]:
    """Give permissions as the rules of a Role, resources with the same verbs together."""
    verbs: dict[tuple[str, str], set[str]] = {}
    for permission in permissions:
        verbs.setdefault((permission.group, permission.resource), set()).add(permission.verb)
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), allowed in verbs.items():
        grouped.setdefault((group, tuple(sorted(allowed))), []).append(resource)
    return [
        {"apiGroups": [group], "resources": sorted(resources), "verbs": list(allowed)}
        for (group, allowed), resources in sorted(grouped.items())
    ]


def access_manifests(
    target: str, namespace: str, operations: Collection[str] = OPERATIONS
) -> list[dict[str, Any]]:
    """Give the Role that deploying to a target needs, and its bindings to who runs pipeline steps.

    Args:
        target: One of the targets: nobody gets kinds of targets that are not used.
        namespace: Where releases are deployed.
        operations: Any of `OPERATIONS`.

    Raises:
        InvalidInput: No such operation or target.
    """
    role = f"kfp-bento-deployer-{target}"
    rules = role_rules(needed_permissions(operations, [target]))
    return [
        {**_head("Role", role, namespace), "rules": rules},
        _binding(role, namespace, *_PIPELINES),
        _binding(role, namespace, _EDITOR, namespace),
    ]


def _binding(role: str, namespace: str, account: str, its_namespace: str) -> dict[str, Any]:
    return {
        **_head("RoleBinding", f"{role}-{account}", namespace),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": its_namespace}],
    }


def _head(kind: str, name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata}


def _of(operation: str, target: Target) -> set[Permission]:
    if operation in ("apply", "diff"):
        found = _grant(target.kinds, _APPLY)
        if AUTOSCALER in target.kinds:
            # The number of replicas changes hands between a release and its autoscaler.
            found |= _grant((AUTOSCALER,), ("list",))
        if operation == "apply" and AUTOSCALER in target.kinds:
            found |= _grant((AUTOSCALER,), ("delete",))
        if target.shared:
            # Who else uses an object, and what a controller writes over.
            found |= _grant((target.primary_kind,), ("list",))
            found |= _grant(target.unlabelled, ("get",))
            going = (*target.shared, *(target.leftovers if target.writer else ()))
            found |= _grant(going, ("delete",))
        if operation == "apply" and target.waker:
            found |= _grant((target.waker[0],), ("get", "patch"))
        if operation == "diff":
            found |= _grant((*target.kinds, *target.leftovers), ("list",))
        return found
    if operation in ("wait", "status"):
        found = {Permission(group, name, verb) for group, name, verbs in _LOOK for verb in verbs}
        found |= _grant((*target.kinds, *target.unlabelled), ("get",))
        if target.shared:
            # What else its controllers work on, one after the other, and what builds an image.
            found |= _grant((target.primary_kind, *target.shared), ("list",))
        if target.builder:
            found |= {Permission("batch", "jobs", "list")}
        if operation == "status":
            found |= _grant((*target.kinds, *target.leftovers), ("list",))
        return found
    if operation == "roll_back":
        return _of("apply", target) | _of("wait", target) | _of("prune", target)
    found = _grant((*target.kinds, *target.leftovers), ("delete", "get", "list"))
    found |= _grant(target.shared, ("patch",))
    if target.hasty:
        found |= {Permission(group, name, "list") for group, name in _OWNED}
    if operation == "prune":
        # The last good release is written on the objects.
        found |= _grant((target.holder_kind,), ("patch",))
        found |= _grant(target.owned, ("delete", "get", "list"))
    return found


def _grant(kinds: Collection[Kind], verbs: Collection[str]) -> set[Permission]:
    return {Permission(kind.group, kind.plural, verb) for kind in kinds for verb in verbs}
