"""What was found good in one namespace goes to another: nothing is built again."""

from types import SimpleNamespace

from kfp import dsl

from kfp_bento.components import move_release
from kfp_bento.pipelines.credentials import with_record_key
from kfp_bento.pipelines.signatures import pipeline_named
from kfp_bento.pipelines.steps import (
    RUN,
    checked_release,
    promoted_when_approved,
    scanned_models,
    settled_at_the_end,
)


@pipeline_named("move-to-production")
def move_to_production(
    model_uris: list,
    golden_uri: str,
    source_namespace: str,
    deploy_name: str,
    deploy_image: str,
    deploy_namespace: str,
    promote_alias: str,
    tracking_uri: str = "",
    deploy_target: str = "bento-deployment",
    deploy_changes: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
    deploy_wait_seconds: int = 600,
    deploy_roll_back_on_failure: bool = True,
    check_ready_seconds: int = 300,
    check_gates: dict = {},  # noqa: B006
    required_checks: list = ["smoke", "replay"],  # noqa: B006
    approval_seconds: int = 0,
    mlflow_secret: str = "kfp-bento-mlflow",
    storage_secret: str = "kfp-bento-storage",
    record_secret: str = "kfp-bento-records",
    service_token_secret: str = "kfp-bento-service",
):
    """Deploy the good release of one namespace to another, check it there, move the alias.

    Args:
        model_uris: The models that it serves, as for serve_model, for example
            models:/credit@staging.
        golden_uri: Address of the golden answers of its bento, as Kubeflow keeps that output of
            build_bento.
        source_namespace: Where it was found good, for example staging.
        deploy_name: Name of the release, in both namespaces.
        deploy_image: The image that was checked, by digest.
        deploy_namespace: Where it goes, for example production.
        promote_alias: Registry alias that moves after the checks there, for example prod.
        tracking_uri: MLflow server; empty takes MLFLOW_TRACKING_URI of the step's pod.
        deploy_target: bento-deployment, bento-request, inference-service or workload.
        deploy_changes: Options of the target that are others there, by name.
        deploy_wait_seconds: How long the release may take to serve.
        deploy_roll_back_on_failure: Restore the last good release there when the new one does not
            serve.
        check_ready_seconds: How long to wait for readiness.
        check_gates: Further checks of the release by name, each with its options; see
            check_release.
        required_checks: Checks without which the release is not kept: smoke, replay, or the name
            of a gate.
        approval_seconds: How long to wait, after the checks, for a person who approves the release
            with kfp-bento approve; 0 asks nobody.
        mlflow_secret: Secret with MLflow credentials; may be absent.
        storage_secret: Secret with the credentials of object storage, for gates; may be absent.
        record_secret: Secret whose `key` seals the records that steps read of each other; may be
            absent.
        service_token_secret: Secret whose `token` the checks send to a service that asks for one;
            may be absent.
    """
    # It was scanned before it was built, and it is on a cluster that it moves.
    given = SimpleNamespace(**locals(), scan_policy="off", scan_allow=[], deploy_mode="apply")
    with settled_at_the_end(given):
        pulled = scanned_models(given)
        golden = dsl.importer(artifact_uri=golden_uri, artifact_class=dsl.Artifact)
        golden.set_display_name("Take the golden answers")
        release = move_release(
            name=deploy_name,
            image=deploy_image,
            source_namespace=source_namespace,
            namespace=deploy_namespace,
            target=deploy_target,
            changes=deploy_changes,
            wait_seconds=deploy_wait_seconds,
            roll_back_on_failure=deploy_roll_back_on_failure,
            run=RUN,
            fail_at_once=False,
        )
        release.set_caching_options(False)
        with_record_key(release, record_secret)
        reports = checked_release(given, release, golden.output)
        promoted_when_approved(given, pulled, reports)
