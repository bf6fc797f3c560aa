"""kfp-bento release make: the short road in one command, without Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.model import TrackingUri
from kfp_bento.runtime.cli.option_values import mapping_in
from kfp_bento.runtime.cli.output import Json
from kfp_bento.runtime.cli.pipelines import Network, run_here
from kfp_bento.runtime.errors import InvalidInput

PIPELINE = "release_model"


class Releases(TyperGroup):
    """The commands about releases; a model's URI in place of one stands for `make`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is meant."""
        if args and ":/" in args[0]:
            args = ["make", *args]
        return super().resolve_command(ctx, args)


def make(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL_URI...", help="models:/NAME@ALIAS or other; also NAME=URI."),
    ],
    to: Annotated[
        str, typer.Option("--to", help="registry/repository[:tag] or oci:DIR for the image.")
    ],
    promote: Annotated[
        str,
        typer.Option(metavar="ALIAS", help="Registry alias to move afterwards; default: none."),
    ] = "",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help="bento-deployment, inference-service or workload; default: this machine.",
        ),
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "",
    base: Annotated[
        str,
        typer.Option(help="Base image; host is this machine.", envvar="KFP_BENTO_BASE_IMAGE"),
    ] = "",
    param: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option("--param", "-p", help="Any other parameter of release_model, key=value."),
    ] = None,
    param_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML or JSON mapping of parameters; --param wins."),
    ] = None,
    outputs: Annotated[
        Path, typer.Option("--outputs", help="Directory that receives report and manifests.")
    ] = Path("build/release"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what is served here until Ctrl-C.")
    ] = False,
    network: Network = "host",
    tracking_uri: TrackingUri = "",
    json: Json = False,
) -> None:
    """Take models to a checked release in one go: on this machine, or in a cluster.

    The same three steps as the pipeline release_model. With --target it is applied to the cluster
    of the kubeconfig, and what is deployed has to answer from here.
    """
    from kfp_bento.runtime.local import load_pipeline, local_arguments

    require_extra("local")
    if namespace and not target:
        raise InvalidInput(
            "--namespace says where in a cluster, and without --target it is served here.",
            hint="Add --target workload (or another), or leave --namespace out.",
        )
    if keep and target:
        raise InvalidInput(
            "--keep is for what is served here; what --target is given stays in the cluster.",
            hint="Leave --keep out.",
        )
    named: dict[str, Any] = {
        "model_uris": list(models),
        "image_destination": to,
        "promote_alias": promote,
        "deploy_mode": "apply" if target else "local",
        **({"deploy_target": target} if target else {}),
        **({"deploy_namespace": namespace} if namespace else {}),
        **({"image_base": base} if base else {}),
        **({"tracking_uri": tracking_uri} if tracking_uri else {}),
    }
    file = mapping_in(param_file, "--param-file") if param_file else {}
    arguments = local_arguments(load_pipeline(PIPELINE), param or (), {**file, **named})
    run_here(PIPELINE, arguments, outputs, network=network, keep=keep, json=json)
