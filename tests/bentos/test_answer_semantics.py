"""What a model answers, as JSON: every type that MLflow's own server can answer, and more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import packed_models as samples
import pytest
from mlflow_judge import as_text, mlflow_server, proof_of

if TYPE_CHECKING:
    from pathlib import Path

HEAD = (
    "import dataclasses, datetime, decimal, enum, mlflow, pydantic\n"
    "import numpy as np, pandas as pd, scipy.sparse\n"
    "@dataclasses.dataclass\n"
    "class Data:\n"
    "    x: float\n"
    "class Reply(pydantic.BaseModel):\n"
    "    x: float\n"
    "    at: datetime.datetime\n"
    "class Number(enum.IntEnum):\n"
    "    ONE = 1\n"
)
EVALUATED = HEAD + (
    "class Model(mlflow.pyfunc.PythonModel):\n"
    "    def predict(self, context, model_input, params=None):\n"
    "        return eval(model_input['code'][0])\n"
    "mlflow.models.set_model(Model())\n"
)

ANSWERS: dict[str, Any] = {
    "None": None,
    "True": True,
    "5": 5,
    "2**70": 2**70,
    "0.1": 0.1,
    "'text'": "text",
    "Number.ONE": 1,
    "[1, 'a', None]": [1, "a", None],
    "(1, [2.5])": [1, [2.5]],
    "{'a': {'b': [1]}}": {"a": {"b": [1]}},
    "{1: 'a', 1.5: 'b', None: 'c'}": {"1": "a", "1.5": "b", "null": "c"},
    "{True: 'a', False: 'b'}": {"true": "a", "false": "b"},
    "np.array([[1, 2], [3, 4]], dtype='uint8')": [[1, 2], [3, 4]],
    "np.array([0.1], dtype='float32')": [0.10000000149011612],
    "np.array([0.5], dtype='float16')": [0.5],
    "np.array([True])": [True],
    "np.array(['a', 'bc'])": ["a", "bc"],
    "np.array(['a', None, 1], dtype=object)": ["a", None, 1],
    "np.array(5)": 5,
    "np.array([], dtype='float64')": [],
    "np.array([(1, 0.5)], dtype=[('a', 'i4'), ('b', 'f8')])": [[1, 0.5]],
    "np.array(['2024-05-06'], dtype='M8[D]')": ["2024-05-06"],
    "np.array(['2024-05-06T07:08:09.5'], dtype='M8[us]')": ["2024-05-06T07:08:09.500000"],
    "np.array(['9999-01-01T00:00'], dtype='M8[ms]')": ["9999-01-01T00:00:00"],
    "np.int8(5)": 5,
    "np.float32(0.5)": 0.5,
    "np.bool_(True)": True,
    "np.str_('a')": "a",
    "np.datetime64('2024-05-06T07:08:09')": "2024-05-06T07:08:09",
    "np.datetime64('2024-05-06')": "2024-05-06",
    "[np.int64(1), {'a': np.array([1.5])}]": [1, {"a": [1.5]}],
    "[np.datetime64('NaT'), np.timedelta64('NaT')]": [None, None],
    "np.ma.array([1, 2], mask=[0, 1])": [1, None],
    "pd.DataFrame({'a': [1, 2], 0: [0.5, 1.5]})": [{"a": 1, "0": 0.5}, {"a": 2, "0": 1.5}],
    "pd.DataFrame({'a': ['x', None]}, dtype=object)": [{"a": "x"}, {"a": None}],
    "pd.DataFrame({'a': [[1, 2], {'b': 1}]})": [{"a": [1, 2]}, {"a": {"b": 1}}],
    "pd.DataFrame({'at': [pd.Timestamp('2024-05-06T07:08:09.123456789')]})": [
        {"at": "2024-05-06T07:08:09.123456789"}
    ],
    "pd.DataFrame({'at': [pd.Timestamp('2024-05-06T07:08', tz='Europe/Berlin')]})": [
        {"at": "2024-05-06T07:08:00+02:00"}
    ],
    "pd.DataFrame({'a': pd.Series([1, 2], dtype='Int64')})": [{"a": 1}, {"a": 2}],
    "pd.DataFrame({'a': pd.Series(['x'], dtype='category')})": [{"a": "x"}],
    "pd.DataFrame({True: [1], None: [2]})": [{"true": 1, "null": 2}],
    "pd.DataFrame({'a': []})": [],
    "pd.DataFrame(index=range(2))": [{}, {}],
    "pd.Timestamp('2024-05-06T07:08:09.000000001')": "2024-05-06T07:08:09.000000001",
    "datetime.datetime(2024, 5, 6, 7, 8, 9, 5)": "2024-05-06T07:08:09.000005",
    "datetime.date(2024, 5, 6)": "2024-05-06",
    "datetime.time(7, 8)": "07:08:00",
    "Reply(x=0.5, at=datetime.datetime(2024, 5, 6))": {"x": 0.5, "at": "2024-05-06T00:00:00"},
    "[Reply(x=0.5, at=datetime.datetime(2024, 5, 6))]": [{"x": 0.5, "at": "2024-05-06T00:00:00"}],
}
"""What MLflow's server and the service answer alike."""

