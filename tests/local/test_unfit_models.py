"""A model that cannot be served stops the road at its second step, quickly and in one sentence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.models import infer_signature

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import run_pipeline

UNLOADABLE = """\
import mlflow
import no_such_package


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return no_such_package.score(model_input)


mlflow.models.set_model(Model())
"""
LIMIT_SECONDS = 60


def logged(folder: Path, name: str, **options: Any) -> str:
    """A version whose code needs a package that nobody mentioned."""
    package = folder / "no_such_package.py"
    package.write_text("def score(values):\n    return [0.0] * len(values)\n")
    (folder / "model.py").write_text(UNLOADABLE)
    with pytest.MonkeyPatch.context() as patch, mlflow.start_run():
        patch.syspath_prepend(str(folder))
        import pandas

        data = pandas.DataFrame({"a": [1.0, 2.0]})
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(folder / "model.py"),
            registered_model_name=name,
            signature=infer_signature(data, [0.0, 0.0]),
            input_example=data,
            pip_requirements=[f"mlflow=={mlflow.__version__}", "pandas"],
            **options,
        )
    package.unlink()
    return f"models:/{name}/1"


@pytest.mark.slow
def test_a_model_that_cannot_load_fails_in_build_bento_within_a_minute(
    mlflow_server: str, tmp_path: Path
) -> None:
    arguments = {
        "model_uris": [logged(tmp_path, "unloadable")],
        "tracking_uri": mlflow_server,
        "image_base": "host",
        "image_destination": f"oci:{tmp_path}/image",
        "promote_alias": "live",
    }
    began = time.monotonic()
    with pytest.raises(LocalRunError) as failure:
        run_pipeline("serve_model", arguments, tmp_path / "run")
    assert failure.value.message == (
        "Step build-bento failed: The model models:/unloadable/1 cannot be loaded in the "
        "environment that is locked for it: the package of the module 'no_such_package' is not in "
        "the lock."
    )
    assert "verify off" in failure.value.hint
    assert time.monotonic() - began < LIMIT_SECONDS
    assert not (tmp_path / "image").exists()
