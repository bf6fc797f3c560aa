"""What a bento is asked: read from its model, from the user, or made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_models import COLUMNS, small_model

from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.models import ModelSignature, ModelVersion
from kfp_bento.runtime.proof.request_files import read_requests
from kfp_bento.runtime.proof.requests import requests_for
from kfp_bento.runtime.proof.synthetic import synthetic_inputs


def bento(folder: Path, models: list[ModelVersion], *, own: bool = False) -> Any:
    """As much of a bento as the requests hang on."""
    from kfp_bento.runtime.bentos.service_source import SUPPORT_MODULE

    (folder / "src").mkdir(parents=True, exist_ok=True)
    if not own:
        (folder / "src" / SUPPORT_MODULE).touch()
    return SimpleNamespace(directory=folder, tag="a:b")


def test_all_rows_are_asked_at_once_and_then_the_first_twenty_one_by_one(tmp_path: Path) -> None:
    data = {"dataframe_split": {"columns": ["a"], "data": [[float(n)] for n in range(30)]}}
    model = small_model(tmp_path / "small", example=data)
    asked = requests_for(bento(tmp_path / "bento", [model]), [model])
    assert [one.rows for one in asked] == [30, *[1] * 20]
    assert asked[20].label == "row 19"
    assert asked[20].content and asked[20].content.value == {"inputs": [{"a": 19.0}]}


@pytest.mark.parametrize(
    ("number", "place"), [("Infinity", "inputs.1.a"), ("-Infinity", "inputs.1.a"), ("1.5", "")]
)
def test_an_infinite_number_in_an_example_is_not_blamed_on_the_model(
    number: str, place: str, tmp_path: Path
) -> None:
    model = small_model(tmp_path / "small")
    (model.directory / "serving_input_example.json").write_text(
        f'{{"dataframe_split": {{"columns": ["a"], "data": [[1.0], [{number}]]}}}}'
    )
    made = bento(tmp_path / "bento", [model])
    if not place:
        assert len(requests_for(made, [model])) == 3
        return
    with pytest.raises(BentoError) as refused:
        requests_for(made, [model])
    assert refused.value.message == (
        f"The input example of the model small has an infinite number at {place}: JSON has none, "
        "so no client can send it."
    )
    # What the hint says leads out.
    assert "Give requests with finite numbers" in (refused.value.hint or "")
    assert len(requests_for(made, [model], [{"body": {"inputs": [{"a": 1.0}]}}])) == 1


def test_named_tensors_are_asked_by_row_and_fixed_shapes_are_not(tmp_path: Path) -> None:
    def tensors(first: int) -> Any:
        spec = {"dtype": "float64", "shape": [first, 1]}
        return [{"type": "tensor", "name": name, "tensor-spec": spec} for name in ("x", "y")]

    example = {"inputs": {"x": [[1.0], [2.0]], "y": [[3.0], [4.0]]}}
    for first, count in ((-1, 3), (2, 1)):
        model = small_model(tmp_path / f"m{first}", inputs=tensors(first), example=example)
        asked = requests_for(bento(tmp_path / "bento", [model]), [model])
        assert len(asked) == count
        assert asked[0].content and asked[0].content.value == example


SPECS: list[tuple[Any, Any]] = [
    ([{"type": "long", "name": "n"}], [{"n": 1}, {"n": 2}]),
    ([{"type": "boolean"}], [True, False]),
    (
        [{"type": "string"}, {"type": "datetime"}],
        [["a", "2024-01-01T00:00:00"], ["b", "2024-01-02T12:00:00"]],
    ),
    (
        [
            {
                "type": "array",
                "name": "m",
                "items": {
                    "type": "object",
                    "properties": {"role": {"type": "string", "required": True}},
                },
            }
        ],
        [{"m": [{"role": "a"}]}, {"m": [{"role": "b"}]}],
    ),
    (
        [{"type": "map", "name": "m", "values": {"type": "binary"}}],
        [{"m": {"key": "YQ=="}}, {"m": {"key": "Yg=="}}],
    ),
    (
        [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2, -1]}}],
        [[[0.5], [0.5]], [[1.5], [1.5]]],
    ),
    (
        [{"type": "tensor", "name": "t", "tensor-spec": {"dtype": "uint8", "shape": [1]}}],
        {"t": [1]},
    ),
    ([{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 1000, 1001]}}], None),
    ([{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}], None),
    ([{"type": "sparkml_vector", "name": "v"}], None),
    ([], None),
]


@pytest.mark.parametrize(("inputs", "made"), SPECS, ids=range(len(SPECS)))
def test_values_are_made_of_a_signature(inputs: Any, made: Any) -> None:
    for spec in inputs:
        spec.setdefault("required", True)
    signature = ModelSignature.from_dict({"inputs": inputs, "outputs": []})
    assert synthetic_inputs(signature) == made


def test_a_model_of_which_nothing_is_known_cannot_be_asked(tmp_path: Path) -> None:
    model = small_model(tmp_path / "small", inputs=None, example=None)
    with pytest.raises(BentoError, match="nothing to prove the bento with") as refused:
        requests_for(bento(tmp_path / "bento", [model]), [model])
    assert "verify off" in refused.value.hint


def test_a_users_requests_may_be_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "requests.yaml").write_text(
        "- body: {inputs: [{a: 1.0}]}\n"
        "- {path: /invocations, text: 'a\\n1', media_type: text/csv, label: csv}\n"
        "- {path: /draw, base64: iVBORw==, media_type: image/png, headers: {X-Kind: cat}}\n"
        "- {path: /healthz}\n"
        "- {body: {inputs: [{a: 2.0}]}, expect: service}\n"
    )
    given = read_requests(tmp_path / "requests.yaml")
    model = small_model(tmp_path / "small")
    asked = requests_for(bento(tmp_path / "bento", [model]), [model], given)
    told = [(one.label, one.method, one.path, bool(one.model)) for one in asked]
    assert told == [
        ("given 1", "POST", "/predict", True),
        ("csv", "POST", "/invocations", False),
        ("given 3", "POST", "/draw", False),
        ("given 4", "GET", "/healthz", False),
        ("given 5", "POST", "/predict", False),
    ]
    assert asked[2].headers == {"X-Kind": "cat"}
    own = requests_for(
        bento(tmp_path / "own", [model], own=True), [model], [{"path": "/score", **given[0]}]
    )
    assert own[0].model, "a service of one's own gives inputs to its one model, by the rule"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (7, "it is no object"),
        ({"url": "/predict"}, "a field 'url'"),
        ({"path": "predict"}, "no path such as /predict"),
        ({"path": "//elsewhere/x y"}, "no path"),
        ({"method": "BREW"}, "method is none of"),
        ({"body": {}, "text": "x"}, "a body is one of"),
        ({"body": {"inputs": 1}, "expect": "both"}, "neither model nor service"),
        ({"body": {"a": 1}, "expect": "model"}, "a model can only be asked"),
        ({"headers": {"Cookie": "a=b"}}, "not for a request that is written down"),
        ({"base64": "~"}, "base64 is none"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_by_its_number(
    tmp_path: Path, given: Any, told: str
) -> None:
    model = small_model(tmp_path / "small")
    fine = {"body": {"inputs": [{"a": 1.0}]}}
    with pytest.raises(InvalidInput, match="Request 2 cannot be sent") as refused:
        requests_for(bento(tmp_path / "bento", [model]), [model], [fine, given])
    assert told in refused.value.message


@pytest.mark.parametrize("text", ["{}", "[", "a: &a [*a]", "!!python/object:x {}"])
def test_a_file_of_requests_holds_a_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InvalidInput, match="requests in"):
        read_requests(tmp_path / "r.yaml")


def test_each_of_several_models_is_asked_at_its_own_path(tmp_path: Path) -> None:
    models = [small_model(tmp_path / name, inputs=COLUMNS) for name in ("one", "two")]
    models = [replace(model, digest=f"sha256:{n}") for n, model in enumerate(models)]
    asked = requests_for(bento(tmp_path / "bento", models), models)
    assert {(one.path, one.model.partition(":")[0]) for one in asked} == {
        ("/predict/one", "one"),
        ("/predict/two", "two"),
    }
