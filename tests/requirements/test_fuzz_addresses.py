"""An address is allowed only where every reader of addresses agrees that it is below the prefix."""

from __future__ import annotations

import posixpath
import urllib.parse

import pytest
import urllib3.util
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_bento.runtime.requirements.addresses import allowed_sources, parse_address

SHORT = settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=50_000)

ALLOWED = allowed_sources(["https://good.example/whl/cpu"])
PIECES = [
    *("https://", "HTTPS://", "http://", "https:", "//", "https:/", "https:\\\\", "ftp://", "git+"),
    *("good.example", "GOOD.example", "good.example.", "evil.example", ".evil.example", "xn--"),
    *("good\u3002example", "g\u043e\u043ed.example", "\u212a", "good.example%00", "[::1]", "127.1"),
    *("@", ":", ":443", ":0443", ":80", ":", ":99999", "user", "user:pass@", "%40", "\\", "\\@"),
    *("/", "/whl", "/whl/cpu", "/whl/cpu/", "/whl/cpuX", "/WHL/cpu", "whl", "cpu", "/x", "//x"),
    *(
        "..",
        "/..",
        "/../",
        "/./",
        "%2e%2e",
        "/%2e%2e/",
        "%2f",
        "%5c",
        "/%252e%252e/",
        ";/../",
        "..;",
    ),
    *("?", "?x=", "#", "#sha256=0", "#@good.example/whl/cpu", "?@good.example/", " ", "\t", "\n"),
    *("a-1-py3-none-any.whl", "%2B", "+", "~", "\x00", "\x0b", "\u2028"),
]
addresses = st.one_of(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=2)), max_size=8).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map(
        lambda parts: "https://good.example/whl/cpu" + "".join(parts)
    ),
    st.lists(st.sampled_from(PIECES), max_size=4).map(
        lambda parts: "https://" + "".join(parts) + "good.example/whl/cpu/x"
    ),
)


def check(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError as reason:
        assert "pass" not in str(reason)
        return
    assert parse_address(address.text) == address
    assert address.text.isascii()
    assert address.text.isprintable()
    assert "@" not in urllib.parse.urlsplit(address.text).netloc
    if not ALLOWED.allows(address):
        return
    for given_text in (text, address.text):
        parts = urllib.parse.urlsplit(given_text)
        other = urllib3.util.parse_url(given_text)
        assert parts.scheme == other.scheme == "https"
        assert parts.hostname == other.host == "good.example"
        assert (parts.port or 443, other.port or 443) == (443, 443)
        for path in (parts.path, other.path or ""):
            plain = posixpath.normpath(urllib.parse.unquote(urllib.parse.unquote(path)))
            assert f"{plain}/".startswith("/whl/cpu/")
            assert "\\" not in plain
        assert not parts.query


@SHORT
@given(addresses)
def test_an_allowed_address_is_below_the_prefix_for_everybody(text: str) -> None:
    check(text)


@pytest.mark.slow
@LONG
@given(addresses)
def test_an_allowed_address_is_below_the_prefix_for_everybody_at_length(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("https://good.example/whl/cpu", True),
        ("https://good.example/whl/cpu/", True),
        ("https://GOOD.example:443/whl/cpu/torch-2.1.0%2Bcpu-cp311-cp311-linux_x86_64.whl", True),
        ("https://good.example@evil.example/whl/cpu/", False),
        ("https://evil.example/whl/cpu/", False),
        ("https://good.example.evil.example/whl/cpu/", False),
        ("https://good.example:444/whl/cpu/", False),
        ("http://good.example/whl/cpu/", False),
        ("https://good.example/whl/cpu-evil/", False),
        ("https://good.example/whl/", False),
        ("https://good.example/WHL/cpu/", False),
    ],
)
def test_whole_parts_of_an_address_count(text: str, allowed: bool) -> None:
    assert ALLOWED.allows(parse_address(text)) is allowed


@pytest.mark.parametrize(
    "text",
    [
        "https://good.example/whl/cpu/../evil",
        "https://good.example/whl/cpu/%2e%2e/evil",
        "https://good.example/whl/cpu/%2fevil",
        "https://good.example/whl/cpu//evil",
        "https://good.example\\@evil.example/whl/cpu",
        "https://g\u043e\u043ed.example/whl/cpu",
        "https://good.example./whl/cpu",
        "https://good.example/whl/cpu?x=1",
        "https://good.example/whl/cpu\n",
        "//good.example/whl/cpu",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it "):
        parse_address(text)
