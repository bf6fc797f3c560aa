"""kfp-bento bento export and import: bentos as archives, on this machine and in buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, err, print_facts, print_json, transfer

app = typer.Typer()

_URI = "file:///path or a path, s3://bucket/key, minio://bucket/key"


@app.command("export", epilog="Example: kfp-bento bento export ./bento s3://models/bentos/")
def export_command(
    bento_directory: Annotated[Path, typer.Argument(metavar="DIR", help="The bento's folder.")],
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI", help=f"Where it goes: {_URI}; with a slash at its end, a folder."
        ),
    ],
    archive_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="bento (as `bentoml export` writes it), tar, tar.gz, tar.xz, tar.bz2, zip or "
            "directory; default: what the name says, else bento.",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Put a bento, models included, into one archive: there whole, or not at all."""
    from kfp_bento.runtime import bentos

    require_extra("runtime")
    with transfer("sending the archive", quiet=json) as progress:
        exported = bentos.export_bento(
            bentos.load_bento(bento_directory), uri, archive_format, progress=progress
        )
    if json:
        print_json(exported.to_dict())
        return
    facts = {name: value for name, value in exported.to_dict().items() if name != "tag"}
    print_facts(f"Exported: {exported.tag}", facts)


@app.command(
    "import",
    epilog="Example: kfp-bento bento import s3://models/bentos/wine-1f0c.bento --to ./bento",
)
def import_command(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help=f"Where it is: {_URI}, or https://…; an archive of any known format, or a folder "
            "on this machine.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Directory that receives the bento.")],
    sha256: Annotated[
        str,
        typer.Option(
            help="What the archive's SHA-256 has to be; default: what was recorded with it."
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Take a bento in, verified and without running any of it."""
    from kfp_bento.runtime import bentos

    require_extra("runtime")
    with transfer("fetching the archive", quiet=json) as progress:
        bento = bentos.import_bento(uri, to, sha256=sha256, progress=progress)
    if bento.note:
        err.print(escape(bento.note))
    if json:
        print_json(bento.to_dict() | {"directory": str(to)})
        return
    print_facts(
        f"Imported: {bento.tag}",
        {
            "service": bento.service,
            "models": ", ".join(model.tag for model in bento.models),
            "Python": bento.python_version,
            "BentoML": bento.bentoml_version,
            "digest": bento.digest,
            "directory": to,
        },
    )
