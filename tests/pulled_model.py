"""One model in a directory of its own, pulled as each model of several is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.models.pull import pull_into


def pull_model(
    uri: str,
    directory: Path,
    *,
    tracking_uri: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ModelVersion:
    [model] = pull_into(directory, [uri], lambda source: "", tracking_uri, progress)
    return model
