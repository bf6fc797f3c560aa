"""Every example runs whole, and answers what the registry's models give without BentoML."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.run import HERE, NAMES, RIGHT, Answer, ask, in_its_environment, prepare, serve
from kfp_bento.runtime.local import local_target
from kfp_bento.runtime.local.target import LocalTarget

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODELS = {
    "credit_application": ["fraud", "risk_lightgbm", "risk_linear", "risk_xgboost"],
    "credit_risk": ["credit_risk"],
    "object_detection": ["ball_detector"],
    "recommender": ["recommender"],
}


@pytest.fixture(scope="module")
def variables(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    return {"MLFLOW_TRACKING_URI": mlflow_server, "KFP_BENTO_CACHE": str(cache)}


@pytest.fixture(scope="module", params=NAMES)
def example(
    request: pytest.FixtureRequest,
    variables: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, LocalTarget, list[Answer]]]:
    """Give an example's name, its release that still answers, and what it answered."""
    name, directory = request.param, tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HERE.parent)
        prepare(name, directory, variables)
        cache = Path(variables["KFP_BENTO_CACHE"])
        with local_target(directory / "service", cache=cache) as target:
            run = serve(name, directory, variables, target, "host")
            expected = json.loads(in_its_environment(name, "expected.py", variables))
            yield name, target, list(ask(name, run, target.services[-1].url, expected))


def test_an_example_answers_as_the_models_of_the_registry_do(
    example: tuple[str, LocalTarget, list[Answer]],
) -> None:
    _, _, answers = example
    verdicts = {answer.label: answer.verdict for answer in answers}
    assert [label for label in verdicts if verdicts[label] not in RIGHT] == [], verdicts
    assert {"the same", "refused"} <= {*verdicts.values()}


def test_all_models_of_an_example_are_promoted(
    example: tuple[str, LocalTarget, list[Answer]],
) -> None:
    from mlflow import MlflowClient

    if example[0] == "iris_the_old_way":
        pytest.skip("its pipeline promotes nothing")
    for model in MODELS[example[0]]:
        prod = MlflowClient().get_model_version_by_alias(model, "prod")
        assert MlflowClient().get_model_version_by_alias(model, "live").version == prod.version


def test_every_decision_occurs(example: tuple[str, LocalTarget, list[Answer]]) -> None:
    name, _, answers = example
    if not name.startswith("credit"):
        pytest.skip("it decides nothing")
    key = "status" if name == "credit_risk" else "decision"
    made = {answer.value[key] for answer in answers if answer.status == 200}
    assert made == {"APPROVED", "MAYBE", "DECLINED"}


def test_applications_that_come_in_together_are_scored_together(
    example: tuple[str, LocalTarget, list[Answer]],
) -> None:
    name, target, answers = example
    if name != "credit_risk":
        pytest.skip("it does not batch")
    url = target.services[-1].url
    body = json.dumps(yaml.safe_load((HERE / name / "requests.yaml").read_text())[0]["body"])

    def decide(_: int) -> Any:
        header = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/decide", body.encode(), header)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    before = calls_and_rows(url)
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(decide, range(64)))
    calls, rows = (now - then for now, then in zip(calls_and_rows(url), before, strict=True))
    assert made == [answers[0].value] * 64
    assert rows == 64
    assert calls < 64


def calls_and_rows(url: str) -> tuple[float, float]:
    """Give how often the model was called and with how many rows, by BentoML's own count."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(r"adaptive_batch_size_(count|sum)\{.*\} (\S+)", text)
    counted = {what: float(number) for what, number in found}
    return counted.get("count", 0.0), counted.get("sum", 0.0)


def test_boxes_are_drawn_where_the_objects_were_found(
    example: tuple[str, LocalTarget, list[Answer]],
) -> None:
    from PIL import Image

    name, _, answers = example
    if name != "object_detection":
        pytest.skip("it draws nothing")
    by_label = {answer.label: answer for answer in answers}
    assert by_label["balls with boxes"].media_type == "image/png"
    picture = Image.open(io.BytesIO(by_label["balls with boxes"].body)).convert("RGB")
    objects = by_label["balls on a table"].value["objects"]
    assert len(objects) == 6
    for found in objects:
        left, top, right, bottom = (round(edge) for edge in found["box"])
        middle = ((left + right) // 2, (top + bottom) // 2)
        assert picture.getpixel((left, middle[1])) == (255, 255, 0)
        assert picture.getpixel((middle[0], bottom)) == (255, 255, 0)
        strongest = ["red ball", "green ball", "blue ball"].index(found["label"])
        pixel = picture.getpixel(middle)
        assert pixel[strongest] == max(pixel)


def test_every_example_is_in_the_table_of_the_docs() -> None:
    page = (HERE.parent / "docs/examples.md").read_text()
    for name in NAMES:
        assert f"[`{name}`](../examples/{name}/README.md)" in page
