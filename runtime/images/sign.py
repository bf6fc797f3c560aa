"""Images signed with a key, and their signatures verified: cosign's format, and no service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, scratch_directory
from kfp_bento.runtime.images.oci.image import parse_platform
from kfp_bento.runtime.images.oci.reference import parse_source
from kfp_bento.runtime.images.places.open import open_beside, open_image, open_manifest
from kfp_bento.runtime.images.places.opened_image import OpenedImage
from kfp_bento.runtime.images.signatures.keys import PublicKey, SigningKey
from kfp_bento.runtime.images.signatures.stored import is_signed, put_signature
from kfp_bento.runtime.images.signatures.verify import signer_of


@dataclass(frozen=True)
class SignedImage:
    """An image with a signature.

    Attributes:
        image: The image, with its digest.
        digest: Digest of the manifest, or index, that is signed.
        key: SHA-256 of the public key that verifies it.
        changed: Whether the signature was made now; False where it was there.
    """

    image: str
    digest: str
    key: str
    changed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Give the result as plain JSON values."""
        return dict(vars(self))


def sign_image(
    image: str,
    key: SigningKey,
    *,
    platform: str = "",
    progress: Callable[[str], None] = lambda sentence: None,
) -> SignedImage:
    """Sign an image, so that `verify_image` and `cosign verify --key` find it signed.

    Signing it again with the same key adds nothing; another key adds another signature.

    Args:
        image: A registry reference or `oci:DIR[:TAG]`. A multi-platform index is signed as such.
        key: Signs it.
        platform: Sign the image for this platform alone instead.
        progress: Called with a short sentence at each step.

    Returns:
        What was signed.

    Raises:
        InvalidInput: The name is none of an image.
        ImageError: It cannot be read, or has no place for signatures.
        RegistryError: The registry refused or failed.
    """
    where = parse_source(image)
    progress(f"reading {image}")
    opened = _opened(image, platform)
    done = SignedImage(opened.title, opened.descriptor.digest, key.public.fingerprint)
    with open_beside(where) as sink, scratch_directory("kfp-bento-sign-") as folder:
        if is_signed(opened, opened.name, key.public):
            progress(f"signed already: {opened.title}")
            return done
        digest = opened.descriptor.digest
        changed = put_signature(sink, BlobDirectory(folder), digest, opened.name, key)
    return SignedImage(done.image, done.digest, done.key, changed)


def verify_image(image: str, keys: Sequence[PublicKey], *, platform: str = "") -> SignedImage:
    """Make sure that an image is signed with one of the keys.

    Args:
        image: A registry reference or `oci:DIR[:TAG]`.
        keys: The public keys.
        platform: Of a multi-platform index look at the image for this platform alone.

    Returns:
        What is signed, and with which key.

    Raises:
        InvalidInput: The name is none of an image.
        NotSigned: It has no signature by any of the keys.
        ImageError: It cannot be read, or has no place for signatures.
        RegistryError: The registry refused or failed.
    """
    if not parse_source(image).keeps_manifests:
        raise ImageError(
            f"{image} carries no signatures: a docker archive has no place for them.",
            hint="Verify the image where it came from, a registry or an oci:DIR.",
        )
    opened = _opened(image, platform)
    key = signer_of(opened, keys)
    return SignedImage(opened.title, opened.descriptor.digest, key.fingerprint)


def _opened(image: str, platform: str) -> OpenedImage:
    return open_image(image, parse_platform(platform)) if platform else open_manifest(image)
