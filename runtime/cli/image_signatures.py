"""kfp-bento image sign, kfp-bento image verify: signatures that cosign knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, working
from kfp_bento.runtime.errors import InvalidInput, in_a_pipeline

if TYPE_CHECKING:
    from kfp_bento.runtime.images import SignedImage

Image = Annotated[
    str, typer.Argument(help="registry/repository[:tag|@digest], or oci:DIRECTORY[:TAG].")
]
Platform = Annotated[
    str,
    typer.Option(
        help="linux/amd64 or linux/arm64: one image of a multi-platform index, not the index."
    ),
]

app = typer.Typer()


@app.command(
    epilog="Example: kfp-bento image sign registry.example.com/ml/credit:v1 --key cosign.key"
)
def sign(
    image: Image,
    key: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="FILE",
            help="Private key in PEM: ECDSA P-256, or cosign's own (password in COSIGN_PASSWORD). "
            "Without it, the one that KFP_BENTO_SIGNING_KEY holds or names.",
        ),
    ] = None,
    platform: Platform = "",
    json: Json = False,
) -> None:
    """Sign an image with a key, as cosign does; nothing is sent to any other service."""
    require_extra("runtime")
    from kfp_bento.runtime import images

    chosen = images.load_signing_key(key) if key else images.own_signing_key()
    if chosen is None:
        raise InvalidInput(
            "There is no key to sign with.",
            hint="Name its file with --key, or set KFP_BENTO_SIGNING_KEY. "
            + in_a_pipeline("signing_secret", "it as cosign.key"),
        )
    with working("signing the image", quiet=json) as progress:
        signed = images.sign_image(image, chosen, platform=platform, progress=progress)
    _print(signed, "Signed" if signed.changed else "Already signed", json=json)


@app.command(
    epilog="Example: kfp-bento image verify registry.example.com/ml/credit:v1 --key cosign.pub"
)
def verify(
    image: Image,
    key: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Public keys in PEM; a signature by one of them is enough."
        ),
    ],
    platform: Platform = "",
    json: Json = False,
) -> None:
    """Make sure that an image is signed with a key, by us or by cosign; exit code 2 if not."""
    require_extra("runtime")
    from kfp_bento.runtime import images

    keys = images.load_public_keys(key)
    with working("verifying the signature", quiet=json):
        verified = images.verify_image(image, keys, platform=platform)
    _print(verified, "Verified", json=json)


def _print(signed: SignedImage, title: str, *, json: bool) -> None:
    if json:
        print_json(signed.to_dict())
    else:
        print_facts(title, {"image": signed.image, "key": signed.key})
