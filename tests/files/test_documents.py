"""Documents of others: what they may not hold, and that bombs do not go off."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_bento.runtime.files import documents, parse_json_value, parse_yaml

ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
MERGES = b"a: &a {x: 1}\nb: {<<: [*a, *a]}\n"
BOMBS = {
    "aliases": (ALIASES, "multiply"),
    "merge keys": (MERGES, "merge keys"),
    "itself": (b"&a [*a]", "contains itself"),
    "deep in brackets": (b"[" * 100_000, "nested too deeply"),
    "deep in blocks": (b"- " * 100_000, "nested too deeply"),
    "questions": (b"? " * 100_000, "nested too deeply"),
    "values": (b"[" + b"a," * 4_000_000 + b"]", "too many values"),
    "base of sixty": (b"a: 1" + b":59" * 300_000, "number without end"),
    "fraction to the base of sixty": (b"a: 1" + b":59" * 300_000 + b".5", "number without end"),
    "hexadecimal": (b"a: 0x" + b"f" * 1_000_000, "number without end"),
    "twice": (b"a: 1\na: 2\n", "a key twice"),
    "python": (b"!!python/object/apply:os.system ['true']", "constructor"),
    "two documents": (b"--- a\n" * 100_000, "single document"),
    "no such day": (b"a: 9999-99-99", "month"),
}


@pytest.mark.parametrize(("content", "said"), BOMBS.values(), ids=BOMBS)
def test_a_yaml_bomb_is_a_value_error_within_seconds(content: bytes, said: str) -> None:
    started = time.process_time()  # whoever else works here takes none of it
    with pytest.raises(ValueError, match=said):
        parse_yaml(content)
    assert time.process_time() - started < 5


def test_a_libyaml_that_counts_brackets_itself_is_told_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(content: bytes) -> None:
        raise yaml.MarkedYAMLError("while increasing flow level", None, "exceeded maximum depth")

    monkeypatch.setattr(documents, "_check_events", refuse)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_yaml(b"[")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 129 + b"]" * 129, "nested too deeply"),
        (b'{"a":' * 129 + b"1" + b"}" * 129, "nested too deeply"),
        (b"9" * 5_000, "digits"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b"[NaN]", "JSON compliant"),
        (b"[1e999]", "JSON compliant"),
        (b'["\\ud800"]', "surrogates"),
        (b"\xff", "decode"),
    ],
)
def test_json_that_others_read_differently_is_a_value_error(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json_value(content)


def test_json_of_python_may_hold_nan_where_that_is_asked_for() -> None:
    assert parse_json_value(b"[1, Infinity]", nan=True) == [1, float("inf")]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=80, derandomize=True, deadline=None)
def test_what_pyyaml_dumps_is_read_as_its_own_parser_reads_it(data: object) -> None:
    for text in (yaml.safe_dump(data, allow_unicode=True), yaml.safe_dump(data, width=4096)):
        assert parse_yaml(text.encode()) == yaml.safe_load(text)
