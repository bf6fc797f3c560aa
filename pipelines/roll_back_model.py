"""Endpoint and alias go back together, from the Kubeflow Pipelines UI."""

from kfp_bento.components import roll_back
from kfp_bento.pipelines.credentials import with_mlflow_credentials, with_record_key
from kfp_bento.pipelines.signatures import pipeline_named
from kfp_bento.pipelines.steps import RUN


@pipeline_named("roll-back-model")
def roll_back_model(
    deploy_name: str,
    promote_alias: str,
    tracking_uri: str = "",
    deploy_target: str = "bento-deployment",
    deploy_namespace: str = "",
    deploy_wait_seconds: int = 600,
    why: str = "",
    to_revision: str = "",
    leaving_image: str = "",
    mlflow_secret: str = "kfp-bento-mlflow",
    record_secret: str = "kfp-bento-records",
):
    """Bring the last good release back, and point the alias to the versions that it serves.

    From a release that failed it goes to the last good one, from a good one to the one before.
    Running it again goes no further back.

    Args:
        deploy_name: Name of the release.
        promote_alias: Registry alias of its models; empty brings the endpoint back alone.
        tracking_uri: MLflow server; empty takes MLFLOW_TRACKING_URI of the step's pod.
        deploy_target: bento-deployment (Yatai), bento-request (Yatai's builder), inference-service
            (KServe) or workload (a plain Deployment).
        deploy_namespace: Namespace of the release; empty takes that of the run.
        deploy_wait_seconds: How long the restored release may take to serve.
        why: The reason, for the history in the registry.
        to_revision: A good revision that is on record; chosen as above when empty.
        leaving_image: The image to leave, by digest; where another one is applied by now, nothing
            changes.
        mlflow_secret: Secret with MLflow credentials (username and password, or token) and the
            tracking_uri that they are for; may be absent.
        record_secret: Secret whose `key` (32 characters or more) seals the records that steps read
            of each other; may be absent.
    """
    back = roll_back(
        name=deploy_name,
        target=deploy_target,
        namespace=deploy_namespace,
        alias=promote_alias,
        tracking_uri=tracking_uri,
        leaving_image=leaving_image,
        to_revision=to_revision,
        wait_seconds=deploy_wait_seconds,
        run=RUN,
        why=why,
    )
    back.set_caching_options(False)
    with_mlflow_credentials(back, mlflow_secret)
    with_record_key(back, record_secret)
