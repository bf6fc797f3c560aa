"""Any bytes as a request: an answer that is short, tells no value, and is never a failure."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import packed_models as samples
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property
from test_guard import TRAVELLERS
from test_tensor_semantics import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "Ada-Lovelace-1815"
NAMES = ("weight", "n", "name", "numbers", "map", "limits", "at", "bin", "b")
SCHEMA = Schema(
    [
        ColSpec("double", "weight"),
        ColSpec("long", "n", required=False),
        ColSpec("string", "name", required=False),
        ColSpec(Array(DataType.long), "numbers", required=False),
        ColSpec(Map(DataType.double), "map", required=False),
        ColSpec(Object([Property("low", DataType.long)]), "limits", required=False),
        ColSpec("datetime", "at", required=False),
        ColSpec("binary", "bin", required=False),
        ColSpec("boolean", "b", required=False),
    ]
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**63, -(2**70), 10**400, 1e308, 0.5, float("nan"), float("inf")])
    | st.sampled_from(["", "x", SECRET, "2024-05-06T07:08:09", "aGk=", "\ud800", "\u2028\x00"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["low", "a", "", "inputs"]), inner, max_size=3)
    ),
    max_leaves=12,
)
rows = st.dictionaries(st.sampled_from([*NAMES, "more"]), values, max_size=5)
good_rows = st.fixed_dictionaries({"weight": st.floats(-9, 9)}, optional={"name": st.just("x")})
bodies = st.fixed_dictionaries(
    {"inputs": st.lists(rows | good_rows, max_size=4) | st.lists(good_rows, max_size=120) | values},
    optional={"params": values, "more": values},
)
spaces = st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", "\t:\r\n ")])


@st.composite
def texts(draw: Any) -> bytes:
    """JSON, mostly of the right shape, sometimes broken by a cut, a byte or a repetition."""
    value = draw(bodies | values)
    text = json.dumps(value, separators=draw(spaces), ensure_ascii=draw(st.booleans()))
    content = text.encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(content)))
    kind = draw(st.sampled_from(["whole", "whole", "whole", "cut", "byte", "twice", "bytes"]))
    broken = {
        "whole": content,
        "cut": content[:at],
        "byte": content[:at] + draw(st.binary(min_size=1, max_size=2)) + content[at:],
        "twice": content[:at] + content[: at // 2] + content[at:],
        "bytes": draw(st.binary(max_size=30)),
    }
    return broken[kind]


def some(strategy: Any, count: int) -> list[Any]:
    """The first examples of a strategy: always the same."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


shapes = st.lists(st.integers(-1, 3), max_size=3) | values
datatypes = st.sampled_from(["FP64", "INT64", "BYTES", "BOOL", "UINT8", "FP16", ""]) | values
tensors_of_any_kind = st.fixed_dictionaries(
    {"name": st.sampled_from([*NAMES, ""]), "shape": shapes, "datatype": datatypes, "data": values},
    optional={"parameters": st.fixed_dictionaries({"content_type": values}) | values},
)
inferences = st.fixed_dictionaries(
    {"inputs": st.lists(tensors_of_any_kind, max_size=3) | values},
    optional={"id": values, "parameters": values, "outputs": values},
)
tables = st.fixed_dictionaries({"columns": st.lists(scalars, max_size=3), "data": values}) | values
invocations = st.fixed_dictionaries(
    {},
    optional={
        "dataframe_records": st.lists(rows | good_rows, max_size=3),
        "dataframe_split": tables,
        **{"instances": values, "inputs": values, "params": values},
    },
)


