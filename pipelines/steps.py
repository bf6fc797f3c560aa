"""Steps that several pipelines have in common, with the Secrets that they read."""

from kfp import dsl

from kfp_bento.components import (
    await_approval,
    build_bento,
    check_release,
    confirm_release,
    promote_model,
    pull_model,
    scan_model,
    settle_run,
)
from kfp_bento.pipelines.credentials import (
    with_mlflow_credentials,
    with_package_index,
    with_record_key,
    with_service_token,
    with_storage_credentials,
)

RUN = dsl.PIPELINE_JOB_ID_PLACEHOLDER


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


def settled_at_the_end(
    *, target, namespace, mode, record_secret, tracking_uri="", mlflow_secret=None
) -> dsl.ExitHandler:
    """Give the block whose end settles what the run has left on trial, however it ends.

    Without the Secret nothing is asked of MLflow, as where no alias moves.
    """
    settled = settle_run(
        run=RUN, target=target, namespace=namespace, mode=mode, tracking_uri=tracking_uri
    )
    settled.set_caching_options(False)
    if mlflow_secret is not None:
        with_mlflow_credentials(settled, mlflow_secret)
    with_record_key(settled, record_secret)
    return dsl.ExitHandler(settled, name="serve")


def checked_release(
    *,
    release,
    golden,
    gates,
    ready_seconds,
    wait_seconds,
    record_secret,
    token_secret,
    storage_secret,
) -> dsl.PipelineTask:
    """Check what is served: whether it is ready, its answers, and by further gates.

    Returns:
        The task, with the output `reports`.
    """
    checked = check_release(
        release=release,
        golden=golden,
        gates=gates,
        ready_seconds=ready_seconds,
        wait_seconds=wait_seconds,
    )
    checked.set_caching_options(False)
    with_record_key(checked, record_secret)
    with_service_token(checked, token_secret)
    with_storage_credentials(checked, storage_secret)  # labelled data of the gate on metrics
    return checked


def confirmed_release(*, reports, required, wait_seconds, record_secret) -> dsl.PipelineTask:
    """Keep a release as the good one, if all checks passed."""
    confirmed = confirm_release(reports=reports, required=required, wait_seconds=wait_seconds)
    confirmed.set_caching_options(False)
    with_record_key(confirmed, record_secret)
    return confirmed


def approved_release(
    *, models, reports, alias, seconds, tracking_uri, mlflow_secret, record_secret
) -> dsl.PipelineTask:
    """Wait for a person's word about a release that passed its checks.

    Returns:
        The task, with the output `report`.
    """
    approved = await_approval(
        models=models, reports=reports, alias=alias, seconds=seconds, tracking_uri=tracking_uri
    )
    approved.set_caching_options(False)
    with_mlflow_credentials(approved, mlflow_secret)
    with_record_key(approved, record_secret)
    return approved


def promoted_when_approved(*, approval_seconds, **promotion) -> None:
    """Promote as promoted_models does, after an approval if there are seconds to wait for one.

    Where there are none, no step runs for it. Both ways are spelled out, since the local runner
    skips a condition on a parameter without its opposite, or may.
    """
    with dsl.If(approval_seconds == 0, name="unasked"):
        promoted_models(**promotion)
    with dsl.Else(name="asked"):
        same = {
            key: promotion[key]
            for key in (
                *("models", "reports", "alias"),
                *("tracking_uri", "mlflow_secret", "record_secret"),
            )
        }
        approved = approved_release(seconds=approval_seconds, **same)
        promoted_models(approval=approved.outputs["report"], **promotion)


def promoted_models(
    *,
    models,
    reports,
    alias,
    required,
    tracking_uri,
    wait_seconds,
    mlflow_secret,
    record_secret,
    **approval,
) -> dsl.PipelineTask:
    """Keep a release as the good one and move an alias on all models, if all checks passed."""
    promoted = promote_model(
        models=models,
        reports=reports,
        alias=alias,
        required=required,
        tracking_uri=tracking_uri,
        run=RUN,
        wait_seconds=wait_seconds,
        **approval,
    )
    promoted.set_caching_options(False)
    with_mlflow_credentials(promoted, mlflow_secret)
    with_record_key(promoted, record_secret)
    return promoted
