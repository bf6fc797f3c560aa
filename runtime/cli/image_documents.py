"""kfp-bento image sbom, kfp-bento image provenance: what is attached to an image."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.errors import ImageError, plain_text

Image = Annotated[
    str, typer.Argument(help="registry/repository[:tag|@digest], or oci:DIRECTORY[:TAG].")
]

Platform = Annotated[
    str,
    typer.Option(help="linux/amd64 or linux/arm64, of a multi-platform image."),
]

app = typer.Typer()


@app.command(epilog="Example: kfp-bento image sbom registry.example.com/ml/credit@sha256:...")
def sbom(image: Image, platform: Platform = "") -> None:
    """Print the bill of materials that is attached to an image (CycloneDX JSON)."""
    require_extra("runtime")
    from kfp_bento.runtime import images

    _print(images.read_sboms(image, platform), image, "bill of materials")


@app.command(epilog="Example: kfp-bento image provenance registry.example.com/ml/credit@sha256:...")
def provenance(image: Image, platform: Platform = "") -> None:
    """Print how an image was built (in-toto statements with SLSA provenance, one for each line)."""
    require_extra("runtime")
    from kfp_bento.runtime import images

    _print(images.read_provenance(image, platform), image, "provenance")


def _print(documents: tuple[bytes, ...], image: str, what: str) -> None:
    if not documents:
        raise ImageError(
            f"No {what} is attached to {image}.",
            hint="Images built by kfp-bento carry it; a copy may have left it behind "
            "(`kfp-bento image copy` and `oras copy --recursive` take it along).",
        )
    for document in documents:
        if sys.stdout.isatty():  # somebody else's bytes; a file or a program gets them as they are
            sys.stdout.write(plain_text(document.decode("utf-8", "replace")).rstrip("\n") + "\n")
        else:
            sys.stdout.buffer.write(document.rstrip(b"\n") + b"\n")
