"""Golden answers that are kept: the same bento is not asked the same twice on one machine.

Everything that can change an answer is in the name: the bento's content, its models, the requests,
the tolerance, the interpreter, what the code is told by its environment, and the code of the proof
itself. A proof that failed is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.files import code_digest, keep_latest, own_folder
from kfp_bento.runtime.programs import clean_environment, code_variables, keeps_from_network
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import OFF, Golden, GoldenModel, GoldenRequest

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

MOST_KEPT = 64
"""Golden answers that are kept; of more, those that were not used for longest go."""


def kept_at(
    bento: Bento,
    models: Sequence[GoldenModel],
    asked: Sequence[GoldenRequest],
    tolerance: Tolerance,
    interpreter: str,
) -> Path | None:
    """Give the file that the golden answers of a bento are kept in; None where nothing can be."""
    folder = own_folder("proofs")
    if folder is None or not keeps_from_network():  # with a network, anything can change an answer
        return None
    basic = clean_environment(())
    question = Golden(bento.tag, tuple(models), tuple(asked), OFF, "", tolerance)
    facts = {
        "bento": bento.digest,
        "question": question.to_dict(),
        "interpreter": interpreter,
        "variables": sorted(clean_environment(code_variables()).items() - basic.items()),
        "proof": code_digest(Path(__file__).parent),
    }
    text = json.dumps(facts, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def load_kept(file: Path | None) -> Golden | None:
    """Read golden answers that were kept; None where there are none."""
    if file is None:
        return None
    with contextlib.suppress(CheckError, OSError):
        found = Golden.load(file, claims=False)
        os.utime(file)
        return found
    return None


def keep(golden: Golden, file: Path | None) -> None:
    """Keep golden answers for the next time; where that fails, they are asked for anew."""
    if file is None:
        return
    with contextlib.suppress(CheckError, OSError):
        golden.save(file)
        keep_latest(file.parent, "*.json", MOST_KEPT)
