"""kfp-bento install: one command before the first run on a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from kfp_bento_command import assert_refused, kfp_bento, kfp_bento_here
from pipelines_api import serve_pipelines

WORDS = ("install", "-n", "models", "--registry")


def test_a_dry_run_prints_the_role_and_makes_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    done = kfp_bento_here(
        *(*WORDS, "registry.example.com/ml", "-t", "workload", "-t", "inference-service"),
        *("--to", made, "--training", "--dry-run"),
        KF_PIPELINES_ENDPOINT="",
    )
    assert done.returncode == 0, done.stderr
    roles = [one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "Role"]
    assert [one["metadata"]["name"] for one in roles] == [
        "kfp-bento-deployer-workload",
        "kfp-bento-deployer-inference-service",
    ]
    assert "registry.example.com/ml/runtime-python:0.1.0" in done.stderr
    assert "registry.example.com/ml/training-python:0.1.0" in done.stderr
    assert not made.exists()


@pytest.mark.parametrize("registry", ["oci:build/image", "https://registry.example.com"])
def test_what_no_cluster_pulls_from_is_refused(registry: str) -> None:
    done = kfp_bento_here(*WORDS, registry, "--dry-run", KF_PIPELINES_ENDPOINT="")
    assert_refused(done, "is no registry that a cluster pulls from")


@pytest.mark.slow  # it packs the image of the steps
def test_the_image_is_pushed_and_named_in_all_that_is_uploaded(
    tmp_path: Path, oci_registry: str
) -> None:
    with serve_pipelines() as server:
        words = (
            *WORDS,
            f"{oci_registry}/ml",
            "--base",
            "host",
            "--to",
            tmp_path / "made",
            "--json",
        )
        first = kfp_bento(*words, "--host", server.url)
        assert first.returncode == 0, first.stderr
        told = json.loads(first.stdout)
        image = told["images"]["runtime"]
        assert image.startswith(f"{oci_registry}/ml/runtime-python@sha256:")
        names = {one["display_name"] for one in server.pipelines}
        assert set(told["pipelines"]) == names
        assert "serve-model" in names and len(names) == 9
        assert all(image in one["package"] for one in server.pipelines)
        # The same again: the same bytes, so nothing is sent.
        again = kfp_bento(*words, "--host", server.url)
        assert json.loads(again.stdout) == told
        assert (len(server.pipelines), server.pipeline_versions) == (9, [])
    (specification, _) = yaml.safe_load_all((tmp_path / "made/serve_model.yaml").read_text())
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    assert parameters["runtime_image"]["defaultValue"] == image
    assert "kfp-bento-deployer-workload" in (tmp_path / "made/role.yaml").read_text()
