"""Models that bring code of one name never run each other's: such a bento is refused."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import mlflow.pyfunc
import pandas as pd
import pytest

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.bentos.model_code import check_model_code
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.models import load_model, own_modules

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.models import ModelVersion

MODEL = """
import mlflow
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        from prep_features import scale
        return [scale(value) for value in model_input["x"]]
mlflow.models.set_model(Model())
"""


def save(
    place: Path, factor: int, *, package: bool = False, needs: str = "", inner: Path | None = None
) -> ModelVersion:
    place.mkdir()
    (place / "model.py").write_text(MODEL)
    module = place / "prep_features" / "__init__.py" if package else place / "prep_features.py"
    module.parent.mkdir(exist_ok=True)
    module.write_text(f"def scale(x):\n    return {factor} * x\n")
    mlflow.pyfunc.save_model(
        place / "saved",
        python_model=str(place / "model.py"),
        code_paths=[str(module.parent if package else module)],
        pip_requirements=["mlflow", *([needs] if needs else [])],
        artifacts={"inner": str(inner)} if inner else None,
    )
    return load_model(place / "saved")


def test_two_models_with_different_modules_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [save(tmp_path / "first", 1), save(tmp_path / "second", 100)]
    monkeypatch.setattr(sys, "path", [*sys.path])
    row = pd.DataFrame({"x": [1.0]})
    mixed = [mlflow.pyfunc.load_model(str(model.directory)).predict(row) for model in models]
    del sys.modules["prep_features"]
    assert mixed == [[1.0], [1.0]]  # of MLflow alone, in one interpreter: should be 1 and 100

    with pytest.raises(BentoError, match="saved and saved both bring code called 'prep_fea"):
        build_bento(models, tmp_path / "bento")
    assert not (tmp_path / "bento").exists()


def test_a_package_and_a_module_of_one_name_are_refused(tmp_path: Path) -> None:
    models = [save(tmp_path / "first", 1), save(tmp_path / "second", 1, package=True)]
    with pytest.raises(BentoError, match="'prep_features'") as caught:
        check_model_code(models)
    assert "Build a bento for each" in caught.value.hint


def test_equal_modules_are_fine_whatever_python_left_beside_them(tmp_path: Path) -> None:
    models = [save(tmp_path / "first", 7, package=True), save(tmp_path / "second", 7, package=True)]
    cache = models[1].directory / "code" / "prep_features" / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"compiled")
    check_model_code(models)
    check_model_code(models[:1])


def test_a_module_hides_no_package_that_another_model_requires(tmp_path: Path) -> None:
    first = save(tmp_path / "first", 1)
    second = save(tmp_path / "second", 1, needs="prep.features==2.0")
    shutil.rmtree(second.directory / "code")
    for models in ([first, second], [second, first]):
        with pytest.raises(BentoError, match="the first brings it, the second requires it"):
            check_model_code(models)


def test_the_code_of_a_model_inside_a_model_counts(tmp_path: Path) -> None:
    inner = save(tmp_path / "inner", 3)
    outer = save(tmp_path / "outer", 3, inner=inner.directory)
    shutil.rmtree(outer.directory / "code")
    assert list(own_modules(outer.directory)) == ["prep_features"]
    with pytest.raises(BentoError, match="both bring code"):
        check_model_code([outer, save(tmp_path / "other", 4)])


def test_data_beside_the_code_is_no_module(tmp_path: Path) -> None:
    model = save(tmp_path / "first", 1)
    (model.directory / "code" / "table.csv").write_text("1,2\n")
    (model.directory / "code" / "native.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    assert list(own_modules(model.directory)) == ["native", "prep_features"]
