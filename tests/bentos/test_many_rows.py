"""Many rows are read column by column: the same frames and the same refusals as row by row."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, create_model
from test_guard import TRAVELLERS

KINDS = ("Boolean", "Integer", "Long", "Float", "Double", "String", "Binary", "Datetime")
GOOD: dict[str, Any] = {
    "Boolean": st.booleans(),
    "Integer": st.integers(-(2**31), 2**31 - 1),
    "Long": st.integers(-(2**63), 2**63 - 1),
    "Float": st.floats(-1e3, 1e3) | st.integers(-5, 5),
    "Double": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    "String": st.text(max_size=3),
    "Binary": st.sampled_from(["/w==", "", "aGk=\n"]),
    "Datetime": st.sampled_from(["2024-05-06", "2024-05-06T07:08:09.123456789+02:00", "NaT"]),
}
BAD = st.sampled_from(
    [
        *(None, True, 0, 1.0, 1.5, "5", "x", [], {}, [1], 2**31, -(2**63) - 1, 2**63, 10**400),
        *(1e39, float("nan"), float("inf"), "2024-13-01", "/w"),
    ]
)


@pytest.fixture(scope="module")
def travellers() -> Any:
    """The modules that travel with every service, and a body with columns of all types."""
    sys.path.insert(0, str(TRAVELLERS))
    try:
        names = ("pyfunc_json", "pyfunc_body", "pyfunc_columns")
        made = SimpleNamespace(**{name[7:]: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(TRAVELLERS))
    types = made.json
    fields: dict[str, Any] = {kind: (getattr(types, kind), ...) for kind in KINDS}
    for kind in ("Float", "Double", "String", "Binary", "Datetime"):
        nullable = types.Nullable[getattr(types, kind)]
        fields[f"{kind}_or_null"] = (nullable, Field(alias=f"{kind} or null"))
    fields["left_out"] = (types.Nullable[types.Double], None)
    fields["long_left_out"] = (types.Long | None, None)
    record = create_model("Record", __base__=types.Row, **fields)
    params = create_model("Params", __base__=types.Row, depth=(int, 3))
    made.request = create_model(
        "Request",
        __base__=types.FrameBody,
        inputs=(list[record], Field(min_length=1)),  # type: ignore[valid-type]
        params=(params, Field(default_factory=params)),
    )
    return made


@st.composite
def bodies(draw: Any) -> bytes:
    """Rows that fit, but for a cell, a key or a repetition now and then."""
    null = st.none()
    cells = {kind: GOOD[kind] for kind in KINDS}
    cells |= {f"{kind} or null": GOOD[kind] | null for kind in KINDS[3:]}
    optional = {"left_out": GOOD["Double"] | null, "long_left_out": GOOD["Long"]}
    cells |= {name: optional[name] for name in draw(st.sets(st.sampled_from([*optional])))}
    rows = draw(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=5))
    spoiled = draw(st.sampled_from(["", "", "cell", "key", "more", "order", "twice", "row"]))
    row = rows[draw(st.integers(0, len(rows) - 1))]
    name = draw(st.sampled_from([*cells]))
    if spoiled in ("cell", "twice"):
        row[name] = draw(BAD)
    elif spoiled == "key":
        del row[name]
    elif spoiled == "more":
        row["more"] = 1
    elif spoiled == "order":
        rows = [dict(reversed(one.items())) for one in rows]
    elif spoiled == "row":
        rows[-1] = draw(BAD)  # type: ignore[call-overload]
    body = {"inputs": rows, **draw(st.sampled_from([{}, {"params": {"depth": 5}}, {"params": 1}]))}
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    if spoiled == "twice":
        text = text.replace("[{", f'[{{"{name}": {json.dumps(draw(GOOD.get(name, BAD)))}, ', 1)
    return text.encode("utf-8", "surrogatepass")


def outcome(travellers: Any, content: bytes) -> Any:
    """The frame and the parameters, or the places and kinds of what is wrong."""
    try:
        found = travellers.body.read_body(travellers.request, content)
        return travellers.json.frame(found.inputs), found.params.model_dump()
    except ValidationError as error:
        return [(problem["type"], problem["loc"]) for problem in error.errors()]
    except Exception as error:
        return type(error)


def check(travellers: Any, content: bytes) -> bool:
    """Compares both ways; says whether the columns were taken."""
    by_row = outcome(travellers, content)
    taken = travellers.columns.read_columns(travellers.request, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(travellers.body, "LARGEST_BY_ROW", 0)
        by_column = outcome(travellers, content)
    if isinstance(by_row, tuple):
        pd.testing.assert_frame_equal(by_column[0], by_row[0], check_exact=True)
        for name, column in by_row[0].items():
            if column.dtype == object:
                assert repr([*column]) == repr([*by_column[0][name]])
        assert by_column[1] == by_row[1]
    else:
        assert by_column == by_row
        assert taken is None, content
    return taken is not None


def test_what_fits_is_read_by_column_and_the_rest_by_row(travellers: Any) -> None:
    taken = []

    @settings(
        max_examples=200, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(bodies())
    def compare(content: bytes) -> None:
        taken.append(check(travellers, content))

    compare()
    assert 0.2 < sum(taken) / len(taken) < 0.8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_fits_is_read_by_column_and_the_rest_by_row_for_long(travellers: Any) -> None:
    @settings(max_examples=10_000, deadline=None, suppress_health_check=[*HealthCheck])
    @given(bodies())
    def compare(content: bytes) -> None:
        check(travellers, content)

    compare()


def test_rows_of_other_bodies_are_left_as_rows(travellers: Any) -> None:
    rows = travellers.request.model_fields["inputs"].annotation
    body = create_model("Other", __base__=travellers.json.Body, inputs=(rows, ...))
    assert travellers.columns.read_columns(body, b'{"inputs": [{}]}') is None
