"""Existing registry versions, taken to a checked and promoted service."""

from types import SimpleNamespace

from kfp_bento.components import deploy_bento
from kfp_bento.pipelines.signatures import pipeline_named
from kfp_bento.pipelines.steps import (
    built_bento,
    built_image,
    checked_release,
    deployed_release,
    promoted_when_approved,
    scanned_models,
    settled_at_the_end,
)


def serve_with(deploy, *, name: str):
    """Make the pipeline that takes registry versions to a service, by a component of one's choice.

    Args:
        deploy: deploy_bento, or a component of one's own with these inputs of it: target, image,
            image_location, bento, mode, name, namespace, resources, autoscaling, envs,
            image_pull_secrets, options, wait_seconds, roll_back_on_failure, run, fail_at_once; and
            the output release.
        name: Name of the pipeline.

    Returns:
        A KFP pipeline, to be compiled, submitted or run with kfp.local.
    """
    return pipeline_named(name)(serve_steps(deploy))


def serve_steps(deploy):
    """Make the function of a pipeline's parameters that adds the steps of serve_with.

    Args:
        deploy: As for serve_with, or a function that adds several tasks and gives the last.
    """

    def serve(
        model_uris: list,
        image_destination: str,
        promote_alias: str,
        tracking_uri: str = "",
        scan_policy: str = "warn",
        scan_allow: list = [],  # noqa: B006 - KFP wants the defaults in the signature
        bento_name: str = "",
        bento_service: str = "",
        bento_python_version: str = "",
        bento_requirements: list = [],  # noqa: B006
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
        approval_seconds: int = 0,
        mlflow_secret: str = "kfp-bento-mlflow",
        storage_secret: str = "kfp-bento-storage",
        index_secret: str = "kfp-bento-index",
        image_secret: str = "kfp-bento-registry",
        signing_secret: str = "kfp-bento-signing",
        record_secret: str = "kfp-bento-records",
        service_token_secret: str = "kfp-bento-service",
    ):
        """Pull models, build bento and image, deploy, check what is served, move the alias.

        Args:
            model_uris: MLflow model URIs, one or more, each also as NAME=URI, where NAME is the
                model's in the bento; aliases are resolved once, in the first step.
            image_destination: registry/repository[:tag] that the image is pushed to.
            promote_alias: Registry alias that moves to the versions after their checks passed,
                on all models or on none.
            tracking_uri: MLflow server; empty takes MLFLOW_TRACKING_URI of the step's pod.
            scan_policy: What comes of a model that runs code when it is loaded: off does not look,
                warn reports it, enforce refuses it before anything is built.
            scan_allow: Names of findings, exactly as the scan reports them, that do not count.
            bento_name: Name of the bento; empty takes the first model's, by the alphabet, or what a
                service of your own says.
            bento_service: A service of your own (source text, or its address), see build_bento;
                empty generates one.
            bento_python_version: Python of the bento, such as 3.11; empty takes the model's.
            bento_requirements: Requirements to lock besides the model's own, one per item.
            bento_verify: Start the bento before it becomes an image, and compare its answers with
                the model's; without that the release is not promoted.
            bento_requests: What it is asked instead of the model's input example, see build_bento.
            bento_options: All other wishes of the build, by name: system_packages, envs, labels and
                more, see build_bento.
            bento_allow_sources: Beginnings of addresses (https://host/path/) of the indexes and
                wheels that the model's own requirements may name, and of repositories
                (git+https://host/path/), whose code is run to build wheels; empty allows names
                and versions only.
            bento_relative_tolerance: Allowed relative difference between served and expected.
            bento_absolute_tolerance: Allowed absolute difference between served and expected.
            image_base: Base image; empty takes python:<minor>-slim.
            image_platform: linux/amd64 or linux/arm64, or both with a comma between; empty takes
                the build step's own.
            image_cache_repository: Repository of the same registry through which images share
                layers.
            image_compression: zstd, or gzip for registries and clusters without zstd, or none.
            image_system_packages: Debian packages to add to the base, besides those that the
                bento asks for and those that its wheels cannot do without.
            image_base_key: Public key in PEM (cosign.pub): a base that it did not sign is refused;
                empty takes any base.
            deploy_target: bento-deployment (Yatai), inference-service (KServe) or workload (a
                plain Deployment).
            deploy_mode: auto, apply, render or local.
            deploy_name: Name of the release; empty takes the bento's name.
            deploy_namespace: Namespace of the release; empty takes that of the run.
            deploy_resources: Requests and limits of the served pods.
            deploy_autoscaling: minReplicas and maxReplicas.
            deploy_envs: Environment variables, a list of name and value.
            deploy_image_pull_secrets: Names of image pull secrets.
            deploy_options: All other options of the target, by name.
            deploy_wait_seconds: How long the release may take to serve; 0 does not wait.
            deploy_roll_back_on_failure: Restore the last good release when the new one does not
                serve.
            check_ready_seconds: How long to wait for readiness.
            check_gates: Further checks of the release by name, each with its options, for example
                {"load": {"users": 10}}; see check_release.
            required_checks: Checks without which the release is not kept: smoke, replay, or the
                name of a gate.
            approval_seconds: How long to wait, after the checks, for a person who approves the
                release with kfp-bento approve; 0 asks nobody.
            mlflow_secret: Secret with MLflow credentials (username and password, or token) and the
                tracking_uri that they are for; may be absent.
            storage_secret: Secret with the credentials of object storage, for a service or requests
                at s3:// or minio:// addresses; may be absent.
            index_secret: Secret with the package index to lock and install from: default_index or
                index, and username and password of one that is written private=https://...; may be
                absent.
            image_secret: Secret of type kubernetes.io/dockerconfigjson for the registry; may be
                absent.
            signing_secret: Secret whose `cosign.key` (password: `cosign.password`) signs the image;
                may be absent, and the image is then not signed.
            record_secret: Secret whose `key` (32 characters or more) seals the records that steps
                read of each other, such as layers in the registry; may be absent.
            service_token_secret: Secret whose `token` the checks send to a service that asks for
                one; may be absent.
        """
        given = SimpleNamespace(**locals())
        with settled_at_the_end(given):
            serving_steps(deploy, given)

    return serve


def serving_steps(deploy, given) -> None:
    """Add the steps from the models to the alias.

    Args:
        deploy: As for serve_steps.
        given: The parameters of serve_model, as attributes.
    """
    pulled = scanned_models(given)
    bento = built_bento(given, pulled)
    image = built_image(given, bento.outputs["bento"])
    release = deployed_release(
        deploy,
        given,
        image=image.outputs["image"],
        image_location=image.outputs["location"],
        bento=bento.outputs["facts"],
        image_pull_secrets=given.deploy_image_pull_secrets,
    )
    reports = checked_release(given, release, bento.outputs["golden"])
    promoted_when_approved(given, pulled, reports)


serve_model = serve_with(deploy_bento, name="serve-model")
