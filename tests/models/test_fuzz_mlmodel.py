"""Fuzzed: whatever bytes an MLmodel file holds, it is a model or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.models import load_model

HEAD = "flavors: {python_function: {loader_module: x, python_version: 3.11.7}}\n"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["flavors", "signature", "run_id", "model_id", "mlflow_version", "saved_input_example_info"]
)
FLAVORS = st.dictionaries(st.just("python_function") | st.text(), st.just({}) | PLAIN, min_size=1)
DOCUMENTS = st.dictionaries(KEYS | st.text(max_size=5), PLAIN, max_size=4).flatmap(
    lambda data: FLAVORS.map(lambda flavors: {"flavors": flavors, **data})
)
PIECES = (
    "flavors:¦ {python_function: {}}¦\n¦- ¦? ¦&a ¦*a¦<<: ¦!!int ¦[¦]¦{¦}¦,¦: ¦'¦\"¦|¦>¦%TAG ¦---¦"
    "...¦\t¦\x85¦1:59¦0x¦~¦\\e¦\ufeff¦é¦!!python/name:os.system ¦!!binary ¦!!set ¦2024-01-01¦#"
)
TOKENS = st.lists(st.sampled_from(PIECES.split("¦")), max_size=30).map("".join)


def check(content: bytes, made: Path) -> None:
    made.mkdir(exist_ok=True)
    (made / "MLmodel").write_bytes(content)
    try:
        model = load_model(made)
        assert model.content_digest.startswith("sha256:")
        json.dumps(model.to_dict(), allow_nan=False).encode()
    except KfpBentoError as error:
        assert error.hint and "\x1b" not in str(error)


def fuzzed(examples: int) -> Any:
    bounds = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    dumped = DOCUMENTS.map(lambda data: yaml.safe_dump(data, allow_unicode=True).encode())
    tokens = TOKENS.map(lambda text: HEAD.encode() + text.encode())
    return lambda test: bounds(
        given(dumped | tokens | TOKENS.map(str.encode) | st.binary(max_size=60))(test)
    )


@fuzzed(150)
def test_any_bytes_are_a_model_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    check(content, tmp_path_factory.getbasetemp() / "fuzzed")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@fuzzed(10_000)
def test_any_of_many_bytes_are_a_model_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    check(content, tmp_path_factory.getbasetemp() / "fuzzed")
