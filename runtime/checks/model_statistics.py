"""The statistics of a model's training data, where whoever trained it left them: with its run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kfp_bento.runtime.checks.statistics import Statistics
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.models import (
    choose_tracking,
    look_at_model,
    missing_as,
    speaking_to,
    tracking_client,
)

STATISTICS = "statistics.json"
"""The artifact of a run that holds them."""


def given_statistics(artifact: Any, model_uri: str, *, tracking_uri: str = "") -> Statistics:
    """Read statistics of an input artifact, or where there is none of a model's run.

    See `find_statistics`; the artifact has a `path`.
    """
    file = None if artifact is None else Path(artifact.path)
    return find_statistics(file, model_uri, tracking_uri=tracking_uri)


def find_statistics(
    file: Path | None = None, model_uri: str = "", *, tracking_uri: str = ""
) -> Statistics:
    """Read statistics from a file, or from the run that logged a model.

    Args:
        file: A file that `Statistics.save` wrote; None looks at the model.
        model_uri: A model in a registry, such as models:/credit@prod, whose run has the artifact
            `STATISTICS`, as the training components leave it.
        tracking_uri: MLflow tracking server; "" takes the environment's.

    Raises:
        InvalidInput: Neither is given, or both, or the tracking settings cannot be used.
        CheckError: There are no statistics.
        ModelError: The model cannot be found.
    """
    if (file is None) == (not model_uri):
        raise InvalidInput(
            "Drift is measured from one description of the data.",
            hint="Give statistics, or a model whose run has them: one of the two.",
        )
    if file is not None:
        return Statistics.load(file)
    run = look_at_model(model_uri, tracking_uri=tracking_uri).run_id
    hint = "Describe the training data, and give the file: kfp-bento check describe DATA --to FILE."
    if not run:
        raise CheckError(f"{model_uri} does not say which run logged it.", hint=hint)
    tracking = choose_tracking(tracking_uri)
    missing = f"The run of {model_uri} has no artifact {STATISTICS}."
    with (
        scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-statistics-") as scratch,
        speaking_to(tracking, error=CheckError),
    ):
        client = tracking_client(tracking, error=CheckError)
        with missing_as(missing, hint=hint, error=CheckError):
            if STATISTICS not in {one.path for one in client.list_artifacts(run)}:
                raise CheckError(missing, hint=hint)
            client.download_artifacts(run, STATISTICS, str(scratch))
        return Statistics.load(scratch / STATISTICS)
