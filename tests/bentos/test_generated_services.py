"""What a generated service makes of a request: every kind of signature, over ASGI."""

from __future__ import annotations

import json
import keyword
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import packed_models as samples
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from kfp_bento.runtime.bentos import prediction_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fields_named_in(answer: tuple[int, Any]) -> set[str]:
    status, body = answer
    assert status == 400, answer
    return {".".join(map(str, problem["loc"])) for problem in body["detail"]}


@pytest.fixture(scope="module")
def columns_service(tmp_path_factory: Any, generate: Callable[..., Path]) -> Any:
    schema = Schema(
        [
            ColSpec("double", "a b"),
            ColSpec("long", "n", required=False),
            ColSpec("integer", "class"),
            ColSpec("float", "f", required=False),
            ColSpec("boolean", "b", required=False),
            ColSpec("string", "s", required=False),
            ColSpec("binary", "bin"),
            ColSpec("datetime", "d", required=False),
        ]
    )
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "columns", schema))


FULL = {
    "a b": 1,
    "n": 7,
    "class": -5,
    "f": 0.5,
    "b": True,
    "s": "text",
    "bin": "aGk=",
    "d": "2024-05-06T07:08:09+02:00",
}
LEAST = {"a b": 2.5, "class": 1, "bin": ""}


def test_columns_reach_the_model_with_the_signatures_dtypes(columns_service: Any, ask: Any) -> None:
    ((status, answer),) = ask(columns_service, {"inputs": [FULL]})
    assert status == 200, answer
    assert answer[0]["dtypes"] == {
        "a b": "float64",
        "n": "int64",
        "class": "int32",
        "f": "float32",
        "b": "bool",
        "s": "object",
        "bin": "object",
        "d": "datetime64[ns]",
    }
    assert answer[0]["cells"]["d"] == ["Timestamp 2024-05-06 05:08:09"]
    assert answer[0]["cells"]["bin"] == ["bytes b'hi'"]


def test_optional_columns_that_no_row_has_do_not_reach_the_model(
    columns_service: Any, ask: Any
) -> None:
    ((status, answer),) = ask(columns_service, {"inputs": [LEAST, LEAST]})
    assert status == 200, answer
    assert set(answer[0]["dtypes"]) == {"a b", "class", "bin"}


def test_an_integer_column_given_in_some_rows_only_is_refused_by_name(
    columns_service: Any, ask: Any
) -> None:
    ((status, answer),) = ask(columns_service, {"inputs": [FULL, LEAST]})
    assert status == 400
    assert "inputs.1.n" in json.dumps(answer)


WRONG = [
    ({"a b": "1"}, "a b"),
    ({"a b": float("inf")}, "a b"),
    ({"a b": 10**400}, "a b"),
    ({"a b": True}, "a b"),
    ({"class": None}, "class"),
    ({"class": 2**31}, "class"),
    ({"class": 1.0}, "class"),
    ({"n": 2**63}, "n"),
    ({"f": 1e39}, "f"),
    ({"b": 1}, "b"),
    ({"s": 5}, "s"),
    ({"bin": "not base64!"}, "bin"),
    ({"d": "yesterday"}, "d"),
    ({"d": "2024-02-30"}, "d"),
    ({"d": "2024-05-06T07:08:09+99:00"}, "d"),
    ({"d": "1066-10-14T00:00:00"}, "d"),
    ({"d": 1700000000}, "d"),
    ({"unknown": 1}, "unknown"),
    ({"class_": 1}, "class_"),
]


def test_a_wrong_value_is_answered_with_400_and_the_fields_name(
    columns_service: Any, ask: Any
) -> None:
    answers = ask(columns_service, *({"inputs": [{**FULL, **change}]} for change, _ in WRONG))
    found = [fields_named_in(answer) for answer in answers]
    assert found == [{f"inputs.0.{field}"} for _, field in WRONG]


