"""kfp-bento model: models out of a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, transfer
from kfp_bento.runtime.reports import human_bytes

app = typer.Typer(help="Models out of an MLflow registry.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep pull a subcommand, though it is the only one."""


@app.command()
def pull(
    uri: Annotated[
        str,
        typer.Argument(
            help="models:/name/3, models:/name@alias, models:/m-<id>, runs:/<id>/path or a folder."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Directory that receives the model.")],
    tracking_uri: Annotated[
        str,
        typer.Option(
            "--tracking-uri",
            help="MLflow server.",
            envvar="MLFLOW_TRACKING_URI",
            show_default=False,
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Resolve a model URI once and download that exact version."""
    from kfp_bento.runtime import models

    require_extra("runtime")
    with transfer(f"pulling {uri}", quiet=json) as progress:
        model = models.pull_model(uri, to, tracking_uri=tracking_uri, progress=progress)
    if json:
        print_json(model.to_dict() | {"directory": str(to)})
        return
    print_facts(
        f"{'Already there' if model.reused else 'Pulled'}: {uri}",
        {
            "version": f"{model.name}/{model.version}" if model.name else "",
            "digest": model.digest,
            "flavors": ", ".join(model.flavors),
            "Python": model.python_version,
            "size": human_bytes(model.size),
            "directory": to,
        },
    )
