"""Steps that several pipelines have in common, with the Secrets that they read."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl

from kfp_bento.components import (
    await_approval,
    build_bento,
    build_image,
    check_release,
    confirm_release,
    promote_model,
    pull_model,
    resolve_models,
    scan_model,
    settle_run,
)
from kfp_bento.pipelines.credentials import (
    with_mlflow_credentials,
    with_package_index,
    with_record_key,
    with_registry_credentials,
    with_service_token,
    with_signing_key,
    with_storage_credentials,
)

RUN = dsl.PIPELINE_JOB_ID_PLACEHOLDER


@dataclass(frozen=True)
class Pulled:
    """The models of a run.

    Attributes:
        models: Their files.
        facts: What is known of them, for steps that need no files.
        aliases: Where their aliases were when the run began.
        verdict: What the scan says of them.
        looked_at: What build_bento is to be told of a service and requests at addresses.
    """

    models: Any
    facts: Any
    aliases: Any
    verdict: Any
    looked_at: Any = ""


def scanned_models(given) -> Pulled:
    """Resolve models, pull them, and look what loading them would run.

    Args:
        given: The parameters of the pipeline, as attributes; so in all that follow.
    """
    resolved = resolve_models(
        model_uris=given.model_uris,
        tracking_uri=given.tracking_uri,
        service=getattr(given, "bento_service", ""),
        requests=getattr(given, "bento_requests", []),
    )
    resolved.set_caching_options(False)  # an alias must be looked up anew in every run
    with_mlflow_credentials(resolved, given.mlflow_secret)

    # From here on Kubeflow's cache knows what was done before for the same versions.
    pulled = pull_model(
        model_uris=resolved.outputs["uris"],
        identities=resolved.outputs["identities"],
        tracking_uri=given.tracking_uri,
    )
    with_mlflow_credentials(pulled, given.mlflow_secret)
    with_record_key(pulled, given.record_secret)

    models = pulled.outputs["models"]
    scanned = scan_model(models=models, policy=given.scan_policy, allow=given.scan_allow)
    with_record_key(scanned, given.record_secret)
    return Pulled(
        models,
        pulled.outputs["facts"],
        resolved.outputs["aliases"],
        scanned.outputs["verdict"],
        resolved.outputs["looked_at"],
    )


def built_bento(given, pulled: Pulled | None = None) -> dsl.PipelineTask:
    """Build a bento of the models and their verdict, or of a service alone."""
    models = (
        {"models": pulled.models, "scan_verdict": pulled.verdict, "looked_at": pulled.looked_at}
        if pulled
        else {}
    )
    bento = build_bento(
        **models,
        bento_name=given.bento_name,
        service=given.bento_service,
        allow_sources=given.bento_allow_sources,
        python_version=given.bento_python_version,
        requirements=given.bento_requirements,
        verify=given.bento_verify,
        requests=given.bento_requests,
        relative_tolerance=given.bento_relative_tolerance,
        absolute_tolerance=given.bento_absolute_tolerance,
        options=given.bento_options,
    )
    with_record_key(bento, given.record_secret)
    with_package_index(bento, given.index_secret)
    with_storage_credentials(bento, given.storage_secret)
    return bento


def built_image(given, bento) -> dsl.PipelineTask:
    """Build the image of a bento, and push it."""
    image = build_image(
        bento=bento,
        destination=given.image_destination,
        base=given.image_base,
        platform=given.image_platform,
        cache_repository=given.image_cache_repository,
        compression=given.image_compression,
        system_packages=given.image_system_packages,
        base_key=given.image_base_key,
    )
    with_registry_credentials(image, given.image_secret)
    with_signing_key(image, given.signing_secret)
    with_package_index(image, given.index_secret)
    with_record_key(image, given.record_secret)
    return image


def settled_at_the_end(given) -> dsl.ExitHandler:
    """Give the block whose end settles what the run has left on trial, however it ends.

    A pipeline without MLflow's Secret moves no alias, and nothing is asked of a registry.
    """
    settled = settle_run(
        run=RUN,
        target=given.deploy_target,
        namespace=given.deploy_namespace,
        mode=given.deploy_mode,
        tracking_uri=getattr(given, "tracking_uri", ""),
    )
    settled.set_caching_options(False)
    if hasattr(given, "mlflow_secret"):
        with_mlflow_credentials(settled, given.mlflow_secret)
    with_record_key(settled, given.record_secret)
    return dsl.ExitHandler(settled, name="Served, then kept or settled")


def deployed_release(deploy, given, **served) -> dsl.PipelineTask:
    """Deploy what is served, on trial; what does not serve is left to the checks to say."""
    release = deploy(
        **served,
        target=given.deploy_target,
        mode=given.deploy_mode,
        name=given.deploy_name,
        namespace=given.deploy_namespace,
        resources=given.deploy_resources,
        autoscaling=given.deploy_autoscaling,
        envs=given.deploy_envs,
        options=given.deploy_options,
        wait_seconds=given.deploy_wait_seconds,
        roll_back_on_failure=given.deploy_roll_back_on_failure,
        run=RUN,
        fail_at_once=False,
    )
    release.set_caching_options(False)
    with_record_key(release, given.record_secret)
    return release


def checked_release(given, release, golden):
    """Check what is served: whether it is ready, its answers, and by further gates.

    Returns:
        The reports.
    """
    checked = check_release(
        release=release.outputs["release"],
        golden=golden,
        gates=given.check_gates,
        ready_seconds=given.check_ready_seconds,
        wait_seconds=given.deploy_wait_seconds,
    )
    checked.set_caching_options(False)
    with_record_key(checked, given.record_secret)
    with_service_token(checked, given.service_token_secret)
    # Labelled data of the gate on metrics.
    with_storage_credentials(checked, given.storage_secret)
    return checked.outputs["reports"]


def confirmed_release(given, reports) -> None:
    """Keep a release as the good one, if all checks passed."""
    confirmed = confirm_release(
        reports=reports,
        required_checks=given.required_checks,
        wait_seconds=given.deploy_wait_seconds,
    )
    confirmed.set_caching_options(False)
    with_record_key(confirmed, given.record_secret)


def promoted_when_approved(given, pulled, reports) -> None:
    """Promote as promoted_models does, after an approval if there are seconds to wait for one.

    Where there are none, no step runs for it. Both ways are spelled out, since the local runner
    skips a condition on a parameter without its opposite, or may.
    """
    with dsl.If(given.approval_seconds == 0, name="Promoted at once"):
        promoted_models(given, pulled, reports)
    with dsl.Else(name="Promoted after an approval"):
        approved = await_approval(
            models=pulled.facts,
            reports=reports,
            alias=given.promote_alias,
            seconds=given.approval_seconds,
            tracking_uri=given.tracking_uri,
        )
        approved.set_caching_options(False)
        with_mlflow_credentials(approved, given.mlflow_secret)
        with_record_key(approved, given.record_secret)
        promoted_models(given, pulled, reports, approval=approved.outputs["report"])


def promoted_models(given, pulled, reports, **approval) -> None:
    """Keep a release as the good one and move an alias on all models, if all checks passed."""
    promoted = promote_model(
        models=pulled.facts,
        aliases=pulled.aliases,
        reports=reports,
        alias=given.promote_alias,
        required_checks=given.required_checks,
        tracking_uri=given.tracking_uri,
        run=RUN,
        wait_seconds=given.deploy_wait_seconds,
        **approval,
    )
    promoted.set_caching_options(False)
    with_mlflow_credentials(promoted, given.mlflow_secret)
    with_record_key(promoted, given.record_secret)
