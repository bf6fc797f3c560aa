"""Whatever is sent to the local target, it answers or hangs up, and starts nothing that is none."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_releases import IMAGE, said_to, spoken

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import JSON_LIMIT
from kfp_bento.runtime.local.endpoint import RELEASES as PATH
from kfp_bento.runtime.local.endpoint import Refused, body_length, serve_endpoint
from kfp_bento.runtime.local.request import LONGEST_TEXT, ReleaseRequest, parse_request

texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            *(IMAGE, "oci:/run/image", "oci:/run/image:tag", "oci:", "oci::", "oci:../x", "/run/b"),
            *("docker://x/y@sha256:" + "a" * 64, "--root=/", "\0", "/a\0b", "/" + "x" * 5000, ""),
        ]
    ),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "image": st.one_of(texts, anything),
        "image_location": st.one_of(texts, anything),
        "bento_directory": st.one_of(texts, anything),
        "manifests": st.one_of(st.lists(st.dictionaries(texts, anything, max_size=2)), anything),
        "more": anything,
    },
)
bodies = st.one_of(
    st.binary(max_size=200),
    requests.map(lambda value: json.dumps(value).encode()),
    requests.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"NaN", b"{}", b"\xff"]),
)
names = st.sampled_from(
    [
        *("Host", "host", "Content-Length", "content-length", "Content-Type", "Origin"),
        *("Transfer-Encoding", "Referer", "Sec-Fetch-Site", "Expect", "X-Else", ""),
    ]
)
values = st.one_of(
    st.sampled_from(
        [
            *("localhost", "localhost:80", "application/json", "application/json; charset=utf-8"),
            *(
                "text/plain",
                "chunked",
                "identity",
                "0",
                "12",
                "-1",
                "+1",
                "1_0",
                "\u0661",
                "9" * 30,
            ),
            *("4194304", "4194305", "1, 1", " 7 ", "", "null", "100-continue"),
        ]
    ),
    st.text(max_size=12),
)
headers = st.lists(st.tuples(names, values), max_size=7).flatmap(
    lambda more: st.sampled_from(
        [
            more,
            [("Host", "localhost"), ("Content-Type", "application/json"), *more],
            [
                ("Host", "localhost"),
                ("Content-Type", "application/json"),
                ("Content-Length", "9"),
                *more,
            ],
        ]
    )
)


def check_body(body: bytes) -> None:
    try:
        found = parse_request(body)
    except InvalidInput:
        return
    assert isinstance(found, ReleaseRequest)
    assert found.bento_directory.is_absolute()
    assert found.digest.startswith("sha256:")
    assert not found.image.startswith("-")
    for path in (found.bento_directory, *([found.layout.directory] if found.layout else [])):
        assert path.is_absolute()
        assert "\0" not in str(path)
        assert len(str(path)) <= LONGEST_TEXT


def check_headers(path: str, given_headers: list[tuple[str, str]]) -> None:
    try:
        length = body_length(path, given_headers)
    except Refused as refused:
        assert 400 <= refused.status < 600
        return
    assert path == PATH
    assert 0 <= length <= JSON_LIMIT
    lowered = {name.lower(): value for name, value in given_headers}
    assert lowered["host"].strip() == "localhost"
    assert not lowered.keys() & {"origin", "transfer-encoding", "referer", "sec-fetch-site"}


def profile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


@profile(60)
@given(bodies)
def test_a_body_is_a_release_or_refused(body: bytes) -> None:
    check_body(body)


@profile(100)
@given(st.sampled_from([PATH, "/", "/releases/", "*", ""]) | st.just(PATH), headers)
def test_headers_tell_a_length_or_are_refused(path: str, given: list[tuple[str, str]]) -> None:
    check_headers(path, given)


@pytest.mark.slow
@profile(20_000)
@given(bodies)
def test_many_bodies(body: bytes) -> None:
    check_body(body)


@pytest.mark.slow
@profile(20_000)
@given(st.just(PATH), headers)
def test_many_headers(path: str, given: list[tuple[str, str]]) -> None:
    check_headers(path, given)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """A real endpoint that waits for nobody, and the bodies that got through."""
    monkeypatch.setattr("kfp_bento.runtime.local.endpoint.READ_SECONDS", 0.05)
    handled: list[bytes] = []

    def handle(body: bytes) -> dict[str, str]:
        parse_request(body)
        handled.append(body)
        return {"url": "http://127.0.0.1:1"}

    with tempfile.TemporaryDirectory() as place, serve_endpoint(Path(place) / "x", {PATH: handle}):
        yield f"unix:{place}/x", handled


def mangled(random_: random.Random, whole: bytes) -> bytes:
    """A request with a few of its bytes changed, cut, doubled, or replaced by telling ones."""
    pieces = (b"\r\n", b"\n", b"\0", b": ", b" ", b"Transfer-Encoding: chunked\r\n", b"\xff", b"{")
    data = bytearray(whole)
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(data) + 1)
        to = min(len(data), at + random_.choice((0, 1, 2, 20, 500)))
        data[at:to] = random_.choice(
            (b"", bytes(data[at:to]) * 2, random_.choice(pieces), random_.randbytes(3))
        )
    return bytes(data)


def speak_many(endpoint: tuple[str, list[bytes]], count: int) -> None:
    address, handled = endpoint
    body = json.dumps({"image": IMAGE, "image_location": "", "bento_directory": "/b"}).encode()
    random_ = random.Random(7)
    statuses: set[int] = set()
    for _ in range(count):
        before = len(handled)
        status, _told = said_to(address, mangled(random_, spoken(body)), seconds=10)
        statuses.add(status)
        assert status in {0, *(int(known) for known in HTTPStatus)}
        assert (len(handled) > before) == (status == 200)
    assert 400 in statuses
    assert said_to(address, spoken(body))[0] == 200  # and it goes on


def test_malformed_http_starts_nothing_and_ends_nothing(
    endpoint: tuple[str, list[bytes]],
) -> None:
    speak_many(endpoint, 40)


@pytest.mark.slow
def test_much_malformed_http(endpoint: tuple[str, list[bytes]]) -> None:
    speak_many(endpoint, 3000)


def test_what_is_taken_is_what_was_meant() -> None:
    found = parse_request(
        json.dumps(
            {
                "manifests": [{"kind": "Bento"}],
                "image": IMAGE,
                "image_location": "oci:/run/image:v1",
                "bento_directory": "/run/steps/bento",
            }
        ).encode()
    )
    assert found.layout is not None
    assert (found.image, str(found.layout)) == (IMAGE, "oci:/run/image:v1")
    assert found.bento_directory == Path("/run/steps/bento")
    typed: Any = found
    assert typed.digest == "sha256:" + "a1" * 32
