"""The short road: existing registry versions, released in three steps."""

from types import SimpleNamespace

from kfp import dsl

from kfp_bento.components import check_and_promote, deploy_bento, package_model, require_passed
from kfp_bento.pipelines.credentials import (
    with_mlflow_credentials,
    with_package_index,
    with_record_key,
    with_registry_credentials,
    with_service_token,
    with_signing_key,
    with_storage_credentials,
)
from kfp_bento.pipelines.serve_model import serve_model
from kfp_bento.pipelines.signatures import in_order, own_inputs, pipeline_named, with_signature
from kfp_bento.pipelines.steps import RUN, deployed_release

# Asks a person between two steps, which here are one.
WITHOUT = ("approval_seconds",)


def release_with(deploy, *, name: str):
    """Make the pipeline that releases models in three steps, by a component of one's choice.

    It takes what serve_model takes, but for an approval, and whether to prove anew.

    Args:
        deploy: As for serve_with.
        name: Name of the pipeline.

    Returns:
        A KFP pipeline, to be compiled, submitted or run with kfp.local.
    """
    inputs = {key: one for key, one in own_inputs(serve_model).items() if key not in WITHOUT}
    # The other road's proof is a step without a registry, which Kubeflow's cache spares.
    anew = package_model.component_spec.inputs["prove_anew"]
    inputs = in_order({**inputs, "bento_prove_anew": anew})

    def pipeline(**values):
        given = SimpleNamespace(**values)
        package = packaged_models(given)
        release = deployed_release(
            deploy,
            given,
            image=package.outputs["image"],
            image_location=package.outputs["location"],
            bento=package.outputs["bento"],
            image_pull_secrets=given.deploy_image_pull_secrets,
        )
        promoted_or_refused(given, package, release)

    summary = "Take models to a promoted release in three steps, their weights in one pod alone."
    return pipeline_named(name)(with_signature(pipeline, inputs, name=name, summary=summary))


def packaged_models(given) -> dsl.PipelineTask:
    """Take models to a proven image.

    Args:
        given: The parameters of the pipeline, as attributes.
    """
    package = package_model(
        model_uris=given.model_uris,
        destination=given.image_destination,
        tracking_uri=given.tracking_uri,
        scan_policy=given.scan_policy,
        scan_allow=given.scan_allow,
        bento_name=given.bento_name,
        service=given.bento_service,
        requirements=given.bento_requirements,
        allow_sources=given.bento_allow_sources,
        python_version=given.bento_python_version,
        verify=given.bento_verify,
        prove_anew=given.bento_prove_anew,
        requests=given.bento_requests,
        relative_tolerance=given.bento_relative_tolerance,
        absolute_tolerance=given.bento_absolute_tolerance,
        options=given.bento_options,
        base=given.image_base,
        platform=given.image_platform,
        cache_repository=given.image_cache_repository,
        compression=given.image_compression,
        system_packages=given.image_system_packages,
        base_key=given.image_base_key,
    )
    package.set_caching_options(False)  # an alias must be looked up anew in every run
    with_mlflow_credentials(package, given.mlflow_secret)
    with_registry_credentials(package, given.image_secret)
    with_signing_key(package, given.signing_secret)
    with_package_index(package, given.index_secret)
    with_storage_credentials(package, given.storage_secret)
    with_record_key(package, given.record_secret)
    return package


def promoted_or_refused(given, package, release) -> None:
    """Check what is served and move the alias; where that is refused, fail the run with why.

    Args:
        given: The parameters of the pipeline, as attributes.
        package: The task of packaged_models.
        release: The task that deployed it.
    """
    done = check_and_promote(
        release=release.outputs["release"],
        golden=package.outputs["golden"],
        models=package.outputs["models"],
        alias=given.promote_alias,
        gates=given.check_gates,
        required_checks=given.required_checks,
        ready_seconds=given.check_ready_seconds,
        wait_seconds=given.deploy_wait_seconds,
        tracking_uri=given.tracking_uri,
        run=RUN,
    )
    done.set_caching_options(False)
    with_mlflow_credentials(done, given.mlflow_secret)
    with_record_key(done, given.record_secret)
    with_service_token(done, given.service_token_secret)
    with_storage_credentials(done, given.storage_secret)
    with dsl.If(done.outputs["Output"] == True, name="Where it was refused"):  # noqa: E712 - of KFP
        refused = require_passed(reports=done.outputs["reports"])
        refused.set_caching_options(False)
        with_record_key(refused, given.record_secret)


release_model = release_with(deploy_bento, name="release-model")