OTHERWISE: dict[str, dict[str, Any]] = {
    "a Series is its values, as an array": {
        "pd.Series([1, 2], index=['x', 'y'])": [1, 2],
        "pd.Series(['a'], name='b')": ["a"],
    },
    "bytes are base64 in one line": {
        "b'\\xff\\x00'": "/wA=",
        "[bytearray(b'hi')]": ["aGk="],
        "np.array([b'hi'], dtype=object)": ["aGk="],
        "pd.DataFrame({'a': [b'hi']})": [{"a": "aGk="}],
    },
    "NaN, infinity and what is missing are null": {
        "float('nan')": None,
        "np.float32('nan')": None,
        "np.array(np.inf)": None,
        "np.array([[1.5, np.nan], [np.inf, 2]])": [[1.5, None], [None, 2.0]],
        "pd.DataFrame({'a': [1, np.nan]})": [{"a": 1.0}, {"a": None}],
        "[float('-inf')]": [None],
        "pd.Series([1, None], dtype='Int64')": [1, None],
        "pd.DataFrame({'a': [pd.NaT], 'b': [pd.NA]})": [{"a": None, "b": None}],
    },
    "arrays of datetimes are ISO 8601, not nanoseconds since 1970": {
        "np.array(['2024-05-06T07:08:09.123456789', 'NaT'], dtype='M8[ns]')": [
            "2024-05-06T07:08:09.123456789",
            None,
        ],
        "np.array([['2024-05-06T07:08']], dtype='M8[ns]')": [["2024-05-06T07:08:00"]],
        "np.datetime64('2024-05-06T07:08:09.123456789')": "2024-05-06T07:08:09.123456789",
    },
    "a timedelta is seconds": {
        "datetime.timedelta(minutes=1)": 60.0,
        "np.timedelta64(5, 's')": 5.0,
        "np.array([1500, 2000], dtype='m8[ms]')": [1.5, 2.0],
        "pd.Series(pd.to_timedelta([1.5, None], unit='s'))": [1.5, None],
        "pd.DataFrame({'a': [pd.Timedelta('1ms')]})": [{"a": 0.001}],
        "np.array([1], dtype='m8[ns]')": [1e-09],
    },
    "MLflow's server has no answer at all": {
        "decimal.Decimal('1.5')": 1.5,
        "{'a'}": ["a"],
        "frozenset([1])": [1],
        "{np.int64(1): 2}": {"1": 2},
        "Data(0.5)": {"x": 0.5},
        "scipy.sparse.csr_matrix([[0, 1]])": [[0, 1]],
        "pd.Index([1, 2])": [1, 2],
        "np.array([b'\\xff'])": ["/w=="],
        "np.bytes_(b'hi')": "aGk=",
        "np.longdouble(0.5)": 0.5,
    },
}
"""What the service answers otherwise, by reason."""

NO_JSON = ["object()", "1j", "np.complex64(1)", "(n for n in [1])", "pd.Period('2024')"]
"""What neither has an answer for."""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: Any) -> Path:
    """A model without signature that answers with what its input evaluates to."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "model.py").write_text(EVALUATED)
    mlflow.pyfunc.save_model(
        folder / "model", python_model=str(folder / "model.py"), pip_requirements=["mlflow"]
    )
    return folder / "model"


def test_answers_are_those_of_mlflow_but_for_what_is_told(
    evaluated: Path, generate: Any, ask: Any
) -> None:
    otherwise = {code: value for cases in OTHERWISE.values() for code, value in cases.items()}
    wanted = {**ANSWERS, **otherwise, **dict.fromkeys(NO_JSON)}
    bodies = ({"inputs": [{"code": code}]} for code in wanted)
    found = dict(zip(wanted, ask(generate(samples.load_model(evaluated)), *bodies), strict=True))
    proven = proof_of(samples.load_model(evaluated))
    for code, answer in found.items():  # what has no JSON form is a refusal there
        wanted_text = "400" if code in NO_JSON else as_text(*answer)
        assert proven({"inputs": [{"code": code}]}) == wanted_text, code
    theirs = {}
    with mlflow_server(evaluated) as post:
        for code in wanted:
            status, answer = post({"dataframe_records": [{"code": code}]})
            theirs[code] = (status, answer["predictions"]) if status == 200 else (status, None)
    assert {code: found[code] for code in ANSWERS} == {c: (200, v) for c, v in ANSWERS.items()}
    assert {code: theirs[code] for code in ANSWERS} == {c: (200, v) for c, v in ANSWERS.items()}
    assert {code: found[code] for code in otherwise} == {c: (200, v) for c, v in otherwise.items()}
    for reason, cases in OTHERWISE.items():
        print(reason, *(f"\n  {c}: {v}, MLflow {theirs[c]}" for c, v in cases.items()))
        assert [code for code in cases if repr(theirs[code]) == repr(found[code])] == []
    assert {found[code][0] for code in NO_JSON} == {theirs[code][0] for code in NO_JSON} == {500}
