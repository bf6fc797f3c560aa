"""The documents that go with an image: its bill of materials and its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.images.attachments import (
    Document,
    provenance_document,
    read_attachments,
    sbom_document,
)
from kfp_bento.runtime.images.base_image import HOST, BaseImage
from kfp_bento.runtime.images.context import BuildOptions
from kfp_bento.runtime.images.image import Descriptor, Image
from kfp_bento.runtime.images.provenance import (
    PREDICATE,
    STATEMENT_TYPE,
    BaseOrigin,
    ImageBuild,
    ModelOrigin,
    invocation_id,
    slsa_provenance,
)
from kfp_bento.runtime.images.recipes import BUILDER_FORMAT
from kfp_bento.runtime.images.reference import parse_reference
from kfp_bento.runtime.images.sbom import (
    SBOM_TYPE,
    BaseFact,
    DebFact,
    ModelFact,
    SoftwareBill,
    WheelFact,
    builder_version,
    cyclonedx_sbom,
)
from kfp_bento.runtime.images.wheels import Wheel

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoModel


@dataclass(frozen=True)
class Papers:
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

    def documents(self, image: Descriptor) -> Sequence[Document]:
        """Writes the documents for the finished image."""
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
            base=self._base_fact(),
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
        )
        return (
            sbom_document(cyclonedx_sbom(bill)),
            provenance_document(slsa_provenance(build)),
        )

    def _base_fact(self) -> BaseFact | None:
        if not self.base.digest:
            return None
        return BaseFact.from_config(self.base.config, self.base.digest)

    def _base_origin(self) -> BaseOrigin:
        asked = self.options.base or self.base.title.partition("@")[0]
        found = BaseOrigin(asked, self.base.digest, architecture=self.options.platform.architecture)
        if asked == HOST or asked.startswith(("oci:", "docker-archive:")):
            return found
        reference = parse_reference(asked)
        return replace(found, repository=reference.name, tag=reference.tag)


@dataclass(frozen=True)
class AttachedPapers:
    """What is attached to an image.

    Attributes:
        sbom: CycloneDX JSON; empty if none is attached.
        provenance: in-toto statements, one a line; several where the image was built again from
            models that came from elsewhere.
    """

    sbom: bytes
    provenance: bytes


def read_papers(image: Image) -> AttachedPapers:
    """Reads what `build_image` attached; an archive carries nothing.

    Raises:
        ImageError: The image cannot be read, or a document is not what its digest says.
        RegistryError: The registry refused or failed.
    """
    if image.location.startswith("docker-archive:"):
        return AttachedPapers(b"", b"")
    local = image.location.startswith("oci:")
    where = f"{image.location}:{image.tags[0]}" if local else image.reference
    bills = read_attachments(where, SBOM_TYPE)
    statements = read_attachments(where, STATEMENT_TYPE, predicate=PREDICATE)
    return AttachedPapers(
        sbom=bills[0] if bills else b"", provenance=b"".join(text + b"\n" for text in statements)
    )


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
