"""Stop one: an MLflow model URI becomes one exact `ModelVersion` in a directory."""

from kfp_bento.runtime.models.directory import input_example, load_model
from kfp_bento.runtime.models.identity import (
    NOT_MODEL_FILES,
    FileDigest,
    content_digest,
    file_digests,
    model_files,
    set_digest,
    tree_digest,
)
from kfp_bento.runtime.models.mlmodel import (
    MLMODEL_NAME,
    RUN_SPECIFIC_KEYS,
    portable_mlmodel,
    read_any_example,
    read_mlmodel_of,
)
from kfp_bento.runtime.models.pull import pull_model
from kfp_bento.runtime.models.registry import read_registered_model, read_registered_version
from kfp_bento.runtime.models.signature import (
    Column,
    Field,
    ModelSignature,
    Parameter,
    Tensor,
    ValueType,
    specification_kind,
)
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
from kfp_bento.runtime.models.version import RECORD_NAME, ModelVersion, version_number

__all__ = [
    "ALLOWED_HOSTS",
    "MLMODEL_NAME",
    "NOT_MODEL_FILES",
    "RECORD_NAME",
    "RUN_SPECIFIC_KEYS",
    "Column",
    "Field",
    "FileDigest",
    "ModelSignature",
    "ModelUri",
    "ModelVersion",
    "Parameter",
    "Tensor",
    "Tracking",
    "ValueType",
    "choose_tracking",
    "content_digest",
    "file_digests",
    "first_line",
    "input_example",
    "is_missing",
    "load_model",
    "model_files",
    "parse_model_uri",
    "portable_mlmodel",
    "pull_model",
    "read_any_example",
    "read_mlmodel_of",
    "read_registered_model",
    "read_registered_version",
    "set_digest",
    "speaking_to",
    "specification_kind",
    "tracking_client",
    "tree_digest",
    "version_number",
    "without_password",
]
