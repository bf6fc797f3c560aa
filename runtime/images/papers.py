"""The documents that go with a bento's image: its bill of materials and its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.images.attachments import Document, provenance_document, sbom_document
from kfp_bento.runtime.images.base_image import HOST, BaseImage
from kfp_bento.runtime.images.image import Descriptor, Platform
from kfp_bento.runtime.images.provenance import (
    BaseOrigin,
    ImageBuild,
    ModelOrigin,
    invocation_id,
    slsa_provenance,
)
from kfp_bento.runtime.images.recipes import BUILDER_FORMAT
from kfp_bento.runtime.images.reference import parse_reference
from kfp_bento.runtime.images.sbom import (
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
    from kfp_bento.runtime.bentos import Bento, BentoModel


@dataclass(frozen=True)
class Papers:
    """What is known about an image and is not its content alone.

    Attributes:
        bento: What it was made of, with the models' origins.
        base: The base image.
        asked: The base as it was asked for; empty if none was.
        repository: The repository the image is known by.
        platform: The image's platform.
        compression: ``zstd``, ``gzip`` or ``none``.
        epoch: Seconds since 1970 that stand in every timestamp.
        wheels: The wheels of its environment.
        debs: The Debian packages on top of its base.
    """

    bento: Bento
    base: BaseImage
    asked: str
    repository: str
    platform: Platform
    compression: str
    epoch: int
    wheels: tuple[Wheel, ...]
    debs: tuple[DebFact, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values that tell apart images which are equal but came about otherwise.

        The run that builds is not among them: a repeated build is no other image.
        """
        return {
            "builder": builder_version(),
            "asked": self.asked,
            "origins": [model.provenance for model in self.bento.models],
        }

    def documents(self, image: Descriptor) -> Sequence[Document]:
        """Writes the documents for the finished image."""
        wheels = tuple(
            WheelFact(wheel.name, wheel.version, wheel.filename, wheel.sha256)
            for wheel in self.wheels
        )
        bill = SoftwareBill(
            name=self.bento.name,
            version=self.bento.version,
            epoch=self.epoch,
            wheels=wheels,
            debs=self.debs,
            models=tuple(map(_model_fact, self.bento.models)),
            base=self._base_fact(),
        )
        build = ImageBuild(
            repository=self.repository,
            digest=image.digest,
            bento=self.bento.tag,
            bento_digest=self.bento.digest,
            base=self._base_origin(),
            platform=str(self.platform),
            compression=self.compression,
            format=str(BUILDER_FORMAT),
            wheels=wheels,
            debs=self.debs,
            models=tuple(map(_model_origin, self.bento.models)),
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
        asked = self.asked or self.base.title.partition("@")[0]
        if asked == HOST or asked.startswith(("oci:", "docker-archive:")):
            return BaseOrigin(asked, self.base.digest, architecture=self.platform.architecture)
        reference = parse_reference(asked)
        return BaseOrigin(
            asked,
            self.base.digest,
            repository=reference.name,
            tag=reference.tag,
            architecture=self.platform.architecture,
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
