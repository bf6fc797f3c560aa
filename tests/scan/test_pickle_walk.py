"""What a walk finds, beside what pickle itself asks for: never less, whatever the bytes are."""

from __future__ import annotations

import datetime
import io
import json
import pickle
import pickletools
import random
import subprocess
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path, PurePosixPath

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_pickles import looked

from kfp_bento.runtime.scan.limits import Budget, Limits
from kfp_bento.runtime.scan.pickles import read_pickles
from kfp_bento.runtime.scan.source import Source

PROGRAM = Path(__file__).with_name("recording_unpickler.py")
OPCODES = [one.code.encode("latin-1") for one in pickletools.opcodes]
LINES = [b"os", b"system", b"1", b"0", b"01", b"'a'", b"-3", b"2.5", b"x\xff", b"", b"70000", b" 1"]
CONTENTS = [b"os", b"system", b"a", b"", b"\x80\x04.", b"\xff", b"\xed\xa0\x80"]
# What makes pickles that come far: names, calls and the memo, more often than they would come.
LIKELY = [
    b"c",
    b"\x93",
    b"R",
    b"(",
    b"t",
    b"\x94",
    b"h",
    b"q",
    b"\x8c",
    b"0",
    b"2",
    b"o",
    b"i",
    b"b",
]


MAGIC = [
    *(b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"BZh9", b"\x93NUMPY\x01\0", b"x\x9c"),
    *(b"\xfd7zXZ\0", b"]\0\0", b"\x89HDF\r\n\x1a\n", b"\x08\x07\x12", b"\x80\x04\x95"),
]


def argument(state: random.Random, code: bytes) -> bytes:
    """An argument for an opcode, mostly one that can be read."""
    described = pickletools.code2op[code.decode("latin-1")].arg
    if described is None:
        return b""
    if described.n >= 0:
        small = bytes([state.choice([0, 1, 2, 3, 4, 5])]) + bytes(max(described.n - 1, 0))
        return small[: described.n]
    if described.n == -1:
        count = 2 if "pair" in described.name else 1
        return b"".join(state.choice(LINES) + b"\n" for _ in range(count))
    content = state.choice(CONTENTS)
    width = {-2: 1, -3: 4, -4: 4, -5: 8}[described.n]
    return len(content).to_bytes(width, "little") + content


def random_pickle(seed: int) -> bytes:
    state = random.Random(seed)
    body = b"\x80" + bytes([state.choice([0, 2, 3, 4, 5])]) if state.random() < 0.7 else b""
    for _ in range(state.randint(1, 40)):
        if state.random() < 0.1:
            keys = [bytes([state.randrange(3)]) for _ in range(4)]
            body += b"\x8c\x02osq" + keys[0] + b"0\x8c\x06systemq" + keys[1] + b"0"
            body += b"h" + keys[2] + b"h" + keys[3] + b"\x93"
        code = state.choice(LIKELY) if state.random() < 0.6 else state.choice(OPCODES)
        if code == b"." and state.random() < 0.9:
            continue
        if code == b"\x93" and state.random() < 0.7:
            body += b"\x8c\x02os\x8c\x06system"
        body += code + argument(state, code)
    return body + b"." if state.random() < 0.8 else body


def mutated(seed: int, whole: bytes) -> bytes:
    state = random.Random(seed)
    data = bytearray(whole)
    for _ in range(state.randint(1, 4)):
        place = state.randrange(len(data))
        kind = state.random()
        if kind < 0.5:
            data[place] = state.randrange(256)
        elif kind < 0.75:
            del data[place : place + state.randint(1, 5)]
        else:
            data[place:place] = state.choice(OPCODES)
    return bytes(data)


def asked(pickles: list[bytes]) -> list[list[set[tuple[str, str]]]]:
    """What the readers of pickles ask for, by each of them; nothing of one that kills them."""
    found: list[list[set[tuple[str, str]]]] = []
    while len(found) < len(pickles):
        lines = "".join(f"{one.hex()}\n" for one in pickles[len(found) :])
        done = subprocess.run(
            [sys.executable, str(PROGRAM)], input=lines, capture_output=True, text=True
        )
        for line in done.stdout.splitlines():
            found.append([{(module, name) for module, name in one} for one in json.loads(line)])
        assert done.returncode <= 0, done.stderr
        if done.returncode:
            found.append([])
    return found


def true_pickles() -> list[bytes]:
    kept = [
        {"a": np.array([1.5, 2]), "b": datetime.datetime(2026, 1, 1), "c": Counter("aab")},
        [Fraction(1, 3), {1, 2}, frozenset("x"), PurePosixPath("a"), np.float64(1), b"x" * 300],
        np.array(["a", None, {"b": 1}], dtype=object),
        defaultdict(list, {"x": [np.random.RandomState(1)]}),
    ]
    files = [pickle.dumps(one, protocol) for protocol in range(6) for one in kept]
    for one in kept:
        file = io.BytesIO()
        joblib.dump(one, file)
        files.append(file.getvalue())
    return files


def compare(pickles: list[bytes]) -> tuple[int, int]:
    """How many of some pickles import anything; and how many names are found beyond that."""
    importing = more = 0
    for data, by_each in zip(pickles, asked(pickles), strict=True):
        found = read_pickles(Source.of(io.BytesIO(data)), 0, Budget(Limits()))
        by_any = set[tuple[str, str]]().union(*by_each)
        # Where it says that it cannot follow, it need not.
        if not any("name it makes" in words or "frame" in words for words in found.puzzles):
            assert by_any <= found.asked, data
        importing += bool(by_any)
        more += len(found.asked - by_any)
    return importing, more


def test_every_name_that_pickle_asks_for_is_found() -> None:
    importing, more = compare([random_pickle(seed) for seed in range(4_000)])
    assert importing > 500
    # A walk that told of everything would be of no use.
    assert more < importing


def test_every_name_is_found_in_true_pickles_that_were_spoiled() -> None:
    whole = true_pickles()
    spoiled = [mutated(seed, whole[seed % len(whole)]) for seed in range(900)]
    importing, _ = compare([*whole, *spoiled])
    assert importing > 600


@pytest.mark.slow
def test_every_name_that_pickle_asks_for_is_found_at_length() -> None:
    whole = true_pickles()
    for block in range(8):
        seeds = range(10_000 + block * 4_000, 10_000 + (block + 1) * 4_000)
        compare([random_pickle(seed) for seed in seeds])
        compare([mutated(seed, whole[seed % len(whole)]) for seed in seeds[:300]])


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300)
    | st.integers(0, 1 << 40).map(random_pickle)
    | st.builds(
        lambda head, rest: head + rest,
        st.sampled_from(MAGIC),
        st.binary(max_size=300),
    )
)
def test_whatever_the_bytes_are_a_scan_ends_with_a_report(data: bytes) -> None:
    for name in ("model.pkl", "model.onnx", "saved_model.pb", "a!config.json", "a!schema.json"):
        assert isinstance(looked(data, name), list)
