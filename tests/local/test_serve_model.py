"""The compiled serve_model pipeline, unchanged, with a real MLflow server and OCI registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from wine import log_wine_model

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import ADDRESS_VARIABLE, local_target, run_pipeline
from kfp_bento.runtime.local.runs import Run
from kfp_bento.runtime.local.target import LocalTarget
from kfp_bento.runtime.models import ModelVersion

COMPILED = Path(__file__).parents[2] / "pipelines" / "compiled" / "serve_model.yaml"

# The demo goes the same road in `make test`.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[LocalTarget]:
    with local_target(tmp_path_factory.mktemp("target"), cache=shared_cache) as target:
        yield target


@pytest.fixture(scope="module")
def environment(target: LocalTarget, shared_cache: Path) -> dict[str, str]:
    return {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}


def serve_model(
    model_uris: list[str],
    tracking_uri: str,
    registry: str,
    environment: dict[str, str],
    directory: Path,
) -> Run:
    return run_pipeline(
        str(COMPILED),
        {
            "model_uris": model_uris,
            "tracking_uri": tracking_uri,
            "image_base": "host",
            "image_destination": f"{registry}/ml/served-wine",
            "promote_alias": "live",
        },
        directory,
        environment=environment,
    )


@pytest.fixture(scope="module")
def run(
    mlflow_server: str,
    oci_registry: str,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    log_wine_model("served wine")
    uris = ["models:/served wine/1"]
    return serve_model(
        uris, mlflow_server, oci_registry, environment, tmp_path_factory.mktemp("run")
    )


def test_every_step_ran_once_in_the_order_of_the_road(run: Run) -> None:
    assert list(run.seconds) == [
        "resolve-models",
        "pull-model",
        "scan-model",
        "build-bento",
        "build-image",
        "deploy-bento",
        "check-release",
        "promote-model",
        "settle-run",
    ]


def test_the_scan_finds_nothing_in_a_plain_model(run: Run) -> None:
    report = run.record("scan-model", "report")
    assert (report["passed"], report["evidence"]) == (True, [])
    (smoke, _) = run.record("check-release", "reports")["reports"]
    assert report["model_digests"] == smoke["model_digests"]


def test_the_release_goes_on_serving_after_the_pipeline(run: Run, target: LocalTarget) -> None:
    with urllib.request.urlopen(f"{target.services[-1].url}/readyz", timeout=10) as answer:
        assert answer.status == 200
    assert run.record("deploy-bento", "release")["url"] == target.services[-1].url


def test_the_image_is_what_serves_where_podman_is_usable(
    run: Run, target: LocalTarget, podman: list[str]
) -> None:
    assert target.services[-1].runtime == "podman", target.services[-1].note


def test_the_registry_holds_the_image_by_digest_and_by_tag(run: Run) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    image = run.record("build-image")
    for name in (image["reference"], f"{image['repository']}:{image['tags'][0]}"):
        inspected = subprocess.run(
            [skopeo, "inspect", "--tls-verify=false", f"docker://{name}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(inspected.stdout)["Digest"] == image["digest"]


def test_the_alias_is_moved_and_the_version_tells_its_history(run: Run) -> None:
    from mlflow import MlflowClient

    version = MlflowClient().get_model_version_by_alias("served wine", "live")
    assert version.version == "1"
    promoted = run.record("promote-model")
    page = run.output("promote-model", "page").read_text()
    assert "The alias live" in page
    assert (
        run.record("build-image")["reference"] in version.tags[promoted["models"][0]["history_tag"]]
    )


def test_a_release_that_cannot_be_checked_is_not_promoted(
    run: Run,
    wine_model: ModelVersion,
    mlflow_server: str,
    oci_registry: str,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    log_wine_model("served wine")
    arguments = {
        "model_uris": ["models:/served wine/2"],
        "tracking_uri": mlflow_server,
        "image_base": "host",
        "image_destination": f"{oci_registry}/ml/served-wine",
        "promote_alias": "live",
        "deploy_mode": "render",
        "bento_verify": False,
    }
    with pytest.raises(LocalRunError, match=r"Step check-release failed: .*render"):
        run_pipeline("serve_model", arguments, tmp_path, environment=environment)
    assert MlflowClient().get_model_version_by_alias("served wine", "live").version == "1"


def test_the_same_road_ends_at_a_plain_deployment(
    wine_model: ModelVersion,
    mlflow_server: str,
    target: LocalTarget,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    arguments = {
        "model_uris": ["models:/wine/1"],
        "tracking_uri": mlflow_server,
        "image_base": "host",
        "image_destination": f"oci:{tmp_path}/image",
        "promote_alias": "plain",
        "deploy_target": "workload",
        "deploy_options": {"termination_seconds": 30},
    }
    run = run_pipeline("serve_model", arguments, tmp_path, environment=environment)
    assert run.record("deploy-bento", "release")["url"] == target.services[-1].url
    manifest = (run.output("deploy-bento", "manifests") / "deployment-wine.yaml").read_text()
    assert "terminationGracePeriodSeconds: 30\n" in manifest
    assert "/predict" in run.output("deploy-bento", "summary").read_text()
    assert run.record("promote-model")["alias"] == "plain"


DECISION = """\
import bentoml
import mlflow.pyfunc
import pandas


@bentoml.service
class Decision:
    first = bentoml.models.BentoModel("wine:latest")
    second = bentoml.models.BentoModel("second-opinion:latest")

    def __init__(self):
        self.asked = [mlflow.pyfunc.load_model(one.path) for one in (self.first, self.second)]

    @bentoml.api
    def decide(self, wine: dict[str, float]) -> dict[str, int]:
        first, second = (int(one.predict(pandas.DataFrame([wine]))[0]) for one in self.asked)
        return {"first": first, "second": second}
"""


def test_a_service_of_ones_own_asks_two_models_that_are_promoted_together(
    wine_model: ModelVersion,
    mlflow_server: str,
    target: LocalTarget,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient
    from sklearn.datasets import load_wine

    log_wine_model("second opinion", metadata={"trained": "otherwise"})
    wine = load_wine(as_frame=True).data.iloc[0].to_dict()
    run = run_pipeline(
        "serve_model",
        {
            "model_uris": ["models:/wine@champion", "second-opinion=models:/second opinion/1"],
            "bento_service": DECISION,
            "bento_requests": [{"path": "/decide", "body": {"wine": wine}}],
            "image_destination": f"oci:{tmp_path}/image",
            "promote_alias": "together",
            "image_base": "host",
            "deploy_target": "workload",
            "tracking_uri": mlflow_server,
        },
        tmp_path / "run",
        environment=environment,
    )
    served = target.services[-1].url
    body = json.dumps({"wine": wine}).encode()
    asked = urllib.request.Request(
        f"{served}/decide", body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert json.load(answer) == {"first": 0, "second": 0}
    assert len(run.record("scan-model", "report")["model_digests"]) == 2
    (_, replay) = run.record("check-release", "reports")["reports"]
    assert len(replay["model_digests"]) == 2
    assert [one["name"] for one in run.record("promote-model")["models"]] == [
        *("second opinion", "wine")
    ]
    for name in ("wine", "second opinion"):
        assert MlflowClient().get_model_version_by_alias(name, "together").version == "1"
