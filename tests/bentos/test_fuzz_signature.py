"""Fuzzed: any signature at all becomes source of known words only, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from generated_source import model, source_for, strangers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_signatures import HOSTILE

from kfp_bento.runtime.errors import KfpBentoError, ModelError
from kfp_bento.runtime.models import ModelSignature

HOSTILE_TEXTS = st.sampled_from([value for value in HOSTILE if isinstance(value, str)])
TEXTS = HOSTILE_TEXTS | st.text(st.characters(), max_size=12)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
SCALARS = st.sampled_from(
    ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any"]
)


def sometimes(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is right, so that what is wrong elsewhere is reached."""
    return st.integers(0, 19).flatmap(lambda n: bad if n == 0 else good)


TYPES = st.recursive(
    st.builds(lambda kind: {"type": kind}, sometimes(SCALARS, JUNK)),
    lambda inner: (
        st.builds(lambda kind: {"type": "array", "items": kind}, inner)
        | st.builds(lambda kind: {"type": "map", "values": kind}, inner)
        | st.builds(
            lambda fields: {"type": "object", "properties": fields},
            st.dictionaries(TEXTS, inner, max_size=3),
        )
    ),
    max_leaves=4,
)
NAMES = sometimes(TEXTS | st.integers() | st.floats(), JUNK)
COLUMNS = st.builds(
    lambda kind, name, required: {**kind, "name": name, "required": required},
    TYPES,
    NAMES,
    sometimes(st.booleans(), JUNK),
)
TENSORS = st.builds(
    lambda dtype, shape, name: {
        "type": "tensor",
        "name": name,
        "tensor-spec": {"dtype": dtype, "shape": shape},
    },
    sometimes(st.sampled_from(["int64", "float32", "str", "datetime64[ns]", "void8"]), JUNK),
    sometimes(st.lists(sometimes(st.integers(-1, 300), JUNK), max_size=4), JUNK),
    NAMES,
)
DEFAULTS = {
    "boolean": st.booleans(),
    "long": st.integers(-(2**63), 2**63),
    "double": st.floats(),
    "string": TEXTS,
    "datetime": st.datetimes().map(lambda moment: moment.isoformat()),
}
PARAMS = st.sampled_from(sorted(DEFAULTS)).flatmap(
    lambda kind: st.builds(
        lambda name, default: {"name": name, "type": kind, "default": default, "shape": None},
        sometimes(TEXTS, JUNK),
        sometimes(DEFAULTS[kind], JUNK),
    )
)
SIDES = st.lists(COLUMNS, max_size=4) | st.lists(TENSORS, max_size=3) | sometimes(st.just([]), JUNK)
SIGNATURES = st.fixed_dictionaries(
    {"inputs": SIDES, "outputs": SIDES, "params": st.lists(PARAMS, max_size=3)}
)


def bounded(examples: int) -> Any:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def check(sides: dict[str, Any], directory: Path) -> None:
    try:
        written = {side: json.dumps(specs) for side, specs in sides.items()}
        signature = ModelSignature.from_mlmodel(written)
    except ModelError as error:
        assert error.hint
        return
    again = json.loads(json.dumps(signature.to_dict(), allow_nan=False))
    assert ModelSignature.from_dict(again).to_dict() == signature.to_dict()
    try:
        source = source_for(model(directory, signature))
    except KfpBentoError as error:
        assert error.hint
        return
    assert strangers(source) == set()
    compile(source, "service.py", "exec")


@given(SIGNATURES)
@bounded(150)
def test_any_signature_becomes_known_words_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, sides: dict[str, Any]
) -> None:
    check(sides, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(SIGNATURES)
@bounded(20_000)
def test_any_of_many_signatures_becomes_known_words_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, sides: dict[str, Any]
) -> None:
    check(sides, tmp_path_factory.getbasetemp())
