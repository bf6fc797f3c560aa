"""Fuzzed: records, and examples, of whoever made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_bento.runtime.bentos import prediction_request
from kfp_bento.runtime.errors import KfpBentoError, plain_text
from kfp_bento.runtime.files import record_digest
from kfp_bento.runtime.models import ModelVersion, load_model

TEXTS = st.text(max_size=8) | st.sampled_from(["\x1b[2J", "\u202e", "a\nb", "sha256:" + "0" * 64])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
COLUMNS = [{"type": "double", "name": "a"}, {"type": "array", "items": {"type": "long"}}]
TENSORS = [{"type": "tensor", "name": "t", "tensor-spec": {"dtype": "int8", "shape": [-1, 2]}}]
SIDES = st.sampled_from([None, COLUMNS[:1], COLUMNS[1:], COLUMNS, TENSORS])
EXAMPLES = st.dictionaries(
    st.sampled_from(
        ["dataframe_split", "dataframe_records", "inputs", "instances", "params", "columns", "data"]
    ),
    JUNK | st.dictionaries(st.sampled_from(["columns", "data", "index"]), JUNK),
    max_size=3,
)


def fuzzed(examples: int, *strategies: st.SearchStrategy[Any]) -> Any:
    bounds = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: bounds(given(*strategies)(test))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzzed") / "model"
    made.mkdir()
    (made / "MLmodel").write_text("flavors: {python_function: {loader_module: x}}\n")
    return made


CHANGES = st.dictionaries(
    st.sampled_from([*ModelVersion.__dataclass_fields__, "seal", "unfinished"]), JUNK, max_size=3
)


def check_record(directory: Path, changes: dict[str, Any], told: bool) -> None:
    record = directory / ".kfp-bento.json"
    record.unlink(missing_ok=True)
    plain = load_model(directory)
    content = json.dumps({**plain.to_dict(), "name": "wine", **changes}).encode()
    record.write_bytes(content)
    try:
        found = load_model(directory, record=record_digest(content) if told else "")
    except KfpBentoError as error:
        assert error.hint and "\x1b" not in str(error)
        return
    assert (found.digest, found.signature) == (plain.digest, plain.signature)
    assert told or found == plain
    for text in (found.uri, found.name, found.version, found.alias, found.source, *found.aliases):
        assert plain_text(text) == text and "\n" not in text


def check_example(directory: Path, side: Any, example: Any) -> None:
    signature = json.dumps(json.dumps(side))
    (directory / "MLmodel").write_text(
        f"flavors: {{python_function: {{}}}}\nsignature: {{inputs: {signature}}}\n"
    )
    (directory / "serving_input_example.json").write_text(json.dumps(example))
    try:
        body = prediction_request(load_model(directory), rows=1)
    except KfpBentoError as error:
        assert error.hint
        return
    json.dumps(body).encode()


@fuzzed(80, CHANGES, st.booleans())
def test_any_record_says_where_a_model_is_from_or_nothing(
    directory: Path, changes: dict[str, Any], told: bool
) -> None:
    check_record(directory, changes, told)


@fuzzed(80, SIDES, EXAMPLES | JUNK)
def test_any_example_is_a_request_or_none(directory: Path, side: Any, example: Any) -> None:
    check_example(directory, side, example)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@fuzzed(10_000, CHANGES, st.booleans())
def test_any_of_many_records_says_where_a_model_is_from_or_nothing(
    directory: Path, changes: dict[str, Any], told: bool
) -> None:
    check_record(directory, changes, told)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@fuzzed(8_000, SIDES, EXAMPLES | JUNK)
def test_any_of_many_examples_is_a_request_or_none(
    directory: Path, side: Any, example: Any
) -> None:
    check_example(directory, side, example)
