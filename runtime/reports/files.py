"""Text and JSON files that are there completely or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path


def write_json(data: Any, path: Path) -> None:
    """Write data as one JSON document: ASCII only, keys sorted, a newline at the end.

    Args:
        data: What `json.dumps` takes; all numbers finite.
        path: The file; missing folders above it are made.

    Raises:
        KfpBentoError: The file cannot be written.
        ValueError: A number is not finite, which JSON cannot say.
    """
    write_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False), path)


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8 with a newline at the end.

    Args:
        text: The content; ends in a newline afterwards whether it did before or not.
        path: The file; missing folders above it are made, an older file is replaced.

    Raises:
        KfpBentoError: The file cannot be written.
    """
    ending = "" if text.endswith("\n") else "\n"
    try:
        # What is not encodable must not keep a report from being written.
        write_whole((text + ending).encode(errors="backslashreplace"), path)
    except OSError as error:
        raise KfpBentoError(
            f"The file {path} cannot be written: {error.strerror or error}.",
            hint="Choose another place, or make room and allow writing there.",
        ) from error
