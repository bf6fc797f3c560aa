"""The components' own image: built by this builder, and a component really runs in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from containers import run

from kfp_bento.runtime.images import ImageOptions, pack_image
from kfp_bento.runtime.models import ModelVersion

if TYPE_CHECKING:
    from kfp_bento.runtime.images import Image

pytestmark = pytest.mark.slow  # it holds all that the components need

ROOT = Path(__file__).parents[2]
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own wheel, as `kfp-bento install` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    wanted = ("command", "components", "pipelines", "runtime")
    for name in wanted:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", folder]
    done = subprocess.run(
        [*command, source],
        env={**os.environ, "SOURCE_DATE_EPOCH": "315532800"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip(f"no build tools can be fetched: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return packed("runtime", wheel, tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def training_image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return packed("training", wheel, tmp_path_factory.mktemp("training"))


def packed(extra: str, wheel: Path, folder: Path) -> Image:
    """As `kfp-bento install` does."""
    return pack_image(
        ROOT / f"runtime/installation/requirements-{extra}.txt",
        f"oci:{folder}/image",
        ImageOptions(base="host"),
        name=f"{extra}-python",
        version="0",
        python=MINOR,
        wheels=[wheel],
        built_here=["kfp-server-api"],
    )


def as_kubeflow_runs_it(
    podman: list[str], image: Image, name: str, outputs: Path, **parameters: Any
) -> dict[str, Any]:
    """Run a component in an image as the launcher of Kubeflow Pipelines does; gives its outputs."""
    (specification,) = yaml.safe_load_all((ROOT / f"components/{name}/component.yaml").read_text())
    (executor,) = specification["deploymentSpec"]["executors"].values()
    (component,) = (one for one in specification["components"].values() if "executorLabel" in one)
    outputs.mkdir(exist_ok=True)
    outputs.chmod(0o777)
    wanted = component.get("outputDefinitions", {})
    artifacts = {
        key: {"artifacts": [artifact(key, one["artifactType"]["schemaTitle"], outputs)]}
        for key, one in wanted.get("artifacts", {}).items()
    }
    given = {
        "inputs": {"parameterValues": parameters},
        "outputs": {
            "parameters": {
                key: {"outputFile": f"{outputs}/{key}"} for key in wanted.get("parameters", {})
            },
            "artifacts": artifacts,
            "outputFile": f"{outputs}/executor_output.json",
        },
    }
    options = ["--rm", "--user", "1000680000:0", "--cap-drop", "ALL"]
    options += ["--security-opt", "no-new-privileges", "--volume", f"{outputs}:{outputs}"]
    shell, *rest = executor["container"]["command"]
    arguments = [text.replace("{{$}}", json.dumps(given)) for text in executor["container"]["args"]]
    run(podman, *options, f"{image.location}:0", shell, *rest, *arguments)
    found: dict[str, Any] = json.loads((outputs / "executor_output.json").read_text())
    return found


def artifact(name: str, kind: str, outputs: Path) -> dict[str, Any]:
    shown = {"schemaTitle": kind, "schemaVersion": "0.0.1"}
    return {"name": name, "type": shown, "uri": f"{outputs}/{name}", "metadata": {}}


def test_a_component_runs_in_it_as_kubeflow_runs_it(
    podman: list[str], image: Image, wine_model: ModelVersion, mlflow_server: str, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    result = as_kubeflow_runs_it(
        *(podman, image, "pull_model", outputs),
        model_uris=["models:/wine@champion"],
        tracking_uri=mlflow_server,
    )
    assert result["parameterValues"] == {"versions": {"wine": "1"}}
    (models,) = result["artifacts"]["models"]["artifacts"]
    assert models["metadata"]["models"][0]["digest"] == wine_model.digest
    assert (outputs / "models/wine/MLmodel").is_file()


@pytest.mark.parametrize(
    "trainer", ["train_wine_model", "train_sklearn", "train_xgboost", "train_lightgbm"]
)
def test_every_trainer_runs_in_the_image_that_is_made_for_it(
    podman: list[str], training_image: Image, mlflow_server: str, tmp_path: Path, trainer: str
) -> None:
    given: dict[str, Any] = {}
    if trainer != "train_wine_model":
        rows = "".join(f"{n % 17},{n * 7 % 23},{int(n % 17 > 8)}\n" for n in range(300))
        table = tmp_path / "outputs/table.csv"
        table.parent.mkdir()
        table.write_text(f"a,b,label\n{rows}")
        given = {"data": table.as_uri(), "label": "label"}
    result = as_kubeflow_runs_it(
        *(podman, training_image, trainer, tmp_path / "outputs"),
        model_name=trainer,
        tracking_uri=mlflow_server,
        **given,
    )
    assert result["parameterValues"] == {"Output": f"models:/{trainer}/1"}


def test_it_has_what_a_step_needs_and_no_service(podman: list[str], image: Image) -> None:
    probe = (
        "import bentoml, boto3, kfp, kubernetes, mlflow, os, sys, uv; "
        "import kfp_bento.components, kfp_bento.runtime.images; "
        "print(sys.prefix, os.getuid(), os.environ['HOME'], uv.find_uv_bin())"
    )
    done = run(podman, "--rm", f"{image.location}:0", "python3", "-c", probe)
    assert done.stdout.split() == ["/app/.venv", "1034", "/tmp", "/app/.venv/bin/uv"]


def test_a_base_is_made_of_it_where_no_registry_has_one(
    podman: list[str], image: Image, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir(mode=0o777)
    (tmp_path / "made").chmod(0o777)
    options = ["--rm", "--user", "1000680000:0", "--cap-drop", "ALL"]
    options += ["--volume", f"{tmp_path}/made:/made", f"{image.location}:0"]
    run(podman, *options, "kfp-bento", "image", "copy", "host", "oci:/made/base")
    probe = f"oci:{tmp_path}/made/base:{MINOR}"
    code = "import sqlite3, ssl, sys; print(sys.version_info[:2])"
    done = run(podman, "--rm", probe, f"python{MINOR}", "-c", code)
    assert done.stdout.strip() == str(sys.version_info[:2])


IMPORTED = """
import ast, importlib.util, pathlib, kfp_bento.runtime as ours
root = pathlib.Path(ours.__file__).parents[1]
for file in [*root.glob("runtime/**/*.py"), *root.glob("components/*/component.py")]:
    for node in ast.walk(ast.parse(file.read_text())):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in (name.partition(".")[0] for name in names):
            if importlib.util.find_spec(name) is None and not name.startswith("pyfunc_"):
                print(file.relative_to(root), name)
"""
ELSEWHERE = (
    # They run in the environment of a bento, or in the image of trainers.
    *("runtime/bentos/pyfunc_", "runtime/proof/predict_with_mlflow.py"),
    *("runtime/training/", "components/train_"),
)


def test_every_step_finds_in_it_all_that_it_may_ever_import(
    podman: list[str], image: Image
) -> None:
    done = run(podman, "--rm", f"{image.location}:0", "python3", "-c", IMPORTED)
    missing = [line for line in done.stdout.splitlines() if not line.startswith(ELSEWHERE)]
    assert missing == []
    assert "runtime/training/estimators.py sklearn" in done.stdout.splitlines()


def test_own_wheels_lie_in_a_layer_on_top(image: Image, wheel: Path) -> None:
    kinds = [layer.kind for layer in image.layers]
    assert set(kinds[1:]) == {"dependencies"} and kinds[0] == "base" and len(kinds) > 20
    assert image.layers[-2].title.startswith("environment (")
    assert image.layers[-1].title.startswith("wheels: ")
