"""kfp-bento bento export and import: bentos as archives, on this machine and in buckets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, err, print_facts, print_json, transfer, working

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.proof import Golden

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
            help=f"Where it is: NAME or NAME:VERSION in BentoML's store, {_URI}, or https://…; an "
            "archive of any known format, or a folder on this machine.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Directory that receives the bento.")],
    sha256: Annotated[
        str,
        typer.Option(
            help="What the archive's SHA-256 has to be; default: what was recorded with it."
        ),
    ] = "",
    lock: Annotated[
        bool,
        typer.Option(
            help="Lock the requirements with hashes, and refuse what no image made of files has; "
            "without, the bento stays as it is."
        ),
    ] = True,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="WISH",
            help="What is left out: base_image, commands, conda, cuda_version, distro, "
            "dockerfile_template, index, setup_script, system_packages; may be repeated.",
        ),
    ] = None,
    requirement: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A requirement in place of the bento's own for the same package, or besides them; "
            "may be repeated."
        ),
    ] = None,
    allow_source: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Beginning of the addresses of indexes and wheels that the bento's requirements "
            "may name, such as https://host/path/; may be repeated. Default: names and versions "
            "only, from the index configured for uv.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Start the bento in its locked environment, and ask it.")
    ] = True,
    requests: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="JSON or YAML file, or its address, with a list of requests (path, body); what is "
            "answered then is right from then on. Default: it is only started."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Take a bento in, whoever built it: models brought along, requirements locked, started once.

    Nothing of it is run before it is locked, and then confined. Beside it lies NAME.golden.json.
    """
    from kfp_bento.runtime import bentos, proof

    require_extra("runtime")
    asked = proof.given_requests([requests] if requests else [])
    options = bentos.ImportOptions(lock, without or (), requirement or (), allow_source or ())
    with transfer("fetching the archive", quiet=json) as progress:
        bento = bentos.import_bento(uri, to, options, sha256=sha256, progress=progress)
    if bento.note:
        err.print(escape(bento.note))
    golden_file = to.absolute().with_name(f"{to.absolute().name}.golden.json")
    golden_file.unlink(missing_ok=True)  # it would be of another bento
    with working("starting the bento", quiet=json) as tell:
        golden = proof.golden_answers(bento, (), verify=verify and lock, requests=asked, tell=tell)
        golden.save(golden_file)
    _print_imported(bento, to, golden, golden_file, json=json)


def _print_imported(bento: Bento, to: Path, golden: Golden, file: Path, *, json: bool) -> None:
    if json:
        proven = {"verified": golden.verified, "reason": golden.told, "file": str(file)}
        print_json(bento.to_dict() | {"directory": str(to), "note": bento.note, "golden": proven})
        return
    print_facts(
        f"Imported: {bento.tag}",
        {
            "service": bento.service,
            "models": ", ".join(model.tag for model in bento.models) or "none",
            "Python": bento.python_version,
            "BentoML": bento.bentoml_version,
            "digest": bento.digest,
            "directory": to,
            "verified": f"{golden.verified}: {golden.told}",
            "golden answers": file,
        },
    )
