"""The parts of a generated service's border, each alone."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bentoml.exceptions import BentoMLConfigException

import kfp_bento.runtime.bentos

TRAVELLERS = Path(kfp_bento.runtime.bentos.__file__).parent
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def guard() -> Any:
    """The module that travels with every service."""
    sys.path.insert(0, str(TRAVELLERS))
    try:
        import pyfunc_guard
        import pyfunc_lean  # noqa: F401 (for those who look for it in `sys.modules`)
    finally:
        sys.path.remove(str(TRAVELLERS))
    return pyfunc_guard


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"KFP_BENTO_API_TOKEN": "short"}, "a token of less than 16 characters"),
        ({"KFP_BENTO_API_TOKEN": f"{TOKEN} short"}, "a token of less than 16 characters"),
        ({"KFP_BENTO_API_TOKEN": ""}, "is set, but holds no token"),
        ({"KFP_BENTO_API_TOKEN": " \n"}, "is set, but holds no token"),
        ({"KFP_BENTO_API_TOKEN_FILE": "/no/such/file"}, "KFP_BENTO_API_TOKEN_FILE: No such file"),
        ({"KFP_BENTO_API_TOKEN_FILE": ""}, "KFP_BENTO_API_TOKEN_FILE: "),
    ],
)
def test_tokens_that_cannot_be_used_are_an_error(
    guard: Any, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(BentoMLConfigException, match=reason) as caught:
        guard.Tokens()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("text", ["many", "0", "-1", "1.5", "1e9", "\u0661"])
def test_a_limit_that_is_no_number_is_an_error(
    guard: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("KFP_BENTO_MAX_ROWS", text)
    with pytest.raises(BentoMLConfigException, match="KFP_BENTO_MAX_ROWS is not a whole number"):
        guard.Limits.from_environment()


def test_a_switch_is_true_or_false(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guard.switch("KFP_BENTO_X", default=True)
    monkeypatch.setenv("KFP_BENTO_X", "False")
    assert not guard.switch("KFP_BENTO_X", default=True)
    monkeypatch.setenv("KFP_BENTO_X", "perhaps")
    with pytest.raises(BentoMLConfigException, match="neither 'true' nor 'false'"):
        guard.switch("KFP_BENTO_X", default=True)


ADDRESSES = ["localhost:3000", "a.localhost.", "127.0.0.1", "[::1]:3000", "10.0.0.1:80", ""]
NAMES = ["evil.example:3000", "127.0.0.1.evil.example", "localhost.evil.example", "xlocalhost"]


def test_a_page_that_gives_its_name_our_address_is_not_answered(
    guard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    def admitted(names: list[str], listens_on: str) -> set[bool]:
        hosts = guard.Hosts()
        return {hosts.admit(name.encode("latin-1"), listens_on) for name in names}

    assert admitted(ADDRESSES, "127.0.0.1") == {True}
    assert admitted([*NAMES, "\xff"], "127.0.0.1") == {False}
    assert admitted([*NAMES, "\xff"], "::1") == {False}
    assert admitted(NAMES, "10.0.0.1") == {True}  # others than this machine's browsers reach it too
    monkeypatch.setenv("KFP_BENTO_ALLOWED_HOSTS", "wine.svc evil.example:3000")
    assert admitted(["wine.svc", "wine.svc:80", "WINE.svc", "evil.example:3000"], "") == {True}
    assert admitted(["evil.example", "localhost"], "127.0.0.1") == {False}
    monkeypatch.delenv("KFP_BENTO_ALLOWED_HOSTS")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # a sidecar asks by loopback
    assert admitted(NAMES, "127.0.0.1") == {True}


def test_large_bodies_take_turns_and_one_alone_always_passes(guard: Any) -> None:
    async def story() -> list[str]:
        turns, told = guard.Turns(10), list[str]()

        async def work(name: str, size: int, done: asyncio.Event) -> None:
            await turns.enter(size)
            told.append(f"{name} in")
            await done.wait()
            turns.leave(size)

        events = [asyncio.Event() for _ in range(3)]
        tasks = []
        for name, size, done in zip("abc", (99, 9, 2), events, strict=True):
            tasks.append(asyncio.create_task(work(name, size, done)))
            await asyncio.sleep(0)
        for name, done in zip("abc", events, strict=True):
            told.append(f"{name} out")
            done.set()
            for _ in range(5):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return told

    assert asyncio.run(story()) == ["a in", "a out", "b in", "b out", "c in", "c out"]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"a": [1.5, None, "\u2028\xe9"], "b": {"c": []}},
        list(range(3001)),
        [[n, [True] * 1001] for n in range(1001)],
        [{"a": n} for n in range(2500)],
        [[0.1] * 2000] * 3,
    ],
)
def test_answers_in_pieces_are_the_answers(guard: Any, value: Any) -> None:
    assert sys.modules["pyfunc_lean"].encoded(value) == json.dumps(value)
