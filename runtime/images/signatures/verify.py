"""Whether an image is signed by whom it must be signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.base.base_image import HOST
from kfp_bento.runtime.images.oci.image import Descriptor, descriptor_from
from kfp_bento.runtime.images.oci.reference import parse_source
from kfp_bento.runtime.images.places.open import open_manifest
from kfp_bento.runtime.images.places.opened_image import OpenedImage, well_formed
from kfp_bento.runtime.images.signatures.keys import PublicKey, fingerprints
from kfp_bento.runtime.images.signatures.stored import claims_about

_SIGN = "Sign it: `kfp-bento image sign IMAGE --key FILE`, or `cosign sign --key`."


class NotSigned(ImageError):
    """An image lacks a signature that it must have."""


def signer_of(image: OpenedImage, keys: Sequence[PublicKey]) -> PublicKey:
    """Give the first of the keys that an image is signed with.

    Raises:
        NotSigned: It has no signature, or none by these keys, or theirs is another image's.
        ImageError: The signatures cannot be read.
        RegistryError: The registry refused or failed.
    """
    digest = image.descriptor.digest
    count, others = 0, set[str]()
    for claim in claims_about(image):
        count += 1
        if key := claim.is_by(keys):
            if digest in claim.digests:
                return key
            others.update(claim.digests)
    if others:
        raise NotSigned(
            f"{image.title} carries a signature by {fingerprints(keys)}, but of another image: "
            f"{', '.join(sorted(others))}.",
            hint="Somebody moved it here; do not use this image before you know why.",
        )
    if count:
        made = "a signature, but not one" if count == 1 else f"{count} signatures, but none"
        raise NotSigned(
            f"{image.title} carries {made} by the key {fingerprints(keys)}.",
            hint=f"Give the key of whoever signed it, or let yours. {_SIGN}",
        )
    raise NotSigned(
        f"{image.title} is not signed.",
        hint=f"{_SIGN} A copy may have left its signatures behind; `kfp-bento image copy` and "
        "`cosign copy` take them along.",
    )


def check_can_be_signed(base: str) -> None:
    """Refuse a base of a kind that carries no signatures.

    Raises:
        InvalidInput: It is one.
    """
    if base == HOST or not parse_source(base).keeps_manifests:
        raise InvalidInput(
            f"The base {base} cannot be signed: only images in registries and OCI layouts are.",
            hint="Name such a base, or ask for no signature.",
        )


def signer_of_base(text: str, digest: str, keys: Sequence[PublicKey]) -> PublicKey:
    """Give the key that a base is signed with: the image itself, or the index that lists it.

    Args:
        text: The base as it was asked for.
        digest: The manifest that was taken of it.
        keys: One of these.

    Raises:
        NotSigned: Neither is signed with one of the keys.
        ImageError: It cannot be read, or is another one by now.
        RegistryError: The registry refused or failed.
    """
    found = open_manifest(text)
    if found.descriptor.digest == digest:
        return signer_of(found, keys)
    if found.is_index:
        with well_formed(found.title):
            children = [descriptor_from(item) for item in found.manifest["manifests"]]
        if chosen := next((child for child in children if child.digest == digest), None):
            return _signer_of_either(found, chosen, keys)
    raise ImageError(
        f"{text} was moved to {found.descriptor.digest} while it was read.",
        hint="Run this again.",
    )


def _signer_of_either(
    index: OpenedImage, chosen: Descriptor, keys: Sequence[PublicKey]
) -> PublicKey:
    """Give the key that an index is signed with, or else one image of it alone."""
    try:
        return signer_of(index, keys)
    except NotSigned as refused:
        title = index.title.replace(index.descriptor.digest, chosen.digest)
        content = index.blobs.read_named(chosen)
        try:
            return signer_of(replace(index, title=title, descriptor=chosen, content=content), keys)
        except NotSigned:
            raise refused from None
