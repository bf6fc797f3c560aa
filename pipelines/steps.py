"""Steps that several pipelines have in common, with the Secrets that they read."""

from kfp import dsl

from kfp_bento.components import (
    build_bento,
    compare_predictions,
    promote_model,
    pull_model,
    scan_model,
    smoke_test,
)
from kfp_bento.pipelines.credentials import (
    with_mlflow_credentials,
    with_package_index,
    with_record_key,
    with_service_token,
    with_storage_credentials,
)


def scanned_models(
    *, model_uris, tracking_uri, mlflow_secret, scan_policy, scan_allow, record_secret
) -> tuple:
    """Pull models, and look what loading them would run.

    Returns:
        The models, and the verdict on them.
    """
    pulled = pull_model(model_uris=model_uris, tracking_uri=tracking_uri)
    pulled.set_caching_options(False)  # an alias must be looked up anew in every run
    with_mlflow_credentials(pulled, mlflow_secret)
    with_record_key(pulled, record_secret)

    models = pulled.outputs["models"]
    scanned = scan_model(models=models, policy=scan_policy, allow=scan_allow)
    with_record_key(scanned, record_secret)
    return models, scanned.outputs["verdict"]


def built_bento(*, index_secret, storage_secret, record_secret, **inputs) -> dsl.PipelineTask:
    """Build a bento; the other inputs are those of build_bento."""
    bento = build_bento(**inputs)
    with_record_key(bento, record_secret)
    with_package_index(bento, index_secret)
    with_storage_credentials(bento, storage_secret)
    return bento


def checked_release(*, url, golden, timeout_seconds, record_secret, token_secret) -> tuple:
    """Ask what is served the golden requests, when it is ready.

    Returns:
        The reports of smoke_test and of compare_predictions.
    """
    smoke = smoke_test(url=url, golden=golden, timeout_seconds=timeout_seconds)
    comparison = compare_predictions(url=url, golden=golden).after(smoke)
    for check in (smoke, comparison):
        check.set_caching_options(False)
        with_record_key(check, record_secret)
        with_service_token(check, token_secret)
    return smoke.outputs["report"], comparison.outputs["report"]


def promoted_models(
    *, models, reports, alias, image, tracking_uri, mlflow_secret, record_secret
) -> dsl.PipelineTask:
    """Move an alias on all models, if both reports passed."""
    smoke, comparison = reports
    promoted = promote_model(
        models=models,
        smoke_report=smoke,
        comparison_report=comparison,
        alias=alias,
        image=image,
        tracking_uri=tracking_uri,
    )
    promoted.set_caching_options(False)
    with_mlflow_credentials(promoted, mlflow_secret)
    with_record_key(promoted, record_secret)
    return promoted