def test_a_body_of_the_wrong_shape_is_refused(columns_service: Any, ask: Any) -> None:
    answers = ask(
        columns_service,
        {"inputs": []},
        {"inputs": FULL},
        {"input": [FULL]},
        {"inputs": [FULL], "params": {}},
        [FULL],
        "{",
    )
    assert [status for status, _ in answers] == [400] * 6
    assert fields_named_in(answers[2]) == {"inputs", "input"}
    assert fields_named_in(answers[3]) == {"params"}


def test_nested_types_are_checked_and_reach_the_model(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    point = Object(
        [
            Property("x y", DataType.float),
            Property("at", DataType.datetime, required=False),
            Property("deep", Object([Property("n", DataType.integer)])),
        ]
    )
    schema = Schema(
        [
            ColSpec(Map(Array(DataType.long)), "m"),
            ColSpec(AnyType(), "any", required=False),
            ColSpec(Array(Array(DataType.double)), "matrix"),
            ColSpec(point, "point"),
            ColSpec(Array(DataType.integer), "numbers"),
            ColSpec(Array(Object([Property("k", DataType.boolean)])), "list", required=False),
        ]
    )
    service = generate(samples.save_echo(tmp_path / "nested", schema))
    row = {
        "m": {"k": [1, 2]},
        "any": {"what": ["ever", None]},
        "matrix": [[1, 2], [0.5]],
        "point": {"x y": 0.25, "at": "2024-05-06T07:08:09", "deep": {"n": 3}},
        "numbers": [1, 2],
        "list": [{"k": True}],
    }
    least = {"m": {}, "matrix": [], "point": {"x y": 1, "deep": {"n": 1}}, "numbers": []}
    wrong = {**row, "point": {"x y": 0.25, "deep": {"n": "3"}}}
    extra = {**row, "point": {**row["point"], "more": 1}}
    (full, with_least, bad, more) = ask(
        service,
        {"inputs": [row]},
        {"inputs": [row, least]},
        {"inputs": [wrong]},
        {"inputs": [extra]},
    )
    assert full[0] == 200, full
    cells = full[1][0]["cells"]
    assert cells["m"] == ["dict {'k': [1, 2]}"]
    assert cells["numbers"] == ["list [1, 2]"]
    assert "np.float32(0.25)" in cells["point"][0]
    assert "Timestamp('2024-05-06 07:08:09')" in cells["point"][0]
    assert with_least[0] == 200, with_least
    assert fields_named_in(bad) == {"inputs.0.point.deep.n"}
    assert fields_named_in(more) == {"inputs.0.point.more"}


def test_columns_that_are_numbers_keep_being_numbers(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    schema = infer_signature(pd.DataFrame(np.zeros((2, 2)))).inputs
    service = generate(samples.save_echo(tmp_path / "numbers", schema))
    ((status, answer),) = ask(service, {"inputs": [{"0": 1.5, "1": 2}]})
    assert status == 200, answer
    assert answer[0]["labels"] == ["0", "1"]


def test_unnamed_columns_are_rows_of_values(tmp_path: Path, generate: Any, ask: Any) -> None:
    two = samples.save_echo(tmp_path / "two", Schema([ColSpec("double"), ColSpec("string")]))
    one = samples.save_echo(tmp_path / "one", Schema([ColSpec("string")]))
    good, bad, short = ask(
        generate(two),
        {"inputs": [[1, "a"], [2.5, "b"]]},
        {"inputs": [[1, 2]]},
        {"inputs": [[1]]},
    )
    assert good[1][0]["cells"] == {"0": ["float 1.0", "float 2.5"], "1": ["str a", "str b"]}
    assert fields_named_in(bad) == {"inputs.0.1"}
    assert fields_named_in(short) == {"inputs.0.1"}
    ((status, answer),) = ask(generate(one), {"inputs": ["x", "y"]})
    assert (status, answer[0]["cells"]) == (200, {"0": ["str x", "str y"]})


def test_named_tensors_are_checked_by_dtype_and_shape(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    schema = Schema(
        [
            TensorSpec(np.dtype("uint8"), (-1, 2), "the image"),
            TensorSpec(np.dtype("str"), (-1,), "text"),
            TensorSpec(np.dtype("float32"), (-1,), "weight"),
        ]
    )
    service = generate(samples.save_echo(tmp_path / "tensors", schema))
    given = {"the image": [[1, 2], [3, 255]], "text": ["a", "bc"], "weight": [0.5, None]}
    good, *bad = ask(
        service,
        {"inputs": given},
        *(
            {"inputs": {**given, **change}}
            for change in (
                {"the image": [[1, 256]]},
                {"the image": [[1, 2, 3]]},
                {"the image": [[1, 2], [3]]},
                {"the image": [[1.5, 2]]},
                {"the image": [[True, False]]},
                {"text": [1]},
                {"weight": ["0.5"]},
                {"weight": [1e39]},
            )
        ),
    )
    assert good[0] == 200, good
    assert good[1][0]["arrays"] == {
        "the image": "uint8 (2, 2) [[1, 2], [3, 255]]",
        "text": "<U2 (2,) ['a', 'bc']",
        "weight": "float32 (2,) [0.5, nan]",
    }
    assert [fields_named_in(answer) for answer in bad] == [
        *[{"inputs.the image"}] * 5,
        {"inputs.text"},
        *[{"inputs.weight"}] * 2,
    ]
    assert "element [0][0] is of type float, not uint8" in json.dumps(bad[3])


def test_a_model_without_signature_takes_any_json(tmp_path: Path, generate: Any, ask: Any) -> None:
    service = generate(samples.save_echo(tmp_path / "free"))
    records, numbers, arrays, ragged = ask(
        service,
        {"inputs": [{"a": 1, "b": "x"}]},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"a": [1, 2]}},
        {"inputs": [[1], [2, 3]]},
    )
    assert records[1][0]["cells"] == {"a": ["int 1"], "b": ["str x"]}
    assert (numbers[1][0]["kind"], numbers[1][0]["dtype"]) == ("array", "int64")
    assert arrays[1][0]["arrays"] == {"a": "int64 (2,) [1, 2]"}
    assert ragged[0] == 400


@pytest.fixture(scope="module")
def params_service(tmp_path_factory: Any, generate: Any) -> Any:
    params = ParamSchema(
        [
            ParamSpec("temperature", "double", 0.5),
            ParamSpec("k", "integer", 3),
            ParamSpec("names", "string", ["a"], (-1,)),
            ParamSpec("at", "datetime", samples.A_MOMENT),
            ParamSpec("x-y", "boolean", True),
            ParamSpec("none", "string", None),
        ]
    )
    model = samples.save_echo(
        tmp_path_factory.mktemp("m") / "params", Schema([ColSpec("long", "n")]), params=params
    )
    return generate(model)


def test_params_have_the_models_defaults(params_service: Any, ask: Any) -> None:
    unset, some = ask(
        params_service,
        {"inputs": [{"n": 1}]},
        {"inputs": [{"n": 1}], "params": {"k": 9, "x-y": False, "names": ["b", "c"]}},
    )
    defaults = {
        "temperature": 0.5,
        "k": 3,
        "names": ["a"],
        "at": "2024-05-06T07:08:09",
        "x-y": True,
        "none": None,
    }
    assert unset[1][0]["params"] == defaults
    assert some[1][0]["params"] == {**defaults, "k": 9, "x-y": False, "names": ["b", "c"]}


def test_a_wrong_param_is_refused_by_name(params_service: Any, ask: Any) -> None:
    bodies = [
        {"inputs": [{"n": 1}], "params": params}
        for params in ({"k": "9"}, {"temperature": "1"}, {"names": "b"}, {"unknown": 1})
    ]
    assert [fields_named_in(answer) for answer in ask(params_service, *bodies)] == [
        {"params.k"},
        {"params.temperature"},
        {"params.names"},
        {"params.unknown"},
    ]


AWKWARD = [
    "with space",
    "with/slash",
    "class",
    "None",
    "print",
    "json",
    "copy",
    "model_config",
    "model_fields",
    "_private",
    "__dunder__",
    "1st",
    "2",
    "",
    " ",
    "größe",
    "gro\u0308ße",
    "数量",
    "😀",
    'quote"and\\slash',
    "new\nline",
    "a b",
    "a_b",
    "a-b",
    "a.b",
    "{braces}",
    "Double",
    "Field",
    "Record",
    "inputs",
    "self",
    "\u2028",
    "x" * 200,
    "ﬁ",
    "Any",
    "int",
    "schema",
    "description",
    '"""',
]


def test_awkward_column_names_are_taken_as_they_are(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    names = [name for name in AWKWARD if name]
    schema = Schema([ColSpec("double", name, required=n % 2 == 0) for n, name in enumerate(names)])
    service = generate(samples.save_echo(tmp_path / "awkward", schema))
    row = {name: float(n) for n, name in enumerate(names)}
    ((status, answer),) = ask(service, {"inputs": [row]})
    assert status == 200, answer
    assert answer[0]["cells"] == {name: [f"float {n}.0"] for n, name in enumerate(names)}


def test_awkward_names_of_params_tensors_and_properties_are_taken(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    names = [*keyword.kwlist, *AWKWARD]
    names = list(dict.fromkeys(name for name in names if name))
    properties = [Property(name, DataType.long) for name in names]
    columns = Schema([ColSpec(Object(properties), "record"), ColSpec("long", "Params")])
    params = ParamSchema([ParamSpec(name, "long", n) for n, name in enumerate(names)])
    service = generate(samples.save_echo(tmp_path / "names", columns, params=params))
    row = {"record": {name: n for n, name in enumerate(names)}, "Params": 1}
    ((status, answer),) = ask(service, {"inputs": [row], "params": row["record"]})
    assert status == 200, answer
    assert answer[0]["params"] == row["record"]


def test_a_refusal_by_mlflows_own_check_is_a_400(tmp_path: Path, generate: Any, ask: Any) -> None:
    limits = Object([Property("low", DataType.long)])
    params = ParamSchema([ParamSpec("limits", limits, {"low": 1})])
    schema = Schema([ColSpec("long", "n")])
    service = generate(samples.save_echo(tmp_path / "refused", schema, params=params))
    good, bad = ask(
        service,
        {"inputs": [{"n": 1}], "params": {"limits": {"low": 2}}},
        {"inputs": [{"n": 1}], "params": {"limits": {"high": 2}}},
    )
    assert (good[0], good[1][0]["params"]) == (200, {"limits": {"low": 2}})
    assert bad[0] == 400
    assert "low" in json.dumps(bad[1])


def test_models_with_type_hints_are_served(tmp_path: Path, generate: Any, ask: Any) -> None:
    source = tmp_path / "hinted.py"
    source.write_text(
        "import mlflow, pydantic\n"
        "class Person(pydantic.BaseModel):\n"
        "    name: str\n"
        "    age: int\n"
        "class Hinted(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[Person], params=None) -> list[str]:\n"
        "        return [f'{p.name} is {p.age}' for p in model_input]\n"
        "mlflow.models.set_model(Hinted())\n"
    )
    mlflow.pyfunc.save_model(
        tmp_path / "hinted",
        python_model=str(source),
        input_example=[{"name": "Ada", "age": 36}],
    )
    model = samples.load_model(tmp_path / "hinted")
    service = generate(model)
    good, bad = ask(service, prediction_request(model), {"inputs": [{"name": "Ada", "age": "x"}]})
    assert good == (200, ["Ada is 36"])
    assert bad[0] == 400


def test_the_api_page_shows_the_models_own_example(tmp_path: Path, generate: Any, ask: Any) -> None:
    service = generate(samples.save_wine(tmp_path / "wine", **samples.QUICK))
    (spec,) = ask(service, "", path="/docs.json", method="GET")
    request = spec[1]["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    example = request["schema"]["properties"]["inputs"]["examples"][0][0]
    assert example["od280/od315_of_diluted_wines"] == pytest.approx(3.92)
    answer = spec[1]["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    assert answer["application/json"]["schema"] == {"type": "array", "items": {"type": "integer"}}
