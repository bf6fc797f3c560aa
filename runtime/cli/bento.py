"""kfp-bento bento build: bentos out of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, err, print_facts, print_json, working

app = typer.Typer(help="Bentos: out of models, and as archives.", no_args_is_help=True)


@app.command()
def build(
    model_directories: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL_DIR", help="Pulled or plain MLflow model folders."),
    ],
    to: Annotated[Path, typer.Option("--to", help="Directory that receives the bento.")],
    name: Annotated[str, typer.Option(help="Name of the bento; default: the model's.")] = "",
    service: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Your own BentoML service, a file or folder; default: generated."),
    ] = None,
    requirement: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A requirement to lock besides the model's own; may be repeated."),
    ] = None,
    allow_source: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Beginning of the addresses of indexes and wheels that the models' own "
            "requirements may name, such as https://host/path/, or of repositories, whose code "
            "is run to build wheels: git+https://host/path/; may be repeated. "
            "Default: names and versions only, from the index configured for uv.",
        ),
    ] = None,
    example: Annotated[
        bool,
        typer.Option(help="Show a row of the model's input example on the API page."),
    ] = True,
    json: Json = False,
) -> None:
    """Build a bento: typed service, locked dependencies, a version made of its content."""
    from kfp_bento.runtime import bentos, models

    require_extra("runtime")
    with working("building the bento", quiet=json):
        loaded = [models.load_model(directory) for directory in model_directories]
        bento = bentos.build_bento(
            loaded,
            to,
            name=name,
            service=service,
            requirements=requirement or (),
            allow_sources=allow_source or (),
            show_example=example,
        )
    if bento.note:
        err.print(escape(bento.note))
    if json:
        print_json(bento.to_dict() | {"directory": str(to)})
        return
    print_facts(
        f"{'Already there' if bento.reused else 'Built'}: {bento.tag}",
        {
            "service": bento.service,
            "models": ", ".join(model.tag for model in bento.models),
            "Python": bento.python_version,
            "digest": bento.digest,
            "directory": to,
        },
    )
