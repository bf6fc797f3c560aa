"""The Python modules that a model brings along (`code_paths=`), which MLflow puts on `sys.path`."""

from __future__ import annotations

import posixpath
from pathlib import Path, PurePosixPath

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.models.identity import file_digests, model_files, set_digest
from kfp_bento.runtime.models.mlmodel import MLMODEL_LIMIT, MLMODEL_NAME, mlmodel_mapping

_CACHE = "__pycache__"
_SUFFIXES = frozenset({".py", ".pyc", ".so", ".pyd"})


def own_modules(directory: Path) -> dict[str, str]:
    """Give the top-level modules and packages of a model's own code.

    Models inside the model bring theirs as well, once they are loaded.

    Args:
        directory: The model's directory.

    Returns:
        The digest of its files by the name that imports it.

    Raises:
        ModelError: A file of the model is none that can be read.
    """
    files = model_files(directory)
    found: dict[str, dict[str, Path]] = {}
    for folder in sorted(_code_folders(directory, files)):
        for path, file in files.items():
            if not path.startswith(f"{folder}/") or f"/{_CACHE}/" in path:
                continue
            inside = PurePosixPath(path).relative_to(folder)
            if (name := _import_name(inside)).isidentifier():
                found.setdefault(name, {})[inside.as_posix()] = file
    return {name: set_digest(file_digests(parts)) for name, parts in sorted(found.items())}


def _code_folders(directory: Path, files: dict[str, Path]) -> set[str]:
    folders: set[str] = set()
    for path in files:
        if PurePosixPath(path).name != MLMODEL_NAME:
            continue
        try:
            flavors = mlmodel_mapping(read_small_file(directory / path, MLMODEL_LIMIT))["flavors"]
        except (OSError, ValueError, KeyError, ModelError):  # a file that is only called so
            continue
        confs = flavors.values() if isinstance(flavors, dict) else ()
        codes = {conf.get("code") for conf in confs if isinstance(conf, dict)}
        folders |= {
            posixpath.normpath(posixpath.join(posixpath.dirname(path), code))
            for code in codes
            if isinstance(code, str) and code
        }
    return folders


def _import_name(inside: PurePosixPath) -> str:
    """Give what imports a file: the folder at the top, or the module's own name; "" for data."""
    if len(inside.parts) > 1:
        return inside.parts[0]
    return inside.name.partition(".")[0] if inside.suffix in _SUFFIXES else ""
