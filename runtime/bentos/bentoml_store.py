"""BentoML's store on this machine: `<home>/bentos/<name>/<version>`, and models likewise."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kfp_bento.runtime.bentos.bento_file import BENTO_FILE
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import read_small_file

_TAG = re.compile(r"([a-z0-9][a-z0-9._-]*)(?::([a-z0-9][a-z0-9._-]*))?")
_LATEST = "latest"
_SHOWN = 5


def store_home() -> Path:
    """Give BentoML's home: `BENTOML_HOME`, else `~/bentoml`."""
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")


def stored_bento(text: str) -> Path | None:
    """Give the directory of a bento that is named by its tag.

    Args:
        text: `name:version`, `name:latest` or `name`, as BentoML takes it. What is there as a file
            or directory is no tag, and neither is what holds a slash.

    Returns:
        The directory, or None where the text is no tag, or a name that the store does not have.

    Raises:
        InvalidInput: It is a tag, and the store has no such bento.
    """
    match = _TAG.fullmatch(text)
    if match is None or Path(text).exists():
        return None
    bentos = store_home() / "bentos"
    folder = bentos / match[1]
    version = match[2] or _LATEST
    found = folder / (_latest(folder) if version == _LATEST else version)
    if (found / BENTO_FILE).is_file():
        return found
    if match[2] is None and not folder.is_dir():
        return None  # then it was meant to be a file
    raise InvalidInput(
        f"The BentoML store {bentos} has no bento {text}.",
        hint=f"{_there(folder)} BENTOML_HOME says where the store is; a path is written ./{text}.",
    )


def _latest(folder: Path) -> str:
    try:
        name = read_small_file(folder / _LATEST, 1000).decode().strip()
    except (OSError, ValueError):
        return ""
    return name if _TAG.fullmatch(name) and ":" not in name else ""


def _there(folder: Path) -> str:
    if not folder.is_dir():
        names = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        shown = ", ".join(names[:_SHOWN])
        return f"It has: {shown}." if names else "It is empty."
    made = sorted(folder.glob(f"*/{BENTO_FILE}"), key=lambda file: file.stat().st_mtime)
    newest = [f"{folder.name}:{file.parent.name}" for file in reversed(made)][:_SHOWN]
    return f"It has: {', '.join(newest)}." if newest else f"It has no {folder.name} at all."