def check_answers(
    service: Path,
    asker: Callable[..., Any],
    count: int,
    path: str = "/predict",
    asked: Any = None,
) -> set[int]:
    """Sends bodies, and gives the statuses of the answers."""
    contents = some(texts() if asked is None else asked.map(json.dumps).map(str.encode), count)
    requests = [
        {
            "method": "POST",
            "path": path,
            "headers": {"content-type": "application/json"},
            "body": content.decode("latin-1"),
        }
        for content in contents
    ]
    job = {"whole": True, "bento": str(service), "base": "http://service", "environment": {}}
    found = asker({**job, "requests": requests})
    for content, answer in zip(contents, found["answers"], strict=True):
        shown = (content, answer)
        assert answer["status"] in (200, 400), shown
        if answer["status"] == 400:
            assert len(answer["text"]) < 8192, shown
            assert SECRET not in answer["text"], shown
    assert SECRET not in found["log"]
    assert len(found["log"]) < 700 * len(contents)
    return {answer["status"] for answer in found["answers"]}


@pytest.fixture(scope="module")
def columns(tmp_path_factory: Any, generate: Any) -> Path:
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "columns", SCHEMA))


@pytest.fixture(scope="module")
def free(tmp_path_factory: Any, generate: Any) -> Path:
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "free"))


def test_any_bytes_get_a_short_answer(columns: Path, asker: Any) -> None:
    assert check_answers(columns, asker, 300) == {200, 400}


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/invocations", invocations), ("/v2/models/columns/infer", inferences)],
    ids=["mlflow", "v2"],
)
def test_anything_in_other_protocols_gets_a_short_answer(
    path: str, asked: Any, columns: Path, asker: Any
) -> None:
    assert 400 in check_answers(columns, asker, 150, path, asked)


def check_tensors(service: Path, ask: Any, count: int) -> None:
    """Puts any JSON into each tensor in turn: never a failure, and never told what it was."""
    cases = [(dtype, value) for value in some(values, count) for dtype in DTYPES]
    answers = ask(service, *({"inputs": {**DTYPES, dtype: value}} for dtype, value in cases))
    for case, (status, answer) in zip(cases, answers, strict=True):
        assert status in (200, 400), case
        assert status == 200 or SECRET not in json.dumps(answer), case


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: Any, generate: Any) -> Path:
    specs = [TensorSpec(np.dtype(dtype), (-1,), dtype) for dtype in DTYPES]
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "tensors", Schema(specs)))


def test_any_value_in_a_tensor_gets_a_short_answer(tensors: Path, ask: Any) -> None:
    check_tensors(tensors, ask, 20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_any_value_in_a_tensor_gets_a_short_answer_for_long(tensors: Path, ask: Any) -> None:
    check_tensors(tensors, ask, 1_000)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_any_bytes_get_a_short_answer_for_long(columns: Path, free: Path, asker: Any) -> None:
    assert check_answers(columns, asker, 5_000) == {200, 400}
    assert check_answers(free, asker, 5_000) == {200, 400}


def read_like_pydantic(content: bytes) -> None:
    """Compares reading in batches with what pydantic says to the whole at once."""
    sys.path.insert(0, str(TRAVELLERS))
    try:
        import pyfunc_body
        from pydantic import ValidationError
    finally:
        sys.path.remove(str(TRAVELLERS))

    class Record(pyfunc_body.Row):
        weight: float
        name: str | None = None
        numbers: list[int] | None = None

    class Request(pyfunc_body.Body):
        inputs: list[Record]
        params: dict[str, int] = {}  # noqa: RUF012

    def outcome(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except ValidationError as error:
            return [(problem["type"], problem["loc"]) for problem in error.errors()]

    ours = outcome(lambda: pyfunc_body.read_body(Request, content))
    whole = outcome(lambda: Request.model_validate_json(content or b"{}"))
    if isinstance(ours, list):
        # Rows behind the first wrong one are told by ours alone, and it takes no key twice.
        assert isinstance(whole, list) or ours == [("json_invalid", ())], (ours, whole)
    else:
        assert repr(ours) == repr(whole)


def test_rows_in_batches_are_read_as_all_at_once() -> None:
    for content in some(texts(), 200):
        read_like_pydantic(content)


@pytest.mark.slow
def test_rows_in_batches_are_read_as_all_at_once_for_long() -> None:
    for content in some(texts(), 5_000):
        read_like_pydantic(content)
