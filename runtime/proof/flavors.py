"""Packages that a model of a flavor cannot do without, looked for before anything is installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kfp_bento.runtime.requirements import distribution_name

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

NEEDED: dict[str, tuple[str, ...]] = {
    "catboost": ("catboost",),
    "lightgbm": ("lightgbm",),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "prophet": ("prophet",),
    "pytorch": ("torch",),
    "sentence_transformers": ("sentence-transformers",),
    "sklearn": ("scikit-learn",),
    "spacy": ("spacy",),
    "statsmodels": ("statsmodels",),
    "transformers": ("transformers",),
    "xgboost": ("xgboost", "xgboost-cpu"),
}
"""Flavors, and the distributions of which each needs one."""

_NAME = re.compile(r"[A-Za-z0-9]")


def missing_flavor(models: Sequence[ModelVersion], lock: str) -> tuple[str, str] | None:
    """Say which model needs a package that the lock has not, and what to do; None if none does.

    Args:
        models: The models of a bento.
        lock: The text of its lock.
    """
    locked = {distribution_name(line) for line in lock.splitlines() if _NAME.match(line)}
    # A wheel in the bento is locked as a file; the line before names it.
    locked |= {distribution_name(line[2:]) for line in lock.splitlines() if line.startswith("# ")}
    for model in models:
        for flavor in model.flavors:
            needed = NEEDED.get(flavor, ())
            if needed and not locked.intersection(needed):
                return (
                    f"The model {model.uri} is of the flavor {flavor}, which needs {needed[0]}; "
                    "neither its requirements nor those of the build bring it.",
                    f"Log the model with its requirements, or add one here: {needed[0]}.",
                )
    return None
