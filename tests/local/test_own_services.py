"""Services of one's own on the whole road: with a model and promoted, and without any model."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wine import log_wine_model

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import ADDRESS_VARIABLE, local_target, run_pipeline
from kfp_bento.runtime.local.runs import Run
from kfp_bento.runtime.local.target import LocalTarget

pytestmark = pytest.mark.timeout(900)

# A picture of one red point.
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
AROUND_THE_MODEL = """
    import bentoml

    with bentoml.importing():
        import mlflow.pyfunc
        import pandas

    @bentoml.service
    class Sommelier:
        wine = bentoml.models.BentoModel("cellar:latest")

        def __init__(self) -> None:
            self.model = mlflow.pyfunc.load_model(self.wine.path)

        @bentoml.api
        def taste(self, rows: list[dict[str, float]]) -> dict[str, list[int]]:
            return {"classes": self.model.predict(pandas.DataFrame(rows)).tolist()}
"""
PICTURES = """
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

Picture = Annotated[Path, ContentType("image/png")]


@bentoml.service
class Pictures:
    @bentoml.api
    def measure(self, image: Picture, threshold: float) -> dict[str, float]:
        content = image.read_bytes()
        width, height = content[16:20], content[20:24]
        return {
            "width": int.from_bytes(width, "big"),
            "height": int.from_bytes(height, "big"),
            "threshold": threshold,
        }

    @bentoml.api
    def render(self, image: Picture) -> Picture:
        return image
"""
REQUESTS = """\
- path: /measure
  multipart: {image: {file: pictures/point.png}, threshold: 0.5}
- path: /render
  label: a picture comes back
  multipart: {image: {file: pictures/point.png}}
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[LocalTarget]:
    with local_target(tmp_path_factory.mktemp("target"), cache=shared_cache) as target:
        yield target


def run(name: str, target: LocalTarget, directory: Path, **arguments: Any) -> Run:
    environment = {
        ADDRESS_VARIABLE: target.address,
        "KFP_BENTO_CACHE": str(target.cache),
    }
    both = {"image_base": "host", "image_destination": f"oci:{directory}/image"}
    return run_pipeline(name, {**both, **arguments}, directory, environment=environment)


@pytest.mark.slow  # a whole road; test_service_doors has such a cell
def test_a_cell_of_a_notebook_around_a_model_is_served_and_promoted(
    mlflow_server: str, target: LocalTarget, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    columns = log_wine_model("cellar").signature.inputs.input_names()
    done = run(
        "serve_model",
        target,
        tmp_path,
        model_uris=["models:/cellar/1"],
        tracking_uri=mlflow_server,
        promote_alias="live",
        bento_service=AROUND_THE_MODEL,
        bento_requests=[{"path": "/taste", "body": {"rows": [dict.fromkeys(columns, 1.5)]}}],
        bento_options={"envs": {"MODE": "tasting"}, "labels": {"team": "wine"}},
    )
    (_, compared) = done.record("check-release", "reports")["reports"]
    assert compared["passed"]
    assert "what the bento sommelier:" in compared["summary"]
    assert MlflowClient().get_model_version_by_alias("cellar", "live").version == "1"


@pytest.fixture
def requests(tmp_path: Path) -> str:
    (tmp_path / "asked/pictures").mkdir(parents=True)
    (tmp_path / "asked/pictures/point.png").write_bytes(PICTURE)
    (tmp_path / "asked/requests.yaml").write_text(REQUESTS)
    return str(tmp_path / "asked/requests.yaml")


@pytest.mark.slow  # test_whole_roads has such a service, on a cluster
def test_a_service_without_a_model_is_asked_pictures_and_answers_them(
    requests: str, target: LocalTarget, tmp_path: Path
) -> None:
    done = run(
        "serve_service",
        target,
        tmp_path / "run",
        bento_service=PICTURES,
        bento_requests=[requests, {"path": "/livez"}],
        deploy_target="workload",
    )
    assert list(done.seconds) == [
        "build-bento",
        "build-image",
        "deploy-bento",
        "check-release",
        "confirm-release",
        "settle-run",
    ]
    smoke, compared = done.record("check-release", "reports")["reports"]
    assert smoke["passed"]
    assert compared["passed"], compared["summary"]
    assert compared["measures"]["requests"] == 3
    assert compared["model_digests"] == []
    golden = done.record("build-bento", "golden")["requests"]
    assert golden[0]["answer"]["body"]["json"] == {"width": 1, "height": 1, "threshold": 0.5}
    assert golden[1]["answer"]["body"]["base64"] == base64.b64encode(PICTURE).decode()


def test_a_service_is_an_artifact_too(target: LocalTarget, tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact/service.py").write_text(PICTURES)
    place = str(tmp_path / "artifact")
    done = run_pipeline(
        "tests.local.sample_pipelines:service_artifact", {"place": place}, tmp_path / "run"
    )
    bento = load_bento(done.output("build-bento", "bento"))
    assert (bento.name, bento.service, bento.models) == ("pictures", "service:Pictures", ())


@pytest.mark.slow  # proofs refuse it without a pipeline, too
def test_a_service_that_answers_otherwise_each_time_fails_the_build(
    target: LocalTarget, tmp_path: Path
) -> None:
    source = "import bentoml, time\n@bentoml.service\nclass Clock:\n    @bentoml.api\n"
    source += "    def now(self) -> int:\n        return time.monotonic_ns()\n"
    with pytest.raises(LocalRunError, match="does not answer the same twice"):
        run(
            "serve_service",
            target,
            tmp_path,
            bento_service=source,
            bento_requests=[{"path": "/now", "body": {}}],
        )
