"""BentoML's build in a process of its own, where a service's code finds nothing to take away."""

from __future__ import annotations

import json
import site
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos.tree import UNVERSIONED
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import JSON_LIMIT, parse_json, read_small_file
from kfp_bento.runtime.programs import (
    MEMORY_HINT,
    Finished,
    clean_environment,
    cleaned,
    code_variables,
    confined,
    confinement_hint,
    how_ended,
    memory_for_code,
    run_program,
    was_killed,
)

BUILD_SECONDS = 1800.0

_PROGRAM = Path(__file__).with_name("bentoml_process.py")
_LONGEST = 800


def run_bentoml(
    work: Path, context: Path, target: str, name: str, python: str, wishes: Mapping[str, Any]
) -> Path:
    """Build a bento in a fresh interpreter with a store of its own.

    Args:
        work: An existing scratch directory; BentoML's store is its `home`.
        context: The directory of the service's source.
        target: The service's import string; "" for what the context's build file says.
        name: The bento's name; "" for what the build file or the service says.
        python: The minor version of the interpreter the bento is for.
        wishes: See `BentoOptions.wishes`.

    Returns:
        Where the bento lies in the store; its version is `UNVERSIONED`.

    Raises:
        BentoError: BentoML refuses the service, cannot import it, or takes too long.
    """
    result, home = work / "result.json", work / "home"
    job = {
        "context": str(context),
        "service": target,
        "name": name,
        "version": UNVERSIONED,
        "python_version": python,
        "wishes": wishes,
        "result": str(result),
    }
    # -P: the modules beside the program must not hide those of the service
    options = ["-P"] if site.ENABLE_USER_SITE else ["-P", "-s"]
    done = run_program(
        confined([sys.executable, *options, str(_PROGRAM), json.dumps(job)], error=BentoError),
        doing="Building the bento with BentoML",
        directory=context,
        environment=clean_environment(
            code_variables(),
            BENTOML_HOME=str(home),
            BENTOML_DO_NOT_TRACK="true",
            PYTHONDONTWRITEBYTECODE="1",
            PYTHONHASHSEED="0",
            TZ="UTC",
        ),
        seconds=BUILD_SECONDS,
        memory=memory_for_code(),
        error=BentoError,
        hint=confinement_hint(),
    )
    outcome = _outcome(result)
    path = Path(outcome.get("path", ""))
    # The service's code could write the result as well; only its own store is taken from it.
    if "path" not in outcome or not path.resolve().is_relative_to(home.resolve() / "bentos"):
        raise _not_built(outcome, done)
    return path


def _outcome(result: Path) -> dict[str, str]:
    try:
        outcome = parse_json(read_small_file(result, JSON_LIMIT))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in outcome.items() if isinstance(value, str)}


def _not_built(outcome: dict[str, str], done: Finished) -> BentoError:
    if was_killed(done.status):
        return BentoError(
            f"BentoML cannot build the service: {how_ended(done.status)}.", hint=MEMORY_HINT
        )
    reason = outcome.get("error") or done.last_lines(1).strip()
    place = f" ({outcome['place']})" if outcome.get("place") else ""
    hint = outcome.get("hint") or "Correct the service; `bentoml serve` shows the whole traceback."
    told, hint = _one_line(f"{reason.rstrip('.')}{place}"), _one_line(hint)
    return BentoError(
        f"BentoML cannot build the service: {told}.", hint=f"{hint} {confinement_hint()}".strip()
    )


def _one_line(text: str) -> str:
    return " ".join(cleaned(text).split())[:_LONGEST]
