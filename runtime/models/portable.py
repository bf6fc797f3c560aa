"""A model's files without what only one run or one machine has, for its identity and its bento."""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.models.environment import (
    ENVIRONMENT_FILES,
    ENVIRONMENT_LIMIT,
    portable_environment,
)
from kfp_bento.runtime.models.mlmodel import (
    MLMODEL_LIMIT,
    MLMODEL_NAME,
    mlmodel_mapping,
    mlmodel_text,
)

RUN_SPECIFIC_KEYS = (
    "artifact_path",
    "model_id",
    "model_size_bytes",
    "model_uri",
    "model_uuid",
    "registered_model_version",
    "run_id",
    "utc_time_created",
)
"""Top-level keys of `MLmodel` that differ between two trainings of the same model."""

_FILE_KEYS = ("model_code_path", "config", "model_config")
"""Keys of flavors whose text is a file's path, of which MLflow reads the last part only."""


def portable_files(directory: Path, files: Iterable[str]) -> dict[str, bytes]:
    """Give the content of those files of a model that are not taken as they are.

    They are `MLmodel`, that of a model inside the model too, and what says where packages come
    from: no run, no clock, no path of a machine, no account of a package index.

    Args:
        directory: The model's directory.
        files: Its files by relative POSIX path.

    Returns:
        Content by path; files that would not change are left out.

    Raises:
        ModelError: `MLmodel` cannot be read.
    """
    found: dict[str, bytes] = {}
    for path in files:
        name = PurePosixPath(path).name
        if path == MLMODEL_NAME:
            found[path] = portable_mlmodel(mlmodel_text(directory))
        elif name == MLMODEL_NAME or name in ENVIRONMENT_FILES:
            limit = MLMODEL_LIMIT if name == MLMODEL_NAME else ENVIRONMENT_LIMIT
            try:
                content = read_small_file(directory / path, limit)
                portable = (
                    portable_mlmodel(content)
                    if name == MLMODEL_NAME
                    else portable_environment(name, content)
                )
            except (OSError, ValueError, ModelError):  # some file of the model's own
                continue
            if portable != content:
                found[path] = portable
    return found


def portable_mlmodel(text: bytes) -> bytes:
    """Give an `MLmodel` file without what only one run or one machine has.

    Args:
        text: The file as MLflow wrote it.

    Returns:
        ASCII YAML with sorted keys, the same for any two runs that logged the same model.

    Raises:
        ModelError: The file is not a YAML mapping.
    """
    whole = mlmodel_mapping(text)
    data = {key: value for key, value in whole.items() if key not in RUN_SPECIFIC_KEYS}
    if isinstance(data.get("flavors"), dict):
        data["flavors"] = {name: _flavor(conf) for name, conf in data["flavors"].items()}
    try:
        dumped = yaml.safe_dump(
            data, sort_keys=True, allow_unicode=False, default_flow_style=False, width=4096
        )
    except (RecursionError, TypeError, yaml.YAMLError) as failure:
        raise ModelError(
            "The MLmodel file is not valid YAML: it cannot be written again "
            f"({type(failure).__name__}).",
            hint="Download the model again, or log it again.",
        ) from failure
    return dumped.encode("ascii")


def _flavor(conf: Any) -> Any:
    """Give a flavor's settings with the names of files in place of where they once were."""
    if not isinstance(conf, dict):
        return conf
    settled = dict(conf)
    for key, value in conf.items():
        if not isinstance(value, str):
            continue
        # Of transformers: the folder that a model was loaded from, beside names of the hub.
        if key in _FILE_KEYS or (str(key).endswith("_name") and _is_absolute(value)):
            settled[key] = last_part(value)
    if isinstance(conf.get("artifacts"), dict):
        settled["artifacts"] = {name: _artifact(one) for name, one in conf["artifacts"].items()}
    return settled


def _artifact(entry: Any) -> Any:
    """Give an artifact's entry without the place that it was copied from."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return entry
    settled = {key: value for key, value in entry.items() if key != "uri"}
    return {**settled, "path": settled["path"].replace("\\", "/")}


def last_part(path: str) -> str:
    """Give the last part of a path of any system."""
    stripped = path.rstrip("/\\")
    return ntpath.basename(stripped) if "\\" in stripped else posixpath.basename(stripped)


def _is_absolute(text: str) -> bool:
    on_windows = bool(ntpath.splitdrive(text)[0]) and "\\" in text
    return on_windows or text.startswith(("/", "file:"))
