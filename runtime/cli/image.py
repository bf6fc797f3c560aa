"""kfp-bento image: OCI images out of bentos, without Docker, root or a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from ..reports import human_bytes
from .extras import require_extra
from .output import Json, out, print_facts, print_json, stopwatch, working

app = typer.Typer(help="OCI images out of bentos.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep build a subcommand, though it is the only one."""


@app.command()
def build(
    bento_directory: Annotated[Path, typer.Argument(metavar="BENTO_DIR", help="A bento folder.")],
    to: Annotated[str, typer.Option("--to", help="registry/repository[:tag], or oci:DIRECTORY.")],
    base: Annotated[
        str,
        typer.Option(
            help="Base image, oci:DIRECTORY, or host (this machine; for trying out).",
            envvar="KFP_BENTO_BASE_IMAGE",
        ),
    ] = "",
    cache: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(
            help="Directory that keeps layers for the next build.", envvar="KFP_BENTO_CACHE"
        ),
    ] = None,
    compression: Annotated[str, typer.Option(help="zstd, gzip or none.")] = "zstd",
    json: Json = False,
) -> None:
    """Assemble an image and write it to a registry or an OCI layout directory."""
    from .. import bentos, images

    require_extra("runtime")
    elapsed = stopwatch()
    with working("assembling the image", quiet=json) as progress:
        bento = bentos.load_bento(bento_directory)
        image = images.build_image(
            bento, to, base=base, cache=cache, compression=compression, progress=progress
        )
    if json:
        print_json(image.to_dict())
        return
    table = Table(box=None, padding=(0, 2))
    for heading in ("layer", "content", "size", "", "digest"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for layer in image.layers:
        table.add_row(
            layer.kind, layer.title, human_bytes(layer.size), layer.origin, layer.digest[:19]
        )
    out.print(table)
    print_facts(
        f"{'Already there, seen' if image.reused else 'Built'} in {elapsed():.1f} s",
        {
            "image": image.reference,
            "base": image.base,
            "size": human_bytes(image.size),
            "location": image.location,
        },
    )
