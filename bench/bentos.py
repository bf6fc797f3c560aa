"""The bentos that both sides build: one service, with a small and with a large model."""

from __future__ import annotations

import functools
import logging
import os
import random
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

BASE_NAME = "localhost/python:3.11"
"""What the bentos call their base image; the peer finds it in its own storage."""

_REQUIREMENTS = ("cloudpickle", "mlflow-skinny", "numpy", "pandas", "scikit-learn")
_EXTRA_WHEEL = "humanize"
_MIB = 1 << 20
KFP_BENTO = (sys.executable, "-m", "kfp_bento.runtime.cli")
# What the pods of one team share, by which they know each other's records again.
TEAM = {"KFP_BENTO_RECORD_KEY": "the pods that are measured share this key"}


@dataclass(frozen=True)
class _Recipe:
    """How one bento differs from the others.

    Attributes:
        name: The bento's name.
        regularization: The classifier's C: another number is another model.
        weights: Which large file lies beside the classifier; 0 for none.
        changed_source: Whether the service has one more line.
        extra_wheel: Whether it needs one package more.
    """

    name: str = "bench"
    regularization: float = 1.0
    weights: int = 0
    changed_source: bool = False
    extra_wheel: bool = False


_RECIPES = {
    "small": _Recipe(),
    "small-other": _Recipe(name="other", regularization=0.5),
    "small-source": _Recipe(changed_source=True),
    "small-wheel": _Recipe(extra_wheel=True),
    "large": _Recipe(weights=1),
    "large-source": _Recipe(weights=1, changed_source=True),
    "large-model": _Recipe(weights=2),
}


class Bentos:
    """Bento directories by key, each made by `kfp-bento bento build` when it is first asked for.

    Args:
        directory: Where bentos and models go.
        weights: Where files of random bytes are kept from run to run.
        mebibytes: Size of the large models.
    """

    def __init__(self, directory: Path, weights: Path, mebibytes: int) -> None:
        self._directory, self._weights = directory, weights
        self.model_bytes = mebibytes * _MIB

    @functools.cache  # noqa: B019 - there is one of these, and it lives as long as the process
    def path(self, key: str) -> Path:
        """Give the directory of a bento."""
        recipe = _RECIPES[key]
        bento = self._directory / key
        options = ["--name", recipe.name]
        if recipe.extra_wheel:
            options += ["--requirement", _EXTRA_WHEEL]
        if recipe.changed_source:
            options += ["--service", str(self._changed_source(key.partition("-")[0]))]
        command = [*KFP_BENTO, "bento", "build", str(self._model(recipe)), "--no-verify"]
        command += ["--to", str(bento)]
        done = subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **TEAM},
        )
        if done.returncode:
            raise SystemExit(f"The bento {key} cannot be built:\n{done.stderr.strip()}")
        _name_the_base(bento / "bento.yaml")
        return bento

    def requirements(self, key: str) -> Path:
        """Give the locked list of what a bento installs."""
        return self.path(key) / "env" / "python" / "requirements.txt"

    def example(self, key: str) -> Path:
        """Give the body of a request that its model's input example is."""
        return self._model(_RECIPES[key]) / "serving_input_example.json"

    def _changed_source(self, key: str) -> Path:
        changed = self._directory / f"{key}-source-files"
        shutil.copytree(self.path(key) / "src", changed)
        with (changed / "service.py").open("a") as service:
            service.write("# One line more.\n")
        return changed

    @functools.cache  # noqa: B019
    def _model(self, recipe: _Recipe) -> Path:
        """Give an MLflow model; its directory's name is the model's."""
        place = self._directory / "models" / f"{recipe.regularization}-{recipe.weights}" / "wine"
        if not place.exists():
            _save_model(place, recipe.regularization)
            if recipe.weights:
                os.link(self._random_file(recipe.weights), place / "weights.bin")
        return place

    def _random_file(self, seed: int) -> Path:
        file = self._weights / f"{seed}-{self.model_bytes}.bin"
        if not file.exists():
            self._weights.mkdir(parents=True, exist_ok=True)
            partial, source = file.with_suffix(".partial"), random.Random(seed)
            with partial.open("wb") as target:
                for _ in range(self.model_bytes // _MIB):
                    target.write(source.randbytes(_MIB))
            partial.rename(file)
        return file


def _save_model(place: Path, regularization: float) -> None:
    import mlflow
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    features, cultivar = load_wine(return_X_y=True, as_frame=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=regularization, max_iter=5000).fit(features, cultivar)
        mlflow.sklearn.save_model(
            model,
            place,
            signature=mlflow.models.infer_signature(features, model.predict(features)),
            input_example=features.head(3),
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
            serialization_format="cloudpickle",
        )


def _name_the_base(bento_yaml: Path) -> None:
    """Put the benchmark's base image in, and the packages that only a Dockerfile installs out.

    Both sides would otherwise not do the same work: ours leaves out BentoML's default packages
    (a compiler, git), which no wheel needs. Variables are named once, because a bento of a user's
    own source names them twice: its Dockerfile would differ in more than the source, and the peer
    would find none of its layers.
    """
    facts = yaml.safe_load(bento_yaml.read_text())
    facts["image"] |= {"base_image": BASE_NAME, "commands": []}
    facts["envs"] = list({variable["name"]: variable for variable in facts["envs"]}.values())
    bento_yaml.unlink()
    bento_yaml.write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))
