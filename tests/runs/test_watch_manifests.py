"""A watch as a Deployment: what Kubernetes takes, under restricted Pod Security."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from core_models import model_problems
from kfp_bento_command import assert_refused, kfp_bento_here
from pipelines_api import serve_pipelines

IMAGE = "registry.example.org/ml/runtime-python:0.1.0"
WATCHED = "tests.runs.watched_pipelines:serve"


def rendered(folder: Path, *more: str) -> dict[str, Any]:
    done = kfp_bento_here(
        *("watch", "models:/credit model@candidate", "--submit", WATCHED, "-n", "team"),
        *("--render", folder, "--image", IMAGE, "-p", "seconds=5", *more),
    )
    assert done.returncode == 0, done.stderr
    return {one["kind"]: one for one in map(yaml.safe_load, texts(folder))}


def texts(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("*.yaml"))]


def container(objects: dict[str, Any]) -> dict[str, Any]:
    (found,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_kubernetes_knows_every_field(tmp_path: Path) -> None:
    objects = rendered(tmp_path, "--listen", "0.0.0.0:8080")
    assert set(objects) == {"Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"}
    for one in objects.values():
        assert model_problems(one) == []
        assert one["metadata"]["namespace"] == "team"


def test_the_pod_is_restricted(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    assert "Service" not in objects
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container(objects)["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert {next(iter(one.keys() - {"name"})) for one in pod["volumes"]} == {
        *("emptyDir", "projected")
    }
    assert objects["Deployment"]["spec"]["replicas"] == 1
    assert pod["automountServiceAccountToken"] is False


def test_the_account_may_do_nothing_but_start_runs_and_look_at_them(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    (rule,) = objects["Role"]["rules"]
    assert rule == {
        "apiGroups": ["pipelines.kubeflow.org"],
        "resources": ["experiments", "runs"],
        "verbs": ["create", "get", "list"],
    }
    assert objects["RoleBinding"]["roleRef"]["name"] == objects["Role"]["metadata"]["name"]
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == objects["RoleBinding"]["subjects"][0]["name"]


def test_a_secret_is_named_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_WEBHOOK_SECRET", "a secret that nobody may read")
    monkeypatch.setenv("KFP_BENTO_KFP_TOKEN", "a token that nobody may read")
    objects = rendered(tmp_path, "--listen", "0.0.0.0:8080")
    assert "nobody may read" not in "".join(texts(tmp_path))
    named = {one["name"]: one.get("valueFrom") for one in container(objects)["env"]}
    secret = named["KFP_BENTO_WEBHOOK_SECRET"]["secretKeyRef"]
    assert secret == {"name": "kfp-bento-webhook", "key": "secret", "optional": False}


def test_the_pod_runs_the_command_that_was_given(tmp_path: Path, mlflow_server: str) -> None:
    with serve_pipelines() as pipelines:
        objects = rendered(tmp_path, "--host", pipelines.url)
        words = container(objects)["command"]
        assert words[:3] == ["python3", "-m", "kfp_bento.runtime.cli"]
        done = kfp_bento_here(*words[3:], "--once", MLFLOW_TRACKING_URI=mlflow_server)
    assert done.returncode == 1
    assert "There is no registered model 'credit model'" in done.stdout


def test_steps_of_a_shipped_pipeline_run_in_the_same_image(tmp_path: Path) -> None:
    done = kfp_bento_here(
        *("watch", "models:/credit@candidate", "-n", "team", "--render", tmp_path),
        *("--image", IMAGE, "-p", "image_destination=registry.example.org/ml/credit"),
        *("-p", "promote_alias=prod"),
    )
    assert done.returncode == 0, done.stderr
    (deployment,) = (one for one in texts(tmp_path) if "kind: Deployment" in one)
    assert f"runtime_image={IMAGE}" in deployment


def test_without_an_image_nothing_is_written(tmp_path: Path) -> None:
    words = ["watch", "models:/a@b", "--submit", WATCHED, "--render", str(tmp_path / "new")]
    assert_refused(kfp_bento_here(*words, "-n", "team"), "--image is missing")
    assert_refused(kfp_bento_here(*words, "--image", IMAGE), "--namespace is missing")
    assert not (tmp_path / "new").exists()
