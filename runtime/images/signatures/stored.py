"""Signatures where images are: read from beside an image, and put there without losing any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.attestations.attachments import documents_of
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, scratch_directory
from kfp_bento.runtime.images.oci.image import (
    OCI_CONFIG,
    BlobSource,
    Descriptor,
    ImageSource,
    descriptor_from,
    one_line,
    signature_tag,
)
from kfp_bento.runtime.images.places.opened_image import OpenedImage, parse_document, well_formed
from kfp_bento.runtime.images.places.sink import ImageSink
from kfp_bento.runtime.images.signatures.keys import PublicKey, SigningKey
from kfp_bento.runtime.images.signatures.simple_signing import (
    BUNDLE_TYPE,
    PAYLOAD_TYPE,
    Claim,
    claim_of_payload,
    claims_of_bundle,
    manifest_of,
    payload_for,
    signed_layer,
)

_MOST = 512
_PAYLOAD_LIMIT = 64 << 10
# A registry writes a list whoever wrote it since it was read: of two who sign at once one may
# overwrite the other's. Reading it again finds that out only where it has happened by then.
_ROUNDS = 5


class NoSignatures(ImageError):
    """Something else is where the signatures of an image belong."""


def claims_about(image: OpenedImage) -> Iterator[Claim]:
    """Give the signatures that lie beside an image, whoever made them and for whatever image.

    Raises:
        ImageError: They cannot be read, or are not what their digests say.
        RegistryError: The registry refused or failed.
    """
    for layer in signature_layers(image.blobs, image.descriptor.digest):
        if layer.get("mediaType") == PAYLOAD_TYPE:
            payload = _read_payload(image.blobs, descriptor_from(layer))
            if claim := claim_of_payload(layer, payload):
                yield claim
    for bundle in documents_of(image, BUNDLE_TYPE):
        yield from claims_of_bundle(bundle)


def signature_layers(place: ImageSource | ImageSink, digest: str) -> list[dict[str, Any]]:
    """Give what the manifest of an image's signatures lists; empty if there is none.

    Raises:
        NoSignatures: Something else has the tag.
    """
    tag = signature_tag(digest)
    found = place.named(tag)
    if found is None:
        return []
    title = f"with the tag {tag}"
    try:
        document = parse_document(found[1], f"The image {title}")
        with well_formed(title):
            layers = document["layers"]
            kinds = {descriptor_from(layer).media_type for layer in layers}
        if kinds - {PAYLOAD_TYPE}:
            raise ImageError(f"It lists {one_line(', '.join(sorted(kinds)))}.")
        if len(layers) > _MOST:
            raise ImageError(f"It lists {len(layers)} signatures; at most {_MOST} are read.")
    except ImageError as error:
        raise NoSignatures(
            f"What has the tag {tag} is no list of signatures. {error.message}",
            hint="Look at what it is, and delete that tag if nobody needs it: signatures of this "
            "image belong there.",
        ) from error
    return list(layers)


def put_layers(
    sink: ImageSink,
    workspace: BlobDirectory,
    digest: str,
    layers: Sequence[dict[str, Any]],
    source: BlobSource,
) -> bool:
    """Add to the signatures of an image, after those that are there.

    Args:
        sink: Where the image is.
        workspace: Where the configuration is written first.
        digest: The image's manifest.
        layers: Payloads with their signatures, as their manifest lists them.
        source: Gives out the payloads.

    Returns:
        Whether one was not there.

    Raises:
        RegistryError: The registry refused or failed.
        NoSignatures: Something else has their tag.
        ImageError: Others keep writing the list, or the disk is full.
    """
    changed = False
    for _ in range(_ROUNDS):
        present = signature_layers(sink, digest)
        missing = [layer for layer in layers if layer not in present]
        if not missing:
            return changed
        manifest, content, config = manifest_of([*present, *missing])
        for layer in missing:
            sink.put_blob(descriptor_from(layer), source)
        sink.put_blob(workspace.put_bytes(config, OCI_CONFIG), workspace)
        sink.put_named(manifest, content, signature_tag(digest))
        changed = True
    raise ImageError(
        f"The signature of {digest} could not be added: others keep writing the list.",
        hint="Run this again.",
    )


def put_signature(
    sink: ImageSink, workspace: BlobDirectory, digest: str, identity: str, key: SigningKey
) -> bool:
    """Sign an image that a sink holds; see `put_layers`."""
    payload = payload_for(digest, identity)
    workspace.put_bytes(payload, PAYLOAD_TYPE)
    return put_layers(sink, workspace, digest, [signed_layer(payload, key)], workspace)


def copy_signatures(source: ImageSource, sink: ImageSink, digest: str) -> int:
    """Copy the signatures of a manifest that a sink holds under the same digest.

    Returns:
        Their number.

    Raises:
        ImageError: They cannot be read, or the disk is full.
        RegistryError: A registry refused or failed.
    """
    layers = signature_layers(source, digest)
    if layers:
        with scratch_directory("kfp-bento-signatures-") as folder:
            put_layers(sink, BlobDirectory(folder), digest, layers, source)
    return len(layers)


def is_signed(image: OpenedImage, identity: str, key: PublicKey) -> bool:
    """Say whether an image has a signature by this key that names this repository."""
    digest = image.descriptor.digest
    return any(
        digest in claim.digests and claim.identity == identity and claim.is_by([key])
        for claim in claims_about(image)
    )


def _read_payload(blobs: ImageSource, blob: Descriptor) -> bytes:
    if blob.size > _PAYLOAD_LIMIT:
        raise ImageError(f"{blob.digest} is too large for a signature: {blob.size} bytes.")
    return b"".join(blobs.open_blob(blob))
