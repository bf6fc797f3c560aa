"""The documents that go with an image: its bill of materials and its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.images.assembly.assembly import Unverified
from kfp_bento.runtime.images.assembly.context import BuildOptions
from kfp_bento.runtime.images.assembly.recipes import BUILDER_FORMAT
from kfp_bento.runtime.images.attestations.attachments import (
    Document,
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
    DebFact,
    ModelFact,
    SoftwareBill,
    WheelFact,
    builder_version,
    cyclonedx_sbom,
)
from kfp_bento.runtime.images.base.base_image import HOST, BaseImage
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.image import Descriptor, Image, Platform
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.python.wheels import Wheel

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
    debs: tuple[DebFact, ...] = ()

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
        wheels = tuple(
            WheelFact(wheel.name, wheel.version, wheel.filename, wheel.sha256)
            for wheel in self.wheels
        )
        bill = SoftwareBill(
            name=options.name,
            version=options.version,
            epoch=options.epoch,
            wheels=wheels,
            debs=self.debs,
            models=tuple(map(_model_fact, self.models)),
            base=base_fact(self.base),
            unverified=reused.parts,
        )
        build = ImageBuild(
            repository=options.repository,
            digest=image.digest,
            bento=f"{options.name}:{options.version}",
            bento_digest=self.digest,
            base=self._base_origin(),
            platform=str(options.platform),
            compression=options.codec.name,
            format=str(BUILDER_FORMAT),
            wheels=wheels,
            debs=self.debs,
            models=tuple(map(_model_origin, self.models)),
            invocation=invocation_id(os.environ),
            unverified=reused.layers,
        )
        return (
            sbom_document(cyclonedx_sbom(bill)),
            provenance_document(slsa_provenance(build)),
        )

    def _base_origin(self) -> BaseOrigin:
        asked = self.options.base or self.base.title.partition("@")[0]
        return image_origin(asked, self.base.digest, self.options.platform)


def base_fact(base: BaseImage) -> BaseFact | None:
    """A base in a bill of materials; None for one made of this machine, which nobody listed."""
    return BaseFact.from_config(base.config, base.digest) if base.digest else None


def image_origin(asked: str, digest: str, platform: Platform) -> BaseOrigin:
    """Where an image came from, in a provenance statement.

    Args:
        asked: A registry reference, ``oci:…``, ``docker-archive:…`` or ``host``.
        digest: What it was resolved to.
        platform: What it is for.
    """
    found = BaseOrigin(asked, digest, architecture=platform.architecture)
    if asked == HOST or asked.startswith(("oci:", "docker-archive:")):
        return found
    reference = parse_reference(asked)
    return replace(found, repository=reference.name, tag=reference.tag)


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
