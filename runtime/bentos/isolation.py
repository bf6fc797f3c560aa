"""BentoML's build in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from kfp_bento.runtime.bentos.layout import UNVERSIONED
from kfp_bento.runtime.errors import BentoError

_PROGRAM = Path(__file__).with_name("bentoml_process.py")


def run_bentoml(work: Path, context: Path, target: str, name: str, python: str) -> Path:
    """Builds a bento in a fresh interpreter with a store of its own.

    Args:
        work: An existing scratch directory; BentoML's store is its `home`.
        context: The directory of the service's source.
        target: The service's import string; "" for what the context's build file says.
        name: The bento's name; "" for what the build file or the service says.
        python: The minor version of the interpreter the bento is for.

    Returns:
        Where the bento lies in the store; its version is `UNVERSIONED`.

    Raises:
        BentoError: BentoML refuses the service, or cannot import it.
    """
    result = work / "result.json"
    job = {
        "context": str(context),
        "service": target,
        "name": name,
        "version": UNVERSIONED,
        "python_version": python,
        "result": str(result),
    }
    environment = {
        **{key: value for key, value in os.environ.items() if key != "BENTOML_CONFIG"},
        "BENTOML_HOME": str(work / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
    }
    done = subprocess.run(
        # -P: the modules beside the program must not hide those of the service
        [sys.executable, "-P", str(_PROGRAM), json.dumps(job)],
        env=environment,
        cwd=context,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    outcome = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if "path" not in outcome:
        raise _not_built(outcome, done)
    return Path(outcome["path"])


def _not_built(outcome: dict[str, str], done: subprocess.CompletedProcess[str]) -> BentoError:
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    reason = outcome.get("error") or last.strip() or f"it ended with status {done.returncode}"
    place = f" ({outcome['place']})" if outcome.get("place") else ""
    hint = outcome.get("hint") or "Correct the service; `bentoml serve` shows the whole traceback."
    return BentoError(f"BentoML cannot build the service: {reason.rstrip('.')}{place}.", hint=hint)
