"""Take models to a proven image in one step."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def package_model(
    model_uris: list,
    destination: str,
    models: dsl.Output[dsl.Artifact],
    bento: dsl.Output[dsl.Artifact],
    golden: dsl.Output[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
    scan: dsl.Output[dsl.Artifact],
    sbom: dsl.Output[dsl.Artifact],
    provenance: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    tracking_uri: str = "",
    scan_policy: str = "warn",
    scan_allow: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    bento_name: str = "",
    service: str = "",
    requirements: list = [],  # noqa: B006
    allow_sources: list = [],  # noqa: B006
    python_version: str = "",
    verify: bool = True,
    prove_anew: bool = False,
    requests: list = [],  # noqa: B006
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 1e-9,
    options: dict = {},  # noqa: B006
    base: str = "",
    platform: str = "",
    cache_repository: str = "",
    compression: str = "zstd",
    system_packages: list = [],  # noqa: B006
    base_key: str = "",
) -> NamedTuple("Outputs", [("image", str), ("location", str), ("passed", bool)]):
    """Pull models, scan them, build their bento, prove it, and push its image, in one pod.

    Gives what pull_model, scan_model, build_bento and build_image give one after the other, byte
    for byte, and hands on facts alone: the weights are read at their source once, lie in the pod
    once, and go to the registry once. The image gets its tag after the proof. Switch caching off
    for this step where a URI holds an alias.

    Args:
        model_uris: MLflow model URIs, as pull_model takes them; none for a service of your own
            that needs no model.
        destination: Where the image goes: registry/repository[:tag], or oci:DIRECTORY.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        scan_policy: What comes of a model that runs code when it is loaded: off does not look,
            warn reports it, enforce makes no image of it.
        scan_allow: Names of findings, exactly as the scan reports them, that do not count.
        bento_name: Name of the bento; empty takes the first model's, by the alphabet, or what a
            service of your own says.
        service: A service of your own, see build_bento; empty generates one.
        requirements: Requirements to lock besides the model's own, one per item.
        allow_sources: Beginnings of addresses of indexes, wheels and repositories that the
            model's own requirements may name, see build_bento.
        python_version: Python of the bento, such as 3.11; empty takes the model's own.
        verify: Start the bento and compare its answers before the image gets its tag.
        prove_anew: Do that also where an earlier run has proven the same bento. With a record key
            the registry says so to all runs that have it, see docs/short-road.md.
        requests: What to ask instead of the input example, see build_bento.
        relative_tolerance: Allowed difference of floats relative to the expected value.
        absolute_tolerance: Allowed difference of floats in the value's own unit.
        options: The rarer wishes of the bento by name, see build_bento.
        base: Base image, see build_image.
        platform: linux/amd64 or linux/arm64; empty takes the one this step runs on.
        cache_repository: Repository of the same registry through which images share layers.
        compression: zstd, gzip or none, see build_image.
        system_packages: Debian packages to add to the base, see build_image.
        base_key: Public key in PEM: a base that it did not sign is refused; empty takes any base.

    Returns:
        models: The facts of the models, for check_and_promote or promote_model.
        bento: The facts of the bento, for deploy_bento. Where the scan let the models not pass,
            they say so, and deploy_bento fails with that.
        golden: Requests and the answers that are right for them.
        record: JSON record of the image.
        scan: What the scan has found, as JSON.
        sbom: What is in the image, as CycloneDX; also attached to the image.
        provenance: How it came about, as in-toto statements, one a line; also attached.
        metrics: Bytes and number of layers, built and reused, and findings of the scan.
        summary: The layers, how and when the bento was proven, and the scan, as Markdown.
        image: The image by digest, repository@sha256:...; empty where the scan refused the models.
        location: Where the bytes are: docker://repository or oci:DIRECTORY, without tag or digest.
        passed: Whether there is an image.
    """
    from kfp_bento.runtime import images, packaging, reports

    wished = packaging.PackageOptions(
        scan_policy=scan_policy,
        scan_allow=scan_allow,
        bento_name=bento_name,
        service=service,
        requirements=requirements,
        allow_sources=allow_sources,
        python_version=python_version,
        verify=verify,
        prove_anew=prove_anew,
        requests=requests,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
        options=options,
        image=images.ImageOptions(
            base=base,
            platform=platform,
            cache_repository=cache_repository,
            compression=compression,
            system_packages=tuple(system_packages),
            base_key=base_key,
        ),
    )
    with packaging.packaged(
        model_uris, destination, wished, tracking_uri=tracking_uri, tell=reports.tell
    ) as package:
        reports.write_package(
            package,
            models=models,
            bento=bento,
            golden=golden,
            record=record.path,
            scan=scan.path,
            attestations=(sbom.path, provenance.path),
            metrics=metrics.metadata,
            summary=summary.path,
        )
    return package.results
