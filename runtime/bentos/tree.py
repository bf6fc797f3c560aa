"""The files of a bento, made the same on every machine and every day."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.bento import LOCK_FILE, MODEL_FILE
from kfp_bento.runtime.bentos.bento_file import (
    BENTO_FILE,
    CREATION_TIME,
    settled_bento_file,
    written_yaml,
)
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.files import link_or_copy
from kfp_bento.runtime.models import model_files, portable_files

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

UNVERSIONED = "unversioned"
"""The version BentoML builds with, before the content has decided on one."""


def add_model(model: ModelVersion, tag: str, store: Path) -> None:
    """Put a model's files into a BentoML model store, linked where possible.

    Args:
        model: The model.
        tag: `name:version` in the store.
        store: The store, such as `<bento>/models`.

    Raises:
        BentoError: The model has a file of its own where BentoML's record has to be.
    """
    name, _, version = tag.partition(":")
    directory = store / name / version
    files = model_files(model.directory)
    if MODEL_FILE in files:
        raise BentoError(
            f"The model {tag} has a file {MODEL_FILE!r} at its top, where BentoML keeps its own.",
            hint="Log the model with that file in a folder.",
        )
    portable = portable_files(model.directory, files)
    for relative, source in files.items():
        target = directory / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if relative in portable:
            target.write_bytes(portable[relative])
        else:
            link_or_copy(source, target)
    (directory / MODEL_FILE).write_bytes(written_yaml(_model_record(model, name, version)))
    (store / name / "latest").write_text(version)


def check_destination(directory: Path) -> None:
    """Refuse a directory that holds something else than a bento.

    Raises:
        InvalidInput: It does.
    """
    if not directory.exists() or (directory / BENTO_FILE).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise InvalidInput(
            f"{directory} exists and is not a bento; it is left as it is.",
            hint="Choose a new directory, or empty this one.",
        )


def recorded_requirements(directory: Path) -> list[str]:
    """Give the requirements that a user's service brought into the bento BentoML built."""
    path = directory / LOCK_FILE
    if not path.is_file():
        return []
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def remove_traces(directory: Path) -> None:
    """Remove what only the building machine knows: compiled files, BentoML's own lock."""
    for folder in [*directory.rglob("__pycache__")]:
        shutil.rmtree(folder)
    for name in ("requirements.in", "requirements.lock.txt"):
        (directory / "env/python" / name).unlink(missing_ok=True)


def finish_files(directory: Path, version: str, lock: str) -> None:
    """Give a built bento its version and its lock, and takes the clock out of it.

    Args:
        directory: The bento as BentoML wrote it, with the models in `models/`.
        version: The version to give it.
        lock: The text of the lock.
    """
    (directory / LOCK_FILE).write_text(lock, encoding="utf-8")
    file = directory / BENTO_FILE
    # BentoML writes the lock into it as well, and there is no limit to what we write ourselves.
    file.write_bytes(settled_bento_file(file.read_bytes(), version, lock))
    for name in ("README.md", "apis/openapi.yaml"):
        path = directory / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(f":{UNVERSIONED}", f":{version}"), encoding="utf-8")
    _plain_modes(directory)


def _plain_modes(directory: Path) -> None:
    """Give everything the modes of new files: which those are is the user's to say (umask)."""
    allowed = _modes_of_new(directory)
    for folder, folders, files in os.walk(directory):
        here = Path(folder)
        here.chmod(0o777 & allowed)
        if here == directory and "models" in folders:
            folders.remove("models")  # its files are other names of the user's
        for name in files:
            (here / name).chmod((0o777 if name.endswith(".sh") else 0o666) & allowed)


def _modes_of_new(directory: Path) -> int:
    """Give the permissions that the umask leaves; it cannot be asked for without changing it."""
    trial = directory / ".modes"
    trial.mkdir()
    allowed = trial.stat().st_mode & 0o777
    trial.rmdir()
    return allowed


def _model_record(model: ModelVersion, name: str, version: str) -> dict[str, Any]:
    """Give BentoML's `model.yaml`; without it the store does not see the model."""
    return {
        "name": name,
        "version": version,
        "module": "",
        "labels": {},
        "options": {},
        "metadata": {},
        "context": {
            "framework_name": "mlflow",
            "framework_versions": {"mlflow": model.mlflow_version},
            "bentoml_version": "",
            "python_version": model.python_version,
        },
        "signatures": {},
        "api_version": "v1",
        "creation_time": CREATION_TIME,
    }
