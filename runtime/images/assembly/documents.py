"""The documents that go with an image: its bill of materials and its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.images.assembly.assembly import Unverified
from kfp_bento.runtime.images.assembly.context import BuildOptions
from kfp_bento.runtime.images.assembly.recipes import BUILDER_FORMAT
from kfp_bento.runtime.images.attestations.attachments import (
    provenance_document,
    read_attachments,
    sbom_document,
)
from kfp_bento.runtime.images.attestations.image_build import ImageBuild, builder_version
from kfp_bento.runtime.images.attestations.provenance import (
    PREDICATE,
    STATEMENT_TYPE,
    invocation_id,
    slsa_provenance,
)
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE, cyclonedx_sbom
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.debian import DebianPackage
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.image import Descriptor, Document, Image
from kfp_bento.runtime.images.python.selection import Wheel

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoModel


@dataclass(frozen=True)
class Attestations:
    """What is known about an image and is not its content alone.

    Attributes:
        options: What was asked for.
        base: The base image.
        digest: Content digest of the bento, ``sha256:…``; may be empty.
        models: The models inside, with their origins.
        wheels: The wheels of its environment.
        debs: The Debian packages on top of its base.
    """

    options: BuildOptions
    base: BaseImage
    digest: str
    models: tuple[BentoModel, ...]
    wheels: tuple[Wheel, ...]
    debs: tuple[DebianPackage, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values that tell apart images which are equal but came about otherwise.

        The run that builds is not among them: a repeated build is no other image.
        """
        return {
            "builder": builder_version(),
            "asked": self.options.base,
            "origins": [model.provenance for model in self.models],
        }

    def documents(self, image: Descriptor, reused: Unverified) -> Sequence[Document]:
        """Writes the documents for the finished image.

        Args:
            image: Its manifest.
            reused: What of it is there on the word of a registry alone.
        """
        options = self.options
        build = ImageBuild(
            repository=options.repository,
            digest=image.digest,
            name=options.name,
            version=options.version,
            asked_base=options.base or self.base.title.partition("@")[0],
            base=self.base,
            platform=options.platform,
            compression=options.codec.name,
            format=str(BUILDER_FORMAT),
            epoch=options.epoch,
            bento_digest=self.digest,
            wheels=self.wheels,
            debs=self.debs,
            models=self.models,
            unverified_layers=reused.layers,
            unverified_parts=reused.parts,
            invocation=invocation_id(os.environ),
        )
        return (
            sbom_document(cyclonedx_sbom(build)),
            provenance_document(slsa_provenance(build)),
        )


def write_attestations(image: Image, sbom: Path, provenance: Path) -> None:
    """Writes what `build_image` attached into files; an archive carries nothing.

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
        bills = bills or read_attachments(where, SBOM_TYPE)
        attached = read_attachments(where, STATEMENT_TYPE, predicate=PREDICATE)
        statements = tuple(dict.fromkeys((*statements, *attached)))
    with storage_errors(sbom):
        sbom.write_bytes(b"".join(bills[:1]))
        provenance.write_bytes(b"".join(text + b"\n" for text in statements))
