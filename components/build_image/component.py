"""Assemble an OCI image from a bento, without Docker, root or a daemon."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def build_image(
    bento: dsl.Input[dsl.Model],
    destination: str,
    record: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    sbom: dsl.Output[dsl.Artifact],
    provenance: dsl.Output[dsl.Artifact],
    base: str = "",
    platform: str = "",
    cache_repository: str = "",
    compression: str = "zstd",
    system_packages: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    base_key: str = "",
) -> NamedTuple("Outputs", [("image", str), ("location", str)]):
    """Assemble an OCI image and write it to a registry or an OCI layout directory.

    The same bento on the same base gives the same digest on any machine and any day. Layers that
    the registry knows from earlier builds are neither made nor sent again. Where a Secret with a
    key is mounted, the image is signed as cosign does.

    Args:
        bento: A bento directory from build_bento.
        destination: Where the image goes: registry/repository[:tag], or oci:DIRECTORY.
        base: Base image reference, oci:DIRECTORY or host; empty takes KFP_BENTO_BASE_IMAGE,
            else python:<minor>-slim.
        platform: linux/amd64 or linux/arm64, or both with a comma between for one index; empty
            takes the one this step runs on.
        cache_repository: Repository of the same registry through which images share layers;
            empty takes KFP_BENTO_CACHE_REPOSITORY, else the image's own repository.
        compression: zstd, or gzip for registries and clusters that know no zstd, or none;
            models are never compressed.
        system_packages: Debian packages to add to the base, name or name=version, besides those
            that the bento asks for and those that its wheels cannot do without.
        base_key: Public key in PEM, as cosign.pub holds it: a base that it did not sign is refused;
            empty takes any base.

    Returns:
        record: JSON record of the image: reference, digest, base, layers, and whose signatures
            base and image have.
        metrics: Bytes and number of layers, built and reused.
        summary: The layers as a table.
        sbom: What is in the image, as CycloneDX; also attached to the image. Of an index that
            of its first image.
        provenance: How it came about, as in-toto statements, one a line; also attached.
        image: The image by digest, repository@sha256:...
        location: Where the bytes are: docker://repository or oci:DIRECTORY, without tag or digest.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, images, reports

    built = images.build_image(
        bentos.load_given_bento(bento, deferred=True),
        destination,
        images.ImageOptions(
            base=base,
            platform=platform,
            cache_repository=cache_repository,
            compression=compression,
            system_packages=tuple(system_packages),
            base_key=base_key,
        ),
    )
    images.write_attestations(built, Path(sbom.path), Path(provenance.path))
    reports.write_json(built.to_dict(), Path(record.path))
    reports.write_text(reports.image_summary(built), Path(summary.path))
    metrics.metadata.update(reports.image_metrics(built))
    return (built.reference, built.location)
