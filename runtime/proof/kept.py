"""Golden answers that are kept: the same bento is not asked the same twice on one machine.

Everything that can change an answer is in the name: the bento's content, its models, the requests,
the tolerance, the interpreter, what the code is told by its environment, and the code of the proof
itself. A proof that failed is not kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.programs import clean_environment, code_variables, keeps_from_network
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import OFF, Golden, GoldenModel, GoldenRequest

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

CACHE_VARIABLE = "KFP_BENTO_CACHE"
MOST_KEPT = 64
"""Golden answers that are kept; of more, those that were not used for longest go."""


def own_folder(name: str, cache: Path | None = None) -> Path | None:
    """Give a folder of the cache that is ours alone; None where there can be none.

    Args:
        name: The folder's name.
        cache: What it lies in; by default `KFP_BENTO_CACHE`, else the user's own cache.
    """
    home = os.environ.get("HOME", "")
    usual = os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    named = str(cache or os.environ.get(CACHE_VARIABLE, ""))
    place = named or (usual and f"{usual}/kfp-bento")
    if not place or (not Path(place).is_absolute() and not named):
        return None
    folder = Path(place).absolute() / name
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if ours and not found.st_mode & 0o077 and os.access(folder, os.W_OK):
            return folder
    return None


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
        "proof": _own_code(),
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
        found = [(path.stat().st_mtime, path) for path in file.parent.glob("*.json")]
        for _, path in sorted(found, reverse=True)[MOST_KEPT:]:
            path.unlink(missing_ok=True)


@functools.cache
def _own_code() -> str:
    """Give the digest of what asks and compares: another version may judge otherwise."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
