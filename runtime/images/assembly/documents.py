"""The documents that go with an image: its bill of materials and its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.images.assembly.spec import ImageSpec
from kfp_bento.runtime.images.attestations.attachments import (
    provenance_document,
    read_attachments,
    sbom_document,
)
from kfp_bento.runtime.images.attestations.provenance import (
    PREDICATE,
    STATEMENT_TYPE,
    BaseOrigin,
    ImageBuild,
    ModelOrigin,
    invocation_id,
    slsa_provenance,
)
from kfp_bento.runtime.images.attestations.sbom import (
    SBOM_TYPE,
    BaseFact,
    ModelFact,
    SoftwareBill,
    WheelFact,
    cyclonedx_sbom,
)
from kfp_bento.runtime.images.base.base_image import HOST, BaseImage
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.image import Descriptor, Document, Image, Layer, Platform
from kfp_bento.runtime.images.oci.keys import BUILDER_FORMAT
from kfp_bento.runtime.images.oci.reference import parse_reference

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoModel


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
    platform = spec.config.platform
    wheels = tuple(
        WheelFact(wheel.name, wheel.version, wheel.filename, wheel.sha256) for wheel in spec.wheels
    )
    bill = SoftwareBill(
        name=spec.name,
        version=spec.version,
        epoch=spec.config.epoch,
        wheels=wheels,
        debs=spec.debs,
        models=tuple(map(_model_fact, spec.models)),
        base=base_fact(spec.base),
        unverified=frozenset(part for recipe, _ in marked for part in recipe.parts),
    )
    build = ImageBuild(
        repository=spec.repository,
        digest=image.digest,
        bento=f"{spec.name}:{spec.version}",
        bento_digest=spec.digest,
        base=image_origin(spec.asked, spec.base.digest, platform),
        platform=str(platform),
        compression=spec.compression,
        format=str(BUILDER_FORMAT),
        wheels=wheels,
        debs=spec.debs,
        models=tuple(map(_model_origin, spec.models)),
        invocation=invocation_id(os.environ),
        unverified=tuple(layer.digest for _, layer in marked),
    )
    return (
        sbom_document(cyclonedx_sbom(bill)),
        provenance_document(slsa_provenance(build)),
    )


def base_fact(base: BaseImage) -> BaseFact | None:
    """A base in a bill of materials; None for one made of this machine, which nobody listed."""
    return BaseFact.from_config(base.config, base.digest) if base.digest else None


def image_origin(asked: str, digest: str, platform: Platform) -> BaseOrigin:
    """Where an image came from, in a provenance statement.

    Args:
        asked: A registry reference, `oci:…`, `docker-archive:…` or `host`.
        digest: What it was resolved to.
        platform: What it is for.
    """
    found = BaseOrigin(asked, digest, architecture=platform.architecture)
    if asked == HOST or asked.startswith(("oci:", "docker-archive:")):
        return found
    reference = parse_reference(asked)
    return replace(found, repository=reference.name, tag=reference.tag)


def read_sboms(image: str, platform: str = "") -> tuple[bytes, ...]:
    """Read the bills of materials that are attached to an image; see `read_attachments`."""
    return read_attachments(image, SBOM_TYPE, platform=platform)


def read_provenance(image: str, platform: str = "") -> tuple[bytes, ...]:
    """Read the provenance statements that are attached to an image; see `read_attachments`."""
    return read_attachments(image, STATEMENT_TYPE, predicate=PREDICATE, platform=platform)


def write_attestations(image: Image, sbom: Path, provenance: Path) -> None:
    """Write what `build_image` attached into files; an archive carries nothing.

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
    own = image.documents
    bills = tuple(item.content for item in own if item.media_type == SBOM_TYPE)
    statements = tuple(item.content for item in own if item.media_type == STATEMENT_TYPE)
    if not image.location.startswith("docker-archive:"):
        local = image.location.startswith("oci:")
        where = f"{image.location}:{image.tags[0]}" if local else image.reference
        bills = bills or read_sboms(where)
        statements = tuple(dict.fromkeys((*statements, *read_provenance(where))))
    with storage_errors(sbom):
        sbom.write_bytes(b"".join(bills[:1]))
        provenance.write_bytes(b"".join(text + b"\n" for text in statements))


def _model_fact(model: BentoModel) -> ModelFact:
    name, _, version = model.tag.partition(":")
    return ModelFact(
        name,
        version,
        model.digest,
        flavors=tuple(model.provenance.get("flavors") or ()),
        signature=model.provenance.get("signature") or {},
    )


def _model_origin(model: BentoModel) -> ModelOrigin:
    name, _, version = model.tag.partition(":")
    origin = model.provenance
    return ModelOrigin(
        name=name,
        version=version,
        digest=model.digest,
        uri=str(origin.get("uri", "")),
        registered_name=str(origin.get("name", "")),
        registered_version=str(origin.get("version", "")),
        run_id=str(origin.get("run_id", "")),
    )
