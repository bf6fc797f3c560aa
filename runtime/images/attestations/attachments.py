"""Documents about an image, stored beside it and found from it (OCI 1.1, `subject`).

A document is a blob; a small manifest says which image it is about. A registry lists such manifests
by their subject (distribution specification 1.1, referrers; older registries keep the list under
a tag), and an OCI layout names them in its index. The image itself does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.errors import ImageError, RegistryError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.attestations.provenance import PREDICATE, STATEMENT_TYPE
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.config import (
    EMPTY,
    EMPTY_TYPE,
    IMAGE_TITLE,
    canonical_json,
    descriptor_of,
)
from kfp_bento.runtime.images.oci.image import (
    OCI_MANIFEST,
    BlobSource,
    Descriptor,
    Document,
    descriptor_from,
    parse_platform,
    referrer_type,
)
from kfp_bento.runtime.images.oci.reference import parse_source
from kfp_bento.runtime.images.places.open import open_image
from kfp_bento.runtime.images.places.opened_image import OpenedImage, parse_document
from kfp_bento.runtime.images.places.sink import ImageSink

# BuildKit's annotation, by which others find a statement without fetching every document.
PREDICATE_TYPE = "in-toto.io/predicate-type"

_ARTIFACT_TYPE = "artifactType"
_DOCUMENT_LIMIT = 64 << 20


def sbom_document(content: bytes) -> Document:
    """Give the document that `cyclonedx_sbom` wrote, ready to be attached."""
    return Document(SBOM_TYPE, content, "sbom.cdx.json")


def provenance_document(content: bytes) -> Document:
    """Give the statement that `slsa_provenance` wrote, ready to be attached."""
    return Document(
        STATEMENT_TYPE, content, "provenance.intoto.json", ((PREDICATE_TYPE, PREDICATE),)
    )


def attachment_manifest(
    subject: Descriptor,
    artifact_type: str,
    content: Descriptor,
    annotations: Mapping[str, str],
    *,
    filename: str = "",
) -> tuple[Descriptor, bytes]:
    """Compose the manifest that attaches a document to an image.

    Args:
        subject: The image's manifest.
        artifact_type: What kind of document it is.
        content: The document's blob.
        annotations: Put on the manifest, where a registry copies them into its list, and on the
            document, where BuildKit's readers look for them.
        filename: What a client that downloads the document calls it.
    """
    layer = content.to_dict()
    named = {**annotations, **({IMAGE_TITLE: filename} if filename else {})}
    if named:
        layer["annotations"] = named
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        _ARTIFACT_TYPE: artifact_type,
        "config": descriptor_of(EMPTY, EMPTY_TYPE).to_dict(),
        "layers": [layer],
        "subject": subject.to_dict(),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    manifest = canonical_json(document)
    return descriptor_of(manifest, OCI_MANIFEST), manifest


def attach(
    sink: ImageSink,
    workspace: BlobDirectory,
    subject: Descriptor,
    documents: Sequence[Document],
) -> tuple[Descriptor, ...]:
    """Attach documents to an image that the sink holds already.

    What is attached already is left alone, which for a registry takes one request to find out.
    For a layout or archive this must come before the image's tag, which puts it into place.

    Args:
        sink: Where the image is.
        workspace: Where the documents' blobs are written first.
        subject: The image's manifest.
        documents: What to attach.

    Returns:
        The manifests that attach the documents, in the same order.

    Raises:
        RegistryError: The registry refused or failed.
        ImageError: The disk is full.
    """
    present = {item.get("digest") for item in sink.referrers(subject.digest)}
    attached, fresh = [], []
    for document in documents:
        blob = descriptor_of(document.content, document.media_type)
        manifest, text = attachment_manifest(
            subject,
            document.media_type,
            blob,
            dict(document.annotations),
            filename=document.filename,
        )
        if manifest.digest not in present:
            sink.put_blob(workspace.put_bytes(EMPTY, EMPTY_TYPE), workspace)
            sink.put_blob(workspace.put_bytes(document.content, document.media_type), workspace)
            fresh.append((manifest, text))
        attached.append(manifest)
    sink.put_referrers(fresh, subject)
    return tuple(attached)


def attach_if_taken(
    sink: ImageSink,
    workspace: BlobDirectory,
    subject: Descriptor,
    documents: Sequence[Document],
) -> tuple[tuple[Descriptor, ...], str]:
    """Attach documents as `attach` does, where the place takes such documents.

    Some registries take no artifacts, and immutable tags allow no further entry in a list. That
    is no reason to do without the image.

    Returns:
        The manifests that attach the documents; and why there are none, else an empty text.

    Raises:
        RegistryError: The registry failed in a way that may pass.
        ImageError: The disk is full.
    """
    try:
        return attach(sink, workspace, subject, documents), ""
    except RegistryError as error:
        if not error.refused:
            raise
        reason = (
            "the bill of materials and the provenance are not attached to the image, since the "
            f"registry takes no such documents here: {error.message}"
        )
        return (), reason


def read_attachments(
    image: str, artifact_type: str, *, predicate: str = "", platform: str = ""
) -> tuple[bytes, ...]:
    """Read the documents of one kind that are attached to an image, every digest checked.

    Args:
        image: `oci:DIR[:TAG]`, or a registry reference with a tag or digest.
        artifact_type: Which kind.
        predicate: Of in-toto statements, only those with this predicate type.
        platform: Which image of a multi-platform index; this machine's if empty.

    Returns:
        The documents, in the order of their manifests' digests; there may be none, and several
        where the image was built more than once.

    Raises:
        InvalidInput: The name is none of an image.
        ImageError: The image cannot be read or is in an archive, or a document is not what its
            digest says.
        RegistryError: The registry refused or failed.
    """
    if not parse_source(image).keeps_manifests:
        raise ImageError(
            f"{image} carries no documents: a docker archive has no place for them.",
            hint="Ask for them where the image came from, a registry or an oci:DIR.",
        )
    opened = open_image(image, parse_platform(platform) if platform else None)
    return documents_of(opened, artifact_type, predicate=predicate)


def documents_of(
    image: OpenedImage, artifact_type: str, *, predicate: str = ""
) -> tuple[bytes, ...]:
    """Read the documents of one kind that are attached to an open image; see above.

    Returns:
        The documents; none for an image in an archive.
    """
    subject = image.descriptor.digest
    found: dict[str, bytes] = {}
    for item in image.blobs.referrers(subject):
        # cosign 2 lists what it attaches by the type of its empty configuration.
        if item.get(_ARTIFACT_TYPE, artifact_type) not in (artifact_type, EMPTY_TYPE):
            continue
        described = descriptor_from(item)
        manifest = parse_document(
            image.blobs.read_named(described), f"The manifest {described.digest}"
        )
        if _is_about(manifest, subject) and referrer_type(manifest) == artifact_type:
            content = _document(image.blobs, manifest, described)
            if not predicate or _predicate(content) == predicate:
                found[described.digest] = content
    return tuple(found[digest] for digest in sorted(found))


def _is_about(manifest: dict[str, Any], subject: str) -> bool:
    named = manifest.get("subject")
    return isinstance(named, dict) and named.get("digest") == subject


def _document(source: BlobSource, manifest: dict[str, Any], described: Descriptor) -> bytes:
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) != 1 or not isinstance(layers[0], dict):
        raise ImageError(f"{described.digest} attaches no document, or more than one.")
    blob = descriptor_from(layers[0])
    if blob.size > _DOCUMENT_LIMIT:
        raise ImageError(
            f"{blob.digest} is too large for a document about an image: {blob.size} bytes."
        )
    return b"".join(source.open_blob(blob))


def _predicate(content: bytes) -> str:
    try:
        return str(parse_json(content).get("predicateType", ""))
    except ValueError:
        return ""
