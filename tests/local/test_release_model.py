"""The short road: models to a promoted release in three steps, and what is left of a refusal."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import kfp_bento
from wine import log_wine_model

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import ADDRESS_VARIABLE, local_target, run_pipeline, run_summary

COMPILED = Path(__file__).parents[2] / "pipelines" / "compiled"

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module", autouse=True)
def wine(mlflow_server: str) -> str:
    """The tracking server, with version 1 of a model of this module's own."""
    log_wine_model("released wine")
    return mlflow_server


def asked(registry: str, tracking_uri: str, **more: Any) -> dict[str, Any]:
    return {
        "model_uris": ["models:/released wine/1"],
        "tracking_uri": tracking_uri,
        "image_base": "host",
        "image_destination": f"{registry}/ml/released-wine",
        "promote_alias": "short",
        **more,
    }


def weight(folder: Path) -> int:
    """Bytes of what a step has left, where it is a folder or a file."""
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


@pytest.mark.slow
def test_three_steps_take_a_version_to_a_promoted_release(
    wine: str, oci_registry: str, shared_cache: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    with local_target(tmp_path / "target", cache=shared_cache) as target:
        environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}
        run = run_pipeline(
            str(COMPILED / "release_model.yaml"),
            asked(oci_registry, wine),
            tmp_path / "run",
            environment=environment,
        )
        with urllib.request.urlopen(f"{target.services[-1].url}/readyz", timeout=10) as answer:
            assert answer.status == 200
        assert list(run.seconds) == ["package-model", "deploy-bento", "check-and-promote"]
        assert MlflowClient().get_model_version_by_alias("released wine", "short").version == "1"
        summary = run_summary(run, target.services[-1], run.seconds)
    assert summary["image"]["digest"] == run.record("package-model")["digest"]
    assert [model["version"] for model in summary["models"]] == ["1"]
    assert [one["name"] for one in summary["checks"]] == ["smoke_test", "compare_predictions"]
    assert summary["promoted"]["alias"] == "short"
    assert summary["bento"]["verified"] == "on"
    assert "released wine" in run.output("check-and-promote", "page").read_text()
    # No file of the model is handed on: neither from step to step nor to object storage.
    handed = ("models", "bento", "golden", "record", "scan", "sbom", "provenance")
    assert sum(weight(run.output("package-model", name)) for name in handed) < 2 << 20
    pickles = list(run.directory.rglob("*.pkl"))
    assert pickles == []


@pytest.mark.slow
@pytest.mark.parametrize("registry", [False, True])
def test_without_an_engine_the_bento_out_of_the_image_is_served(
    wine: str, oci_registry: str, shared_cache: Path, tmp_path: Path, registry: bool
) -> None:
    where = f"{oci_registry}/ml/engineless" if registry else f"oci:{tmp_path}/image"
    variables = {"KFP_BENTO_CACHE": str(shared_cache), "KFP_BENTO_LOCAL_RUNTIME": "process"}
    done = kfp_bento(
        *("release", "make", "models:/released wine/1", "--to", where, "--base", "host"),
        *("--promote", "alone", "--tracking-uri", wine, "--json"),
        *("--outputs", tmp_path / "run"),
        **variables,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run/summary.json").read_text())
    assert (told["release"]["runtime"], told["promoted"]["alias"]) == ("process", "alone")


@pytest.mark.slow
def test_the_long_road_gives_the_same_image(
    wine: str, oci_registry: str, shared_cache: Path, tmp_path: Path
) -> None:
    images = []
    for name, step in (("serve_model", "build-image"), ("release_model", "package-model")):
        with local_target(tmp_path / f"{name}-target", cache=shared_cache) as target:
            environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}
            given = asked(oci_registry, wine, image_destination=f"{oci_registry}/{name}/wine")
            run = run_pipeline(
                str(COMPILED / f"{name}.yaml"),
                given,
                tmp_path / name,
                environment=environment,
            )
            images.append(run.record(step))
    long, short = images
    assert long["digest"] == short["digest"]
    assert [one["digest"] for one in long["layers"]] == [one["digest"] for one in short["layers"]]


@pytest.mark.slow
def test_a_refused_promotion_leaves_its_reports_and_fails_the_run(
    wine: str, oci_registry: str, shared_cache: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    with local_target(tmp_path / "target", cache=shared_cache) as target:
        environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}
        with pytest.raises(LocalRunError, match="load"):
            run_pipeline(
                str(COMPILED / "release_model.yaml"),
                asked(
                    oci_registry,
                    wine,
                    promote_alias="refused",
                    required_checks=["smoke", "replay", "load"],
                ),
                tmp_path / "run",
                environment=environment,
            )
        (found,) = tmp_path.glob("run/**/check-and-promote/reports")
    assert '"promotion"' in found.read_text()
    assert "refused" not in MlflowClient().get_registered_model("released wine").aliases


@pytest.mark.slow
def test_what_the_scan_refuses_is_said_by_the_step_that_would_deploy(
    wine: str, oci_registry: str, shared_cache: Path, tmp_path: Path
) -> None:
    import mlflow

    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "surprise.py").write_text("import os\n")
    info = log_wine_model("scanned wine", code_paths=[str(folder)])
    assert info is not None and mlflow.get_tracking_uri() == wine
    with local_target(tmp_path / "target", cache=shared_cache) as target:
        environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}
        with pytest.raises(LocalRunError, match="the scan refused the models"):
            run_pipeline(
                str(COMPILED / "release_model.yaml"),
                asked(
                    oci_registry,
                    wine,
                    model_uris=["models:/scanned wine/1"],
                    scan_policy="enforce",
                ),
                tmp_path / "run",
                environment=environment,
            )
    (found,) = tmp_path.glob("run/**/package-model/scan")
    assert '"passed": false' in found.read_text()
    shutil.rmtree(folder)
