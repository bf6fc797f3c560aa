"""A bento is started in its own environment and asked; what differs or fails never gets further."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import assert_refused, kfp_bento
from small_models import EXAMPLE, TWICE, small_model
from spy import kept_from_a_spy

from kfp_bento.runtime.bentos import Bento, build_bento
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.models import ModelVersion, load_model
from kfp_bento.runtime.programs import confinement
from kfp_bento.runtime.proof import Content, Golden, GoldenRequest, golden_answers
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import MODEL, with_answer
from kfp_bento.runtime.proof.rows import row_independence

MEAN = TWICE.replace('inputs["a"] * 2', 'inputs["a"] - inputs["a"].mean()')
ELSEWHERE = TWICE.replace("* 2)", "* (2 if 'bentoml' in __import__('sys').modules else 3))")
SERVICE = """\
import bentoml
import mlflow.pyfunc
from starlette.responses import PlainTextResponse


@bentoml.service
class Greeter:
    model = bentoml.models.BentoModel("small:latest")

    def __init__(self):
        self.pyfunc = mlflow.pyfunc.load_model(self.model.path)

    @bentoml.api
    def greet(self, name: str) -> str:
        return f"hello {name}"

    @bentoml.api
    def score(self, inputs: list[dict]) -> list[float]:
        import pandas
        return self.pyfunc.predict(pandas.DataFrame(inputs)).tolist()
