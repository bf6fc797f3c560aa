"""kfp-bento rbac: the rights that deploying needs, as manifests."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Optional

import typer

from .output import Json, print_json

OPERATIONS = "apply, diff, wait, status, roll-back, prune or delete"

_RBAC = "rbac.authorization.k8s.io"
_ROLE = "kfp-bento-deployer"
# Where Kubeflow Pipelines is installed, and whom its steps run as there.
_PIPELINES = ("pipeline-runner", "kubeflow")
# Whom they run as in the namespace of a profile.
_EDITOR = "default-editor"


def rbac(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Where releases are deployed.")
    ] = "default",
    target: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option("--target", "-t", help="A target; may be repeated; default: all."),
    ] = None,
    operation: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help=f"{OPERATIONS}; may be repeated; default: all. What deploy apply does is apply, "
            "diff, wait and prune."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print the Role that deploying needs, and who gets it, for kubectl apply -f -."""
    import yaml

    from .. import deployments

    asked: dict[str, Collection[str]] = {}
    if target:
        asked["targets"] = target
    if operation:
        asked["operations"] = [one.replace("-", "_") for one in operation]
    rules = deployments.role_rules(deployments.needed_permissions(**asked))
    objects = _objects(namespace, rules)
    if json:
        print_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        typer.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


def _objects(namespace: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**_head("Role", _ROLE, namespace), "rules": rules},
        _binding(namespace, *_PIPELINES),
        _binding(namespace, _EDITOR, namespace),
    ]


def _binding(namespace: str, account: str, its_namespace: str) -> dict[str, Any]:
    return {
        **_head("RoleBinding", f"{_ROLE}-{account}", namespace),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": _ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": its_namespace}],
    }


def _head(kind: str, name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata}
