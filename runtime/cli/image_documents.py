"""kfp-bento image sbom, kfp-bento image provenance: what is attached to an image."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import ImageError
from .extras import require_extra

Image = Annotated[
    str, typer.Argument(help="registry/repository[:tag|@digest], or oci:DIRECTORY[:TAG].")
]

app = typer.Typer()


@app.command()
def sbom(image: Image) -> None:
    """Print the bill of materials that is attached to an image (CycloneDX JSON)."""
    require_extra("runtime")
    from ..images import attachments
    from ..images.sbom import SBOM_TYPE

    _print(attachments.read_attachments(image, SBOM_TYPE), image, "bill of materials")


@app.command()
def provenance(image: Image) -> None:
    """Print how an image was built (in-toto statements with SLSA provenance, one for each line)."""
    require_extra("runtime")
    from ..images import attachments
    from ..images.provenance import PREDICATE, STATEMENT_TYPE

    found = attachments.read_attachments(image, STATEMENT_TYPE, predicate=PREDICATE)
    _print(found, image, "provenance")


def _print(documents: tuple[bytes, ...], image: str, what: str) -> None:
    if not documents:
        raise ImageError(
            f"No {what} is attached to {image}.",
            hint="Images built by kfp-bento carry it; a copy may have left it behind "
            "(`oras copy --recursive` takes it along).",
        )
    for document in documents:
        sys.stdout.buffer.write(document.rstrip(b"\n") + b"\n")
