"""Expected answers: the registry's model asked by MLflow itself, in a process of its own.

Its code runs without our credentials and, where the system can do that, without network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import parse_json_value, read_small_file
from kfp_bento.runtime.programs import (
    MEMORY_HINT,
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
from kfp_bento.runtime.proof.content import without_nan
from kfp_bento.runtime.proof.reasons import essential_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.models import ModelVersion

SCRIPT = Path(__file__).with_name("predict_with_mlflow.py")
PREDICT_SECONDS = 900.0
_ANSWERS_LIMIT = 1 << 30


@dataclass(frozen=True)
class Prediction:
    """What the model predicts for a request, or why it refuses it."""

    value: Any = None
    refusal: str = ""


def predictions(
    environment: Path,
    model: ModelVersion,
    bodies: Sequence[Mapping[str, Any]],
    scratch: Path,
) -> list[Prediction]:
    """Ask the model in `model.directory` by `mlflow.pyfunc`, one prediction for each body.

    Args:
        environment: The environment to do it in.
        model: The model.
        bodies: `{"inputs": ..., "params": ...}`, as a served model gets them.
        scratch: A directory of ours.

    Raises:
        BentoError: The model cannot be loaded.
    """
    task = {
        "inputs": model.signature.to_dict()["inputs"] if model.signature else None,
        "requests": [dict(body) for body in bodies],
    }
    asked, answered = scratch / "requests.json", scratch / "answers.json"
    asked.write_text(json.dumps(task), encoding="utf-8")
    python = str(environment / "bin" / "python")
    command = [python, str(SCRIPT), str(model.directory.absolute()), str(asked), str(answered)]
    done = run_program(
        confined(command, error=BentoError),
        doing="Asking the model itself",
        directory=scratch,
        environment=clean_environment(
            code_variables(),
            HOME=str(scratch),
            MLFLOW_DISABLE_TELEMETRY="true",
            PYTHONNOUSERSITE="1",
        ),
        seconds=PREDICT_SECONDS,
        memory=memory_for_code(),
        error=BentoError,
        hint=f"Give smaller requests, or switch verify off. {confinement_hint()}",
    )
    if done.status == 0:
        found = _answers(answered)
        if len(found) == len(bodies):
            return found
    if was_killed(done.status):
        raise BentoError(
            f"The model {cleaned(model.uri)} cannot be loaded here: {how_ended(done.status)}.",
            hint=f"{MEMORY_HINT} With verify off it is built unproven.",
        )
    said = essential_line(done.complaint) or how_ended(done.status)
    raise BentoError(
        f"The model {cleaned(model.uri)} cannot be loaded in the environment that is locked for "
        f"it: {said}.",
        hint="Log it again with what it needs, or add a requirement here; with verify off it is "
        f"built unproven. {confinement_hint()}",
    )


def _answers(file: Path) -> list[Prediction]:
    """Read what the model's process wrote; its code could have written anything there."""
    try:
        found = parse_json_value(read_small_file(file, _ANSWERS_LIMIT), nan=True)
        return [
            Prediction(refusal=cleaned(str(one["refused"])))
            if "refused" in one
            else Prediction(without_nan(one["answer"]))
            for one in found
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
