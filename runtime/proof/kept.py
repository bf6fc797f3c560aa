"""Golden answers that are kept: the same bento is not asked the same twice.

Everything that can change an answer is in the name: the bento's content, its models, the requests,
the tolerance, the interpreter, what the code is told by its environment, and the code of the proof
itself. A proof that failed is not kept.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.files import (
    code_digest,
    keep_latest,
    load_record,
    own_folder,
    parse_json,
    save_record,
)
from kfp_bento.runtime.programs import clean_environment, code_variables, keeps_from_network
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import LARGEST_GOLDEN, OFF, Golden, GoldenModel, GoldenRequest

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

MOST_KEPT = 64
"""Golden answers that are kept; of more, those that were not used for longest go."""

_PURPOSE = "proof"


class ProofRecords(Protocol):
    """Where machines that believe each other keep proofs; what fails there is told, not raised."""

    def find(self, key: str) -> bytes | None:
        """Give what is kept under this key, if it is known to be our own."""

    def keep(self, key: str, content: bytes) -> None:
        """Keep it for those who believe us."""


@dataclass(frozen=True)
class KeptProofs:
    """Where the proof of one bento, asked these requests, may be kept.

    Attributes:
        question: What was to be proven: golden answers whose requests are not answered yet.
        file: On this machine; None where nothing can be kept.
        key: Under which others find it; empty where they cannot.
        shared: Where others look.
    """

    question: Golden
    file: Path | None = None
    key: str = ""
    shared: ProofRecords | None = None

    def find(self) -> Golden | None:
        """Give golden answers that were kept, which say of what day they are."""
        if self.file is not None and (found := _load(self.file)):
            return found
        content = self.shared.find(self.key) if self.shared and self.key else None
        if content is None:
            return None
        with contextlib.suppress(CheckError, ValueError):
            found = _read(parse_json(content))
            if (found.bento, found.models) == (self.question.bento, self.question.models):
                _save(content_of(found), self.file)
                return found
        return None

    def keep(self, golden: Golden) -> None:
        """Keep golden answers for the next time; where that fails, they are asked for anew."""
        told = content_of(replace(golden, earlier=_today()))
        _save(told, self.file)
        if self.shared and self.key:
            self.shared.keep(self.key, _text(told))


def kept_at(
    bento: Bento,
    models: Sequence[GoldenModel],
    asked: Sequence[GoldenRequest],
    tolerance: Tolerance,
    interpreter: str,
    shared: ProofRecords | None = None,
) -> KeptProofs:
    """Say where the golden answers of a bento are kept.

    Args:
        bento: The bento.
        models: Its models.
        asked: What it is asked.
        tolerance: How far answers may be away.
        interpreter: What it is proven with. Another machine has the same one where it is ours.
        shared: Where other machines look as well.
    """
    question = Golden(bento.tag, tuple(models), tuple(asked), OFF, "", tolerance)
    if not keeps_from_network():  # with a network, anything can change an answer
        return KeptProofs(question)
    basic = clean_environment(())
    facts = {
        "bento": bento.digest,
        "question": question.to_dict(),
        "variables": sorted(clean_environment(code_variables()).items() - basic.items()),
        "proof": code_digest(Path(__file__).parent),
    }
    folder = own_folder("proofs")
    own = interpreter == sys.executable
    return KeptProofs(
        question,
        file=folder / f"{_digest(facts, interpreter)}.json" if folder else None,
        key=_digest(facts, _this_python()) if own else "",
        shared=shared,
    )


def content_of(golden: Golden) -> dict[str, Any]:
    """Give golden answers as they are kept, with the day that they are of."""
    return {"golden": golden.to_dict(), "proven": golden.earlier}


def _read(facts: Mapping[str, Any]) -> Golden:
    """Read what `content_of` gave.

    Raises:
        CheckError: These are no golden answers.
        ValueError: Nor anything else that was kept.
    """
    golden, day = facts.get("golden"), facts.get("proven")
    if not isinstance(golden, dict) or not isinstance(day, str):
        raise ValueError("this is no proof")
    return replace(Golden.from_dict(golden), earlier=datetime.date.fromisoformat(day).isoformat())


def _load(file: Path) -> Golden | None:
    with contextlib.suppress(CheckError, OSError, ValueError):
        facts = load_record(
            file,
            _PURPOSE,
            told="",
            largest=LARGEST_GOLDEN,
            absent="No proof was kept",
            changed="It is not ours.",
            error=CheckError,
            hint="",
            claims=False,
        )
        found = _read(facts)
        os.utime(file)
        return found
    return None


def _save(facts: Mapping[str, Any], file: Path | None) -> None:
    if file is None:
        return
    with contextlib.suppress(CheckError, OSError):
        save_record(facts, _PURPOSE, file, CheckError)
        keep_latest(file.parent, "*.json", MOST_KEPT)


def _digest(facts: Mapping[str, Any], interpreter: str) -> str:
    return hashlib.sha256(_text({**facts, "interpreter": interpreter})).hexdigest()


def _text(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True).encode()


def _this_python() -> str:
    """Say what this interpreter is, and what it and compiled modules stand on."""
    system: Mapping[str, str] = {}
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release()
    said: tuple[str, ...] = (
        *(platform.python_implementation(), platform.python_version(), platform.machine()),
        *(*platform.libc_ver(), system.get("ID", ""), system.get("VERSION_ID", "")),
    )
    return " ".join(said)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
