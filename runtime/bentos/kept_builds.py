"""What BentoML made of a generated service is kept: the same source is not built twice here.

Generated services alone: the code of a service of one's own runs while it is built, and may look
at anything. Everything that a build depends on is in the name. Models are no part of what is kept.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import keep_latest, load_record, own_folder, save_record

MOST_KEPT = 64
_PURPOSE = "bentoml build"
_LARGEST = 16 << 20


def built_once(home: Path, facts: Mapping[str, Any], build: Callable[[], Path]) -> Path:
    """Give the tree that a build makes below a home: from the cache, or by building.

    Args:
        home: BentoML's home, which receives the tree.
        facts: All that the build depends on, as JSON values.
        build: Builds it, and gives where it lies.

    Raises:
        BentoError: As the build does.
    """
    folder = own_folder("builds")
    if folder is None:
        return build()
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    file = folder / f"{name}.json"
    with contextlib.suppress(BentoError, OSError, KeyError, TypeError, ValueError):
        return _restored(file, home)
    built = build()
    with contextlib.suppress(BentoError, OSError):
        save_record(_tree(built, home), _PURPOSE, file, BentoError)
        keep_latest(folder, "*.json", MOST_KEPT)
    return built


def _tree(built: Path, home: Path) -> dict[str, Any]:
    files = {
        path.relative_to(built).as_posix(): {
            "mode": path.stat().st_mode & 0o777,
            "content": base64.b64encode(path.read_bytes()).decode(),
        }
        for path in sorted(built.rglob("*"))
        if path.is_file()
    }
    return {"place": built.relative_to(home).as_posix(), "files": files}


def _restored(file: Path, home: Path) -> Path:
    # Sealed by us: models' code, which runs as the same user, can write here too.
    found = load_record(
        file,
        _PURPOSE,
        told="",
        largest=_LARGEST,
        absent="Nothing is kept",
        changed="It is not ours.",
        error=BentoError,
        hint="",
        claims=False,
    )
    built = home / str(found["place"])
    for name, one in found["files"].items():
        place = built / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(base64.b64decode(one["content"]))
        place.chmod(one["mode"])
    os.utime(file)
    return built
