"""A tiny real model of each flavor becomes a bento that answers as MLflow predicts.

Models are trained and saved by MLflow in environments of their own. Those whose packages take
gigabytes run only where `KFP_BENTO_LARGE_FLAVORS` is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_models
from uv import find_uv_bin

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.proof import golden_answers
from kfp_bento.runtime.scan import scan_models

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden

ROOT = Path(__file__).parents[2]
SCRIPT = Path(tiny_models.__file__)
PACKAGES = {
    "sklearn": ("scikit-learn", "skops"),
    "xgboost": ("xgboost", "scikit-learn"),
    "lightgbm": ("lightgbm", "scikit-learn"),
    "catboost": ("catboost",),
    "onnx": ("onnx", "onnxruntime"),
    "statsmodels": ("statsmodels",),
    "spacy": ("spacy",),
    "prophet": ("prophet",),
    "tensorflow": ("tensorflow",),
    "pytorch": ("torch",),
    "transformers": ("transformers", "torch", "torchvision", "accelerate"),
    "sentence_transformers": ("sentence-transformers", "torch"),
    "pyfunc_with_code": (),
    "models_from_code": (),
    "chat_model": (),
    "responses_agent": (),
}
LARGE = {"tensorflow", "pytorch", "transformers", "sentence_transformers"}
WITH_CODE = {"pyfunc_with_code", "models_from_code", "chat_model", "responses_agent"}


def save(flavor: str, path: Path) -> None:
    """Let MLflow train and save a model where its packages are."""
    from importlib.metadata import version

    wanted = [f"mlflow=={version('mlflow')}", *PACKAGES[flavor]]
    subprocess.run(
        [
            *(find_uv_bin(), "run", "--quiet", "--no-project", "--isolated"),
            *("--python", sys.executable),
            *(word for name in wanted for word in ("--with", name)),
            *("python", str(SCRIPT), flavor, str(path)),
        ],
        check=True,
        cwd=path.parent,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{path.parent}/mlflow.db"},
    )


def proven(flavor: str, folder: Path) -> Golden:
    """Build the bento of a flavor's model, and let it answer."""
    path = folder / "model"
    save(flavor, path)
    models = [load_model(path)]
    # What runs code by design is told, and nothing else is.
    assert scan_models(models, policy="enforce").passed == (flavor not in WITH_CODE)
    bento = build_bento(models, folder / "bento")
    return golden_answers(bento, models)


@pytest.mark.slow
@pytest.mark.parametrize("flavor", PACKAGES)
def test_a_tiny_model_is_served_as_mlflow_predicts(flavor: str, tmp_path: Path) -> None:
    if flavor in LARGE and "KFP_BENTO_LARGE_FLAVORS" not in os.environ:
        pytest.skip("its packages take gigabytes: set KFP_BENTO_LARGE_FLAVORS=1")
    golden = proven(flavor, tmp_path)
    assert golden.verified == "on"
    assert golden.requests
    assert all(request.is_predicted for request in golden.requests), golden.reason


def test_every_flavor_of_the_table_has_a_model() -> None:
    assert PACKAGES.keys() == tiny_models.FLAVORS.keys()
    page = (ROOT / "docs/models.md").read_text()
    for flavor in PACKAGES:
        assert f"| `{flavor}` |" in page, flavor
