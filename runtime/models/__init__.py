"""Stop one: each MLflow model URI becomes one exact `ModelVersion` in a directory."""

from kfp_bento.runtime.models.catalog import list_registered_models, look_at_model
from kfp_bento.runtime.models.directory import load_model
from kfp_bento.runtime.models.environment import unknown_conda_packages
from kfp_bento.runtime.models.identity import (
    FileDigest,
    file_digests,
    model_files,
    set_digest,
    tree_digest,
)
from kfp_bento.runtime.models.mlmodel import (
    read_example,
    read_flavors,
    read_mlmodel_of,
)
from kfp_bento.runtime.models.model_set import (
    load_given_facts,
    load_given_models,
    load_models,
    models_record,
    save_facts,
)
from kfp_bento.runtime.models.modules import own_modules
from kfp_bento.runtime.models.naming import ascii_text, is_tag_name, tag_name
from kfp_bento.runtime.models.partial import human_size
from kfp_bento.runtime.models.portable import portable_files
from kfp_bento.runtime.models.pull import pull_models
from kfp_bento.runtime.models.resolution import (
    RegisteredModel,
    read_registered_model,
    read_registered_version,
)
from kfp_bento.runtime.models.resolved import resolve_models
from kfp_bento.runtime.models.signature import (
    Column,
    Field,
    ModelSignature,
    Parameter,
    Tensor,
    ValueType,
)
from kfp_bento.runtime.models.tracking import (
    choose_tracking,
    missing_as,
    speaking_to,
    tracking_client,
)
from kfp_bento.runtime.models.uri import parse_model_uri, without_password
from kfp_bento.runtime.models.version import RECORD_NAME, ModelFacts, ModelVersion, version_number

__all__ = [
    "RECORD_NAME",
    "Column",
    "Field",
    "FileDigest",
    "ModelFacts",
    "ModelSignature",
    "ModelVersion",
    "Parameter",
    "RegisteredModel",
    "Tensor",
    "ValueType",
    "ascii_text",
    "choose_tracking",
    "file_digests",
    "human_size",
    "is_tag_name",
    "list_registered_models",
    "load_given_facts",
    "load_given_models",
    "load_model",
    "load_models",
    "look_at_model",
    "missing_as",
    "model_files",
    "models_record",
    "own_modules",
    "parse_model_uri",
    "portable_files",
    "pull_models",
    "read_example",
    "read_flavors",
    "read_mlmodel_of",
    "read_registered_model",
    "read_registered_version",
    "resolve_models",
    "save_facts",
    "set_digest",
    "speaking_to",
    "tag_name",
    "tracking_client",
    "tree_digest",
    "unknown_conda_packages",
    "version_number",
    "without_password",
]
