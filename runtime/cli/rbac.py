"""kfp-bento rbac: the rights that deploying needs, as manifests."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from kfp_bento.runtime.cli.output import Json, print_json
from kfp_bento.runtime.errors import InvalidInput

OPERATIONS = "apply, diff, wait, status, roll-back, prune or delete"


def rbac(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Where releases are deployed.")
    ] = "default",
    target: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option("--target", "-t", help="A target that is used there; may be repeated."),
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
    """Print the Role that deploying to a target needs, and who gets it, for kubectl apply -f -."""
    import yaml

    from kfp_bento.runtime import deployments

    if not target:
        raise InvalidInput(
            "--target: it is missing; nobody needs rights on the kinds of every target.",
            hint=f"One of {', '.join(deployments.TARGETS)}; repeat it for several.",
        )
    operations = [one.replace("-", "_") for one in operation or ()] or deployments.OPERATIONS
    objects = [
        one
        for name in dict.fromkeys(target)
        for one in deployments.access_manifests(name, namespace, operations)
    ]
    if json:
        print_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        typer.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)
