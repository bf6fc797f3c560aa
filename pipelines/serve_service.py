"""A service without a registered model, taken to a checked deployment."""

from types import SimpleNamespace

from kfp_bento.components import deploy_bento
from kfp_bento.pipelines.signatures import pipeline_named
from kfp_bento.pipelines.steps import (
    built_bento,
    built_image,
    checked_release,
    confirmed_release,
    deployed_release,
    settled_at_the_end,
)


@pipeline_named("serve-service")
def serve_service(
    bento_service: str,
    image_destination: str,
    bento_name: str = "",
    bento_python_version: str = "",
    bento_requirements: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    bento_verify: bool = True,
    bento_requests: list = [],  # noqa: B006
    bento_options: dict = {},  # noqa: B006
    bento_allow_sources: list = [],  # noqa: B006
    bento_relative_tolerance: float = 1e-6,
    bento_absolute_tolerance: float = 1e-9,
    image_base: str = "",
    image_platform: str = "",
    image_cache_repository: str = "",
    image_compression: str = "zstd",
    image_system_packages: list = [],  # noqa: B006
    image_base_key: str = "",
    deploy_target: str = "bento-deployment",
    deploy_mode: str = "auto",
    deploy_name: str = "",
    deploy_namespace: str = "",
    deploy_resources: dict = {},  # noqa: B006
    deploy_autoscaling: dict = {},  # noqa: B006
    deploy_envs: list = [],  # noqa: B006
    deploy_image_pull_secrets: list = [],  # noqa: B006
    deploy_options: dict = {},  # noqa: B006
    deploy_wait_seconds: int = 600,
    deploy_roll_back_on_failure: bool = True,
    check_ready_seconds: int = 300,
    check_gates: dict = {},  # noqa: B006
    required_checks: list = ["smoke", "replay"],  # noqa: B006
    storage_secret: str = "kfp-bento-storage",
    index_secret: str = "kfp-bento-index",
    image_secret: str = "kfp-bento-registry",
    signing_secret: str = "kfp-bento-signing",
    record_secret: str = "kfp-bento-records",
    service_token_secret: str = "kfp-bento-service",
):
    """Build bento and image of a service of your own, deploy, check what is served.

    What it serves comes with it: weights beside the code, or none. There is no alias to move; the
    reports of the checks say whether what is served answers as the bento did when it was built.

    Args:
        bento_service: The service: its source as text, or its address, see build_bento.
        image_destination: registry/repository[:tag] that the image is pushed to.
        bento_name: Name of the bento; empty takes what the service says.
        bento_python_version: Python of the bento, such as 3.11; empty takes the build step's own.
        bento_requirements: Requirements to lock besides the service's own, one per item.
        bento_verify: Start the bento before it becomes an image, and keep its answers.
        bento_requests: What it is asked, see build_bento; empty only looks whether it starts.
        bento_options: All other wishes of the build, by name: system_packages, envs, labels.
        bento_allow_sources: Beginnings of addresses (git+https://host/path/) of the repositories
            whose code may be run to build wheels; empty allows names and versions only.
        bento_relative_tolerance: Allowed relative difference between served and expected.
        bento_absolute_tolerance: Allowed absolute difference between served and expected.
        image_base: Base image; empty takes python:<minor>-slim.
        image_platform: linux/amd64 or linux/arm64, or both with a comma between; empty takes the
            build step's own.
        image_cache_repository: Repository of the same registry through which images share layers.
        image_compression: zstd, or gzip for registries and clusters without zstd, or none.
        image_system_packages: Debian packages to add to the base, besides those that the bento asks
            for and those that its wheels cannot do without.
        image_base_key: Public key in PEM (cosign.pub): a base that it did not sign is refused;
            empty takes any base.
        deploy_target: bento-deployment (Yatai), inference-service (KServe) or workload (a plain
            Deployment).
        deploy_mode: auto, apply, render or local.
        deploy_name: Name of the release; empty takes the bento's name.
        deploy_namespace: Namespace of the release; empty takes that of the run.
        deploy_resources: Requests and limits of the served pods.
        deploy_autoscaling: minReplicas and maxReplicas.
        deploy_envs: Environment variables, a list of name and value.
        deploy_image_pull_secrets: Names of image pull secrets.
        deploy_options: All other options of the target, by name.
        deploy_wait_seconds: How long the release may take to serve; 0 does not wait.
        deploy_roll_back_on_failure: Restore the last good release when the new one does not serve.
        check_ready_seconds: How long to wait for readiness.
        check_gates: Further checks of the release by name, each with its options, for example
            {"load": {"users": 10}}; see check_release.
        required_checks: Checks without which the release is not kept: smoke, replay, or the
            name of a gate.
        storage_secret: Secret with the credentials of object storage, for a service or requests at
            s3:// or minio:// addresses; may be absent.
        index_secret: Secret with the package index to lock and install from: default_index or
            index, and username and password of one that is written private=https://...; may be
            absent.
        image_secret: Secret of type kubernetes.io/dockerconfigjson for the registry; may be absent.
        signing_secret: Secret whose `cosign.key` (password: `cosign.password`) signs the image;
            may be absent, and the image is then not signed.
        record_secret: Secret whose `key` (32 characters or more) seals the records that steps read
            of each other, such as layers in the registry; may be absent.
        service_token_secret: Secret whose `token` the checks send to a service that asks for one;
            may be absent.
    """
    given = SimpleNamespace(**locals())
    with settled_at_the_end(given):
        bento = built_bento(given)
        bento.set_caching_options(False)  # what is at an address may have become something else
        image = built_image(given, bento.outputs["bento"])
        release = deployed_release(
            deploy_bento,
            given,
            image=image.outputs["image"],
            image_location=image.outputs["location"],
            bento=bento.outputs["facts"],
            image_pull_secrets=deploy_image_pull_secrets,
        )
        confirmed_release(given, checked_release(given, release, bento.outputs["golden"]))
