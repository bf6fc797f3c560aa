"""Which rights each operation needs, for a Role and for a test of that Role."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import InvalidInput

# API group and plural name of what each target renders.
RENDERED: dict[str, tuple[tuple[str, str], ...]] = {
    "bento-deployment": (
        ("resources.yatai.ai", "bentoes"),
        ("serving.yatai.ai", "bentodeployments"),
    ),
    "bento-request": (
        ("resources.yatai.ai", "bentoes"),
        ("resources.yatai.ai", "bentorequests"),
        ("serving.yatai.ai", "bentodeployments"),
    ),
    "inference-service": (
        ("", "configmaps"),
        ("serving.kserve.io", "inferenceservices"),
    ),
    "workload": (
        ("", "configmaps"),
        ("", "services"),
        ("apps", "deployments"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("monitoring.coreos.com", "servicemonitors"),
        ("policy", "poddisruptionbudgets"),
    ),
}
OPERATIONS = ("apply", "diff", "wait", "status", "roll_back", "prune", "delete")

# Server-side apply is a PATCH, and a create where there is nothing yet.
_APPLY = ("create", "get", "patch")
_LOOK = (
    ("", "events", ("list",)),
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("apps", "deployments", ("get", "list")),
    ("apps", "replicasets", ("list",)),
)
# What yatai-deployment makes per runner and leaves behind.
_RUNNERS = (
    ("", "services"),
    ("apps", "deployments"),
    ("autoscaling", "horizontalpodautoscalers"),
)


@dataclass(frozen=True, order=True)
class Permission:
    """One verb on one resource of an API group; the core group is empty."""

    group: str
    resource: str
    verb: str


def needed_permissions(
    operations: Collection[str] = OPERATIONS, targets: Collection[str] = tuple(RENDERED)
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
        (RENDERED, targets, "target"),
    ):
        for name in asked:
            if name not in known:
                raise InvalidInput(f"{name!r} is no {what}.", hint=f"One of {', '.join(known)}.")
    found: set[Permission] = set()
    for target in targets:
        for operation in operations:
            found |= _of(operation, target)
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


def _of(operation: str, target: str) -> set[Permission]:
    rendered = RENDERED[target]
    if operation in ("apply", "diff"):
        return _grant(rendered, _APPLY)
    if operation in ("wait", "status"):
        found = {Permission(group, name, verb) for group, name, verbs in _LOOK for verb in verbs}
        found |= _grant(rendered, ("get",))
        if operation == "status":
            found |= _grant(_every_kind(), ("list",))
        return found
    if operation == "roll_back":
        return _of("apply", target) | _of("wait", target) | _of("prune", target)
    # Objects are found by label in every kind that any target renders, and deleted.
    found = _grant(_every_kind(), ("list",)) | _grant(rendered, ("delete", "get"))
    if operation == "prune":
        # The last good release is written on the objects.
        found |= _grant(rendered, ("patch",))
        if target in ("bento-deployment", "bento-request"):
            found |= _grant(_RUNNERS, ("delete", "get"))
    return found


def _every_kind() -> tuple[tuple[str, str], ...]:
    return tuple(sorted({kind for kinds in RENDERED.values() for kind in kinds}))


def _grant(kinds: Collection[tuple[str, str]], verbs: Collection[str]) -> set[Permission]:
    return {Permission(group, name, verb) for group, name in kinds for verb in verbs}
