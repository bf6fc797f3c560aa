"""The documents that go with an image: its bill of materials and its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kfp_bento.runtime.images.assembly.spec import ImageSpec
from kfp_bento.runtime.images.attestations.attachments import (
    provenance_document,
    read_attachments,
    sbom_document,
)
from kfp_bento.runtime.images.attestations.image_build import ImageBuild
from kfp_bento.runtime.images.attestations.provenance import (
    PREDICATE,
    STATEMENT_TYPE,
    invocation_id,
    slsa_provenance,
)
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE, cyclonedx_sbom
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.image import Descriptor, Document, Image, Layer
from kfp_bento.runtime.images.oci.keys import BUILDER_FORMAT


def image_documents(
    spec: ImageSpec, image: Descriptor, layers: Sequence[Layer]
) -> tuple[Document, Document]:
    """Write the documents for a finished image.

    Args:
        spec: What it was made of.
        image: Its manifest.
        layers: All its layers; what is in an unverified one is marked.
    """
    marked = [(recipe, layer) for recipe, layer in spec.own(layers) if layer.unverified]
    build = ImageBuild(
        repository=spec.repository,
        digest=image.digest,
        name=spec.name,
        version=spec.version,
        asked_base=spec.asked,
        base=spec.base,
        platform=spec.config.platform,
        compression=spec.compression,
        format=str(BUILDER_FORMAT),
        epoch=spec.config.epoch,
        bento_digest=spec.digest,
        wheels=spec.wheels,
        debs=spec.debs,
        models=spec.models,
        unverified_layers=tuple(layer.digest for _, layer in marked),
        unverified_parts=frozenset(part for recipe, _ in marked for part in recipe.parts),
        invocation=invocation_id(os.environ),
    )
    return (
        sbom_document(cyclonedx_sbom(build)),
        provenance_document(slsa_provenance(build)),
    )


def read_sboms(image: str, platform: str = "") -> tuple[bytes, ...]:
    """Read the bills of materials that are attached to an image; see `read_attachments`."""
    return read_attachments(image, SBOM_TYPE, platform=platform)


def read_provenance(image: str, platform: str = "") -> tuple[bytes, ...]:
    """Read the provenance statements that are attached to an image; see `read_attachments`."""
    return read_attachments(image, STATEMENT_TYPE, predicate=PREDICATE, platform=platform)


def write_attestations(image: Image, sbom: Path, provenance: Path) -> None:
    """Write what `build_image` attached into files; an archive carries nothing.

    Of an index the bill is that of its first image, and the statements are those of all.
    Where some layers are unverified, what this build knows of the image comes first: what is
    attached to it may be whoever's who planted them.

    Args:
        image: The image.
        sbom: For the bill of materials, CycloneDX JSON.
        provenance: For in-toto statements, one a line; several where the image was built again
            from models that came from elsewhere.

    Raises:
        ImageError: The image cannot be read, a document is not what its digest says, or a file
            cannot be written.
        RegistryError: The registry refused or failed.
    """
    found = [_attestations(part, image) for part in image.parts or (image,)]
    statements = dict.fromkeys(text for _, some in found for text in some)
    with storage_errors(sbom):
        sbom.write_bytes(b"".join(found[0][0][:1]))
        provenance.write_bytes(b"".join(text + b"\n" for text in statements))


def _attestations(image: Image, named: Image) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Give bills of materials and statements about an image, which is one of those of a name."""
    own = image.documents
    bills = tuple(item.content for item in own if item.media_type == SBOM_TYPE)
    statements = tuple(item.content for item in own if item.media_type == STATEMENT_TYPE)
    if not image.location.startswith("docker-archive:"):
        local = image.location.startswith("oci:")
        where = f"{image.location}:{named.tags[0]}" if local else image.reference
        platform = image.platform if image is not named else ""
        bills = bills or read_sboms(where, platform)
        statements = tuple(dict.fromkeys((*statements, *read_provenance(where, platform))))
    return bills, statements
