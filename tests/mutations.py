"""Fuzzing with hypothesis: documents and bytes changed here and there, the same in every run."""

from __future__ import annotations

import copy
import json
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_bento.runtime.errors import KfpBentoError

SECONDS = 10.0
# Of what fuzzes: a little of it in every run, much of it with the slow tests.
AMOUNTS = [25, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
MEGABYTES = 600

texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "\0", "../../etc/passwd", "\x1b[2J", "\udc80", "a" * 5000, "sha256:" + "0" * 64]
    ),
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([-1, 0, 1 << 31, 1 << 63, 1 << 64, 10**400]),
        st.floats(),
        texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document, as what holds it and its key there."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def changed_document(draw: st.DrawFn, document: Any) -> Any:
    """The document with one to three places removed, doubled or replaced."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(changed)) if isinstance(changed, dict | list) else []
        if not found:
            return draw(values)
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        action = draw(st.integers(0, 3))
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif action == 1:
            holder[draw(texts)] = copy.deepcopy(holder[key])
        else:
            holder[key] = draw(values)
    return changed


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with up to four pieces replaced, cut out, repeated or put in; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=400))
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.integers(1, 40))
        action = draw(st.integers(0, 3))
        if action == 0:
            data[at : at + size] = draw(st.binary(min_size=1, max_size=size))
        elif action == 1:
            del data[at : at + size]
        elif action == 2:
            data[at:at] = data[at : at + size]
        else:
            del data[at:]
    return bytes(data)


def fuzzed(check: Callable[[Any], object], strategy: st.SearchStrategy[Any], number: int) -> None:
    """Gives a function so many inputs: it takes each, or refuses it with an error of ours.

    Each within `SECONDS`; all together may not make the process larger than `MEGABYTES` more.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(given_input: Any) -> None:
        started = time.monotonic()
        try:
            check(given_input)
        except KfpBentoError as error:
            assert "\x1b" not in str(error), "a control character in an error"
            assert len(str(error)) < 20_000, "an error as long as a book"
        assert time.monotonic() - started < SECONDS, "far too slow"

    run()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES << 10, f"{grown >> 10} MiB more"
