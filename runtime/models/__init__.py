"""Stop one: an MLflow model URI becomes one exact `ModelVersion` in a directory."""

from kfp_bento.runtime.models.directory import input_example, load_model
from kfp_bento.runtime.models.identity import (
    MLMODEL_NAME,
    NOT_MODEL_FILES,
    RUN_SPECIFIC_KEYS,
    FileDigest,
    content_digest,
    file_digests,
    file_sha256,
    model_files,
    portable_mlmodel,
    read_mlmodel,
    set_digest,
    tree_digest,
)
from kfp_bento.runtime.models.pull import pull_model
from kfp_bento.runtime.models.tracking import (
    ALLOWED_HOSTS,
    Tracking,
    choose_tracking,
    first_line,
    is_missing,
    speaking_to,
    tracking_client,
)
from kfp_bento.runtime.models.uri import ModelUri, parse_model_uri, without_password
from kfp_bento.runtime.models.version import (
    RECORD_NAME,
    ModelSignature,
    ModelVersion,
    specification_kind,
)

__all__ = [
    "ALLOWED_HOSTS",
    "MLMODEL_NAME",
    "NOT_MODEL_FILES",
    "RECORD_NAME",
    "RUN_SPECIFIC_KEYS",
    "FileDigest",
    "ModelSignature",
    "ModelUri",
    "ModelVersion",
    "Tracking",
    "choose_tracking",
    "content_digest",
    "file_digests",
    "file_sha256",
    "first_line",
    "input_example",
    "is_missing",
    "load_model",
    "model_files",
    "parse_model_uri",
    "portable_mlmodel",
    "pull_model",
    "read_mlmodel",
    "set_digest",
    "speaking_to",
    "specification_kind",
    "tracking_client",
    "tree_digest",
    "without_password",
]
