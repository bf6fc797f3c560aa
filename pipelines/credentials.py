"""Credentials for a step, taken from Secrets by name."""

from kfp import dsl, kubernetes

MLFLOW = {
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "username": "MLFLOW_TRACKING_USERNAME",
    "password": "MLFLOW_TRACKING_PASSWORD",
    "token": "MLFLOW_TRACKING_TOKEN",
    # For a server that does not hand artifacts through: the store is asked by MLflow's client.
    "s3_endpoint_url": "MLFLOW_S3_ENDPOINT_URL",
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_region": "AWS_DEFAULT_REGION",
}
RECORD_KEY = {"key": "KFP_BENTO_RECORD_KEY"}
SERVICE_TOKEN = {"token": "KFP_BENTO_API_TOKEN"}
PACKAGE_INDEX = {
    "default_index": "UV_DEFAULT_INDEX",
    "index": "UV_INDEX",
    "username": "UV_INDEX_PRIVATE_USERNAME",
    "password": "UV_INDEX_PRIVATE_PASSWORD",
}
STORAGE_DIRECTORY = "/etc/kfp-bento/storage"
REGISTRY_DIRECTORY = "/etc/kfp-bento/registry"
SIGNING_DIRECTORY = "/etc/kfp-bento/signing"


def with_mlflow_credentials(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Give a task the MLflow server and credentials of a Secret that may be absent."""
    return kubernetes.use_secret_as_env(
        task, secret_name=secret_name, secret_key_to_env=MLFLOW, optional=True
    )


def with_registry_credentials(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Mount a kubernetes.io/dockerconfigjson Secret, which may be absent, into a task."""
    return kubernetes.use_secret_as_volume(
        task, secret_name=secret_name, mount_path=REGISTRY_DIRECTORY, optional=True
    )


def with_signing_key(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Mount the Secret with the key that signs images, which may be absent, into a task.

    Its keys are `cosign.key` and, where that has one, its password as `cosign.password`.
    """
    return kubernetes.use_secret_as_volume(
        task, secret_name=secret_name, mount_path=SIGNING_DIRECTORY, optional=True
    )


def with_storage_credentials(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Mount the Secret of an object storage, which may be absent, into a task."""
    return kubernetes.use_secret_as_volume(
        task, secret_name=secret_name, mount_path=STORAGE_DIRECTORY, optional=True
    )


def with_record_key(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Give a task the key that seals the records of earlier steps, of a Secret that may be absent.

    With it a step believes only what a step with the same key wrote.
    """
    return kubernetes.use_secret_as_env(
        task, secret_name=secret_name, secret_key_to_env=RECORD_KEY, optional=True
    )


def with_service_token(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Give a task the token that the served model asks for, of a Secret that may be absent."""
    return kubernetes.use_secret_as_env(
        task, secret_name=secret_name, secret_key_to_env=SERVICE_TOKEN, optional=True
    )


def with_package_index(task: dsl.PipelineTask, secret_name) -> dsl.PipelineTask:
    """Give a task the package index of a Secret that may be absent, as uv takes it.

    Its keys are `default_index` (instead of PyPI) and `index` (besides it), each an address; an
    index that wants an account is written `private=https://...`, with `username` and `password`.
    """
    return kubernetes.use_secret_as_env(
        task, secret_name=secret_name, secret_key_to_env=PACKAGE_INDEX, optional=True
    )