"""


def prove(folder: Path, *sources: str, requests: list = [], **options: object) -> Golden:
    models = [
        small_model(folder / f"small{index or ''}", source, **options)  # type: ignore[arg-type]
        for index, source in enumerate(sources)
    ]
    return golden_answers(build_bento(models, folder / "bento"), models, requests=requests)


@pytest.mark.skipif(not confinement._works("landlock"), reason="this kernel has no Landlock")
def test_two_models_are_asked_as_mlflow_is_and_their_code_sees_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The home will be another one, and what uv has in its cache comes from there.
    known = os.environ.get("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser()))
    monkeypatch.setenv("UV_CACHE_DIR", known)
    # Nor does a long path to where files go keep a bento from being asked.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    other = Path(tempfile.gettempdir(), "kfp-bento-other1")  # as a local run has one
    other.mkdir(parents=True)
    with kept_from_a_spy(tmp_path, monkeypatch) as spy:
        models = [
            small_model(tmp_path / "first", spy.source + TWICE),
            small_model(tmp_path / "second", MEAN, example=None),
        ]
        golden = golden_answers(build_bento(models, tmp_path / "bento", name="both"), models)
        assert spy.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert [path.name for path in Path(tempfile.gettempdir()).iterdir()] == [other.name]
    asked = [(one.path, one.label, one.source) for one in golden.requests]
    assert asked == [
        ("/predict/first", "/predict/first, all rows", "input example"),
        ("/predict/first", "/predict/first, row 0", "input example"),
        ("/predict/first", "/predict/first, row 1", "input example"),
        ("/predict/second", "/predict/second, all rows", "synthetic"),
        ("/predict/second", "/predict/second, row 0", "synthetic"),
        ("/predict/second", "/predict/second, row 1", "synthetic"),
    ]
    answers = [one.answer for one in golden.requests]
    assert [answer and answer.content.value for answer in answers] == [
        [2.0, 5.0],
        [2.0],
        [5.0],
        [-0.5, 0.5],
        [0.0],
        [0.0],
    ]
    assert {answer and answer.source for answer in answers} == {MODEL}
    assert golden.verified == "on"
    assert golden.digests == tuple(model.digest for model in models)
    # The mean of one row is the row itself.
    assert golden.rows == "dependent"
    assert "Row 0 of synthetic is answered otherwise by itself" in golden.rows_reason
    first = [one for one in golden.requests if one.path == "/predict/first"]
    assert row_independence(first, Tolerance(0, 0))[0] == "independent"
    assert golden == Golden.load(saved(golden, tmp_path))


def saved(golden: Golden, folder: Path) -> Path:
    golden.save(folder / "golden.json")
    return folder / "golden.json"


def test_a_bento_that_answers_otherwise_than_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BentoError, match="does not answer as its model does") as refused:
        prove(tmp_path, ELSEWHERE)
    assert refused.value.message.endswith("POST /predict, all rows[0]: 1 away, 3e-06 allowed.")


@pytest.mark.slow
def test_a_model_that_lacks_a_package_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BentoError) as refused:
        prove(tmp_path, f"import no_such_package\n{TWICE}")
    assert refused.value.message == (
        "The model small cannot be loaded in the environment that is locked for it: the package of "
        "the module 'no_such_package' is not in the lock."
    )


@pytest.mark.slow
def test_a_model_that_cannot_answer_its_own_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BentoError, match="cannot answer its own input example") as refused:
        prove(tmp_path, TWICE.replace('inputs["a"]', 'inputs["b"]'))
    assert "KeyError: 'b'" in refused.value.message


@pytest.mark.slow
def test_a_bento_that_changes_its_own_files_is_refused(tmp_path: Path) -> None:
    write = "import os; open(os.environ.get('BENTO_PATH', '..') + '/more', 'w').close()\n"
    with pytest.raises(BentoError, match="changed while it was being proven; the last was more"):
        prove(tmp_path, write + TWICE)


@pytest.mark.slow
def test_made_up_values_that_the_model_refuses_prove_the_start_only(tmp_path: Path) -> None:
    source = TWICE.replace(
        "        return", "        raise ValueError('no such town')\n        return"
    )
    golden = prove(tmp_path, source, example=None)
    assert golden.requests == ()
    assert golden.reason == (
        "The bento was started in its locked environment; values made from the signature were "
        "refused by the model."
    )


@pytest.mark.slow
def test_a_service_of_ones_own_is_asked_what_the_user_says(tmp_path: Path) -> None:
    model = small_model(tmp_path / "small")
    (tmp_path / "greeter.py").write_text(SERVICE)
    bento = build_bento([model], tmp_path / "bento", service=tmp_path / "greeter.py")
    requests = [
        {"path": "/greet", "body": {"name": "Ada"}},
        {"path": "/score", "body": {"inputs": [{"a": 4.0}]}, "label": "four"},
        {"path": "/greet", "body": {"nobody": 1}},
        {"path": "/livez"},
    ]
    golden = golden_answers(bento, [model], requests=requests)
    told = [
        (one.label, one.answer and (one.answer.status, one.answer.source))
        for one in golden.requests
    ]
    assert told == [
        ("given 1", (200, "the service")),
        ("four", (200, MODEL)),
        ("given 3", (400, "the service")),
        ("given 4", (200, "the service")),
    ]
    greeting = golden.requests[0].answer
    assert greeting and greeting.content.media_type == "text/plain"
    assert greeting.content.value == "hello Ada"
    with pytest.raises(BentoError, match="404"):
        golden_answers(bento, [model])  # its example at /predict, where this one answers nothing


@pytest.mark.slow
def test_what_an_old_mlflow_stores_does_not_get_into_the_bento(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "small").directory
    (folder / "requirements.txt").write_text("mlflow==3.6.0\n")  # it makes a store as it loads
    model = load_model(folder)
    (tmp_path / "greeter.py").write_text(SERVICE)
    bento = build_bento([model], tmp_path / "bento", service=tmp_path / "greeter.py")
    asked = [{"path": "/score", "body": {"inputs": [{"a": 4.0}]}}]
    golden = golden_answers(bento, [model], requests=asked)
    assert [one.answer and one.answer.content.value for one in golden.requests] == [[8.0]]


@pytest.mark.slow
def test_a_given_request_that_the_model_refuses_has_to_be_refused(tmp_path: Path) -> None:
    requests = [{"body": {"inputs": [{"b": 1.0}]}}]
    golden = prove(tmp_path, TWICE, requests=requests)
    assert golden.requests[0].answer and golden.requests[0].answer.status == 400


@pytest.mark.slow
def test_rows_that_depend_on_each_other_are_not_put_together(tmp_path: Path) -> None:
    model = small_model(tmp_path / "small", MEAN)
    build = ("bento", "build", model.directory, "--max-batch-size", "8", "--to", tmp_path / "b")
    refused = kfp_bento(*build)
    assert_refused(refused, "The rows of several callers cannot be put together")
    assert "Row 0 of input example is answered otherwise by itself" in refused.stderr
    assert not (tmp_path / "b.golden.json").exists()


def whole_and_rows(whole: Any, *alone: Any) -> list[GoldenRequest]:
    """A request of all rows with its answer, and one for each row."""
    asked = [GoldenRequest("all rows", "given", model="m", rows=len(alone))]
    asked += [
        GoldenRequest(f"row {n}", "given", model="m", rows=1, row=n) for n in range(len(alone))
    ]
    return [
        with_answer(one, 200, Content.json(value), MODEL)
        for one, value in zip(asked, [whole, *alone], strict=True)
    ]


@pytest.mark.parametrize(
    ("answers", "rows"),
    [
        (([1.0, 2.0], [1.0], [2.0 + 1e-12]), "independent"),
        (([1.0, 2.0], [1.0], [2.1]), "dependent"),
        (({"p": [1, 2], "q": [3, 4]}, {"p": [1], "q": [3]}, {"p": [2], "q": [4]}), "independent"),
        (({"p": [1, 2]}, {"p": [1]}, {"p": [3]}), "dependent"),
        (([{"x": 1}, {"x": None}], [{"x": 1}], [{"x": None}]), "independent"),
        ((3.5, 1.0, 2.5), "dependent"),
        (([1.0], [1.0], [2.0]), "dependent"),
        (([1.0], [1.0]), "unknown"),
    ],
    ids=range(8),
)
def test_rows_are_independent_where_they_have_the_same_answers_alone(
    answers: Any, rows: str
) -> None:
    found, reason = row_independence(whole_and_rows(*answers), Tolerance(1e-6, 1e-9))
    assert found == rows
    assert reason.endswith(".")


@pytest.fixture(scope="module")
def unloadable(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelVersion, Bento]:
    """A model that cannot be loaded, and its bento."""
    folder = tmp_path_factory.mktemp("unloadable")
    model = small_model(folder / "small", f"import no_such_package\n{TWICE}", example=EXAMPLE)
    return model, build_bento([model], folder / "bento")


def test_what_can_be_known_at_once_is_said_before_anything_is_installed(
    unloadable: tuple[ModelVersion, Bento], tmp_path: Path
) -> None:
    model, bento = unloadable
    cases = [
        (small_model(tmp_path / "bare", inputs=None, example=None), bento, "nothing to prove"),
        (replace(model, flavors=("prophet",)), bento, "needs prophet"),
        (model, replace(bento, python_version="3.99"), "no such interpreter on this machine"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", "/nowhere")
        for case, given, told in cases:
            with pytest.raises(BentoError, match=told) as refused:
                golden_answers(given, [case])
            assert refused.value.hint


def test_with_verify_off_nothing_runs_and_the_golden_file_says_so(
    unloadable: tuple[ModelVersion, Bento],
) -> None:
    model, bento = unloadable
    golden = golden_answers(bento, [model], verify=False)
    assert (golden.verified, golden.answered, len(golden.requests)) == ("off", (), 3)
    assert golden.reason.startswith("Verify is off")
