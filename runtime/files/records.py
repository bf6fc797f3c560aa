"""Files of facts that one step seals and another believes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.files.directories import write_whole
from kfp_bento.runtime.files.documents import read_small_file, reading
from kfp_bento.runtime.files.seals import open_record, record_digest, sealed_record

if TYPE_CHECKING:
    from kfp_bento.runtime.errors import KfpBentoError


def save_record(
    facts: Mapping[str, Any], purpose: str, path: Path, error: type[KfpBentoError]
) -> str:
    """Write facts, sealed as our own, and give their digest for the steps that read them.

    Args:
        facts: JSON values by name; `seal` is none of the names.
        purpose: What they are about.
        path: The file, there completely or not at all.
        error: What is raised where it cannot be written.
    """
    text = sealed_record(facts, purpose)
    try:
        write_whole(text, path)
    except OSError as failure:
        why = failure.strerror or failure
        raise error(f"The record cannot be written to {path}: {why}.") from failure
    return record_digest(text)


def load_record(
    path: Path,
    purpose: str,
    *,
    told: str,
    largest: int,
    absent: str,
    changed: str,
    error: type[KfpBentoError],
    hint: str,
    claims: bool = True,
) -> dict[str, Any]:
    """Read what `save_record` wrote.

    Args:
        path: The file.
        purpose: What it is about.
        told: `sha256:…` of it, as the step that wrote it says; "" where nobody says.
        largest: Bytes that are read at most.
        absent: What is said where there is none, such as "There are no reports".
        changed: What is said where it is not what the step wrote, in a sentence.
        error: What is raised where there is no such file, or it is not what the step wrote.
        hint: How one comes by it.
        claims: Whether a file is taken that nobody vouches for, neither a step nor our own seal.
    """
    with reading(f"{absent} in {path}", error, hint=hint):
        facts, own = open_record(read_small_file(Path(path), largest), purpose, told)
    if not own and (told or not claims):
        raise error(changed, hint=hint)
    return facts
