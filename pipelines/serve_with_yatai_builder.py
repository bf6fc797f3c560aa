"""Existing registry versions, taken to a service whose image the cluster itself builds."""

from types import SimpleNamespace

from kfp_bento.components import deploy_bento, export_bento
from kfp_bento.pipelines.credentials import with_record_key, with_storage_credentials
from kfp_bento.pipelines.signatures import pipeline_named
from kfp_bento.pipelines.steps import (
    built_bento,
    checked_release,
    deployed_release,
    promoted_models,
    scanned_models,
    settled_at_the_end,
)


def serve_with_builder(deploy, *, name: str):
    """Make the pipeline by Yatai's image builder, with a component of one's choice that deploys.

    Args:
        deploy: deploy_bento, or a component of one's own with these inputs of it: target, image,
            archive, bento, mode, name, namespace, resources, autoscaling, envs, options,
            wait_seconds, roll_back_on_failure, run, fail_at_once; and the output release.
        name: Name of the pipeline.

    Returns:
        A KFP pipeline, to be compiled, submitted or run with kfp.local.
    """

    @pipeline_named(name)
    def serve(
        model_uris: list,
        archive_uri: str,
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
        archive_format: str = "tar",
        image_destination: str = "",
        deploy_mode: str = "apply",
        deploy_name: str = "",
        deploy_namespace: str = "",
        deploy_resources: dict = {},  # noqa: B006
        deploy_autoscaling: dict = {},  # noqa: B006
        deploy_envs: list = [],  # noqa: B006
        deploy_options: dict = {},  # noqa: B006
        deploy_wait_seconds: int = 1800,
        deploy_roll_back_on_failure: bool = True,
        check_ready_seconds: int = 300,
        check_gates: dict = {},  # noqa: B006
        required_checks: list = ["smoke", "replay"],  # noqa: B006
        mlflow_secret: str = "kfp-bento-mlflow",
        storage_secret: str = "kfp-bento-storage",
        index_secret: str = "kfp-bento-index",
        record_secret: str = "kfp-bento-records",
        service_token_secret: str = "kfp-bento-service",
    ):
        """Pull models, build a bento, have Yatai build and serve it, check that, move the alias.

        Args:
            model_uris: MLflow model URIs, one or more, each also as NAME=URI, where NAME is the
                model's in the bento; aliases are resolved once, in the first step.
            archive_uri: Where the bento's archive goes, s3://bucket/folder/ or
                minio://bucket/folder/; the builder's pods must reach the same endpoint.
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
            bento_verify: Start the bento before it is exported, and compare its answers with
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
            archive_format: tar, tar.gz, tar.xz, tar.bz2 or bento; every builder unpacks each.
            image_destination: registry/repository[:tag] that the builder pushes to; without a tag
                it is the bento's version, and empty takes what the builder's own settings say.
            deploy_mode: apply, or render to write the YAML only.
            deploy_name: Name of the release; empty takes the bento's name.
            deploy_namespace: Namespace of the release, where the builder's pods run too; empty
                takes that of the run.
            deploy_resources: Requests and limits of the served pods.
            deploy_autoscaling: minReplicas and maxReplicas.
            deploy_envs: Environment variables, a list of name and value.
            deploy_options: All other options of bento-request, by name: registry_secret,
                archive_seconds, build_timeout, builder_resources and more.
            deploy_wait_seconds: How long the build and the release together may take; 0 does not
                wait.
            deploy_roll_back_on_failure: Restore the last good release when the new one does not
                serve.
            check_ready_seconds: How long to wait for readiness.
            check_gates: Further checks of the release by name, each with its options, for example
                {"load": {"users": 10}}; see check_release.
            required_checks: Checks without which the release is not kept: smoke, replay, or the
                name of a gate.
            mlflow_secret: Secret with MLflow credentials (username and password, or token) and the
                tracking_uri that they are for; may be absent.
            storage_secret: Secret with the credentials of object storage, by which the archive is
                written, and its URL for the builder signed; may be absent where pods have an
                identity.
            index_secret: Secret with the package index to lock from: default_index or index, and
                username and password of one that is written private=https://...; may be absent.
            record_secret: Secret whose `key` (32 characters or more) seals the records that steps
                read of each other; may be absent.
            service_token_secret: Secret whose `token` the checks send to a service that asks for
                one; may be absent.
        """
        given = SimpleNamespace(**locals(), deploy_target="bento-request")
        with settled_at_the_end(given):
            pulled = scanned_models(given)
            bento = built_bento(given, pulled)

            exported = export_bento(
                bento=bento.outputs["bento"], uri=archive_uri, archive_format=archive_format
            )
            exported.set_caching_options(False)  # the archive may have been removed since
            with_record_key(exported, record_secret)
            with_storage_credentials(exported, storage_secret)

            release = deployed_release(
                deploy,
                given,
                image=image_destination,
                archive=exported.outputs["location"],
                bento=bento.outputs["facts"],
            )
            with_storage_credentials(release, storage_secret)
            reports = checked_release(given, release, bento.outputs["golden"])
            promoted_models(given, pulled, reports)

    return serve


serve_with_yatai_builder = serve_with_builder(deploy_bento, name="serve-with-yatai-builder")
