"""The smoke test: what passes, what does not, and what it says about it."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_models import TAG, make_golden
from faulty_services import Service, serve

from kfp_bento.runtime.checks import smoke_test
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.proof import Content, Golden, GoldenRequest
from kfp_bento.runtime.proof.golden import SERVICE, with_answer


def test_the_request_is_the_first_golden_one(golden: Golden) -> None:
    with serve(Service()) as service:
        report = smoke_test(service.url, golden, timeout=5)
    assert report.passed, report.summary
    assert service.bodies == [{"inputs": [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]}]
    assert service.paths == ["/readyz", "/predict"]


def test_a_service_that_becomes_ready_in_time_passes(golden: Golden) -> None:
    service = Service(readyz=lambda age: (200, b"") if age > 0.6 else (503, b"loading"))
    with serve(service):
        report = smoke_test(service.url, golden, timeout=10)
    assert report.passed, report.summary
    assert 0.5 < report.measures["seconds_to_ready"] < 5


def test_a_service_that_is_not_ready_in_time_fails_with_its_last_answer(
    golden: Golden,
) -> None:
    with serve(Service(readyz=lambda _: (503, b"loading the model"))) as service:
        start = time.monotonic()
        report = smoke_test(service.url, golden, timeout=0.7)
    assert not report.passed
    assert "503 loading the model" in report.summary
    assert time.monotonic() - start < 2
    assert service.bodies == []


def test_a_service_without_readyz_fails_at_once(golden: Golden) -> None:
    with serve(Service(readyz=lambda _: (404, b"no such page"))) as service:
        start = time.monotonic()
        report = smoke_test(service.url, golden, timeout=30)
    assert not report.passed
    assert "404 no such page" in report.summary
    assert time.monotonic() - start < 5


def test_a_redirect_is_not_followed(golden: Golden) -> None:
    with serve(Service(readyz=lambda _: (302, b"log in"))) as service:
        report = smoke_test(service.url, golden, timeout=5)
    assert not report.passed
    assert "302" in report.summary


TOKEN = "a-token-of-the-service"


def test_the_service_gets_the_token_of_the_step_and_nobody_else_does(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_API_TOKEN", f"{TOKEN}\nan-older-token-of-the-service")
    with serve(Service()) as elsewhere:
        moved = Service(predict=lambda _: (307, b""), location=f"{elsewhere.url}/predict")
        with serve(moved):
            assert not smoke_test(moved.url, golden, timeout=5).passed
    assert moved.logins == [None, f"Bearer {TOKEN}"]  # its health is no secret
    assert elsewhere.logins == []


def test_a_token_may_come_from_a_file(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("KFP_BENTO_API_TOKEN_FILE", str(tmp_path / "token"))
    with serve(Service()) as service:
        assert smoke_test(service.url, golden, timeout=5).passed
    assert service.logins == [None, f"Bearer {TOKEN}"]


@pytest.mark.parametrize(
    "variables",
    [
        {"KFP_BENTO_API_TOKEN": ""},
        {"KFP_BENTO_API_TOKEN": "a-t\u00f6ken-of-the-service"},
        {"KFP_BENTO_API_TOKEN": "a-token\x1b[2Kof-the-service"},
        {"KFP_BENTO_API_TOKEN_FILE": "/no/such/file"},
        {"KFP_BENTO_API_TOKEN_FILE": "/dev/zero"},
    ],
)
def test_a_token_that_cannot_be_sent_is_an_error(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with serve(Service()) as service, pytest.raises(CheckError, match="holds no token") as caught:
        smoke_test(service.url, golden, timeout=5)
    assert "ken" not in str(caught.value).replace("token", "").replace("TOKEN", "")
    assert service.logins == [None]


def test_a_port_nobody_listens_on_is_tried_until_the_deadline(golden: Golden) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    report = smoke_test(f"http://127.0.0.1:{port}", golden, timeout=0.5)
    assert not report.passed
    assert "no connection" in report.summary
    assert report.measures["seconds_to_ready"] >= 0.4


WRONG: list[tuple[str, Any, str]] = [
    ("500", (500, b'{"error": "boom"}'), 'the status is 500 {"error": "boom"}'),
    ("html", (200, b"<html>hello</html>"), "no JSON: 200 <html>hello"),
    ("empty", (200, b""), "no JSON"),
    ("deep", (200, b"[" * 100_000), "no JSON"),
    ("too few", (200, [0]), "1 values for 2 rows"),
    ("too many", (200, [0, 0, 0]), "3 values for 2 rows"),
    ("wrapped", (200, {"predictions": [0, 0]}), "keys ['predictions']"),
    ("no list", (200, 0), "not a list"),
    ("floats", (200, [0.5, 1.0]), "the number 0.5, not int64"),
    ("booleans", (200, [True, False]), "a boolean, not int64"),
    ("strings", (200, ["0", "1"]), "a string, not int64"),
    ("nulls", (200, [None, 0]), "null, not int64"),
    ("nested", (200, [[0], [0]]), "a list, not int64"),
]


@pytest.mark.parametrize(
    ("answer", "problem"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_a_wrong_answer_fails_and_is_named(golden: Golden, answer: Any, problem: str) -> None:
    with serve(Service(predict=lambda _: answer)) as service:
        report = smoke_test(service.url, golden, timeout=5)
    assert not report.passed
    assert problem in report.summary


def test_a_service_that_drips_is_cut_off_at_the_deadline(golden: Golden) -> None:
    with serve(Service(predict=lambda _: (200, b" " * 1000), drip=0.05)) as service:
        start = time.monotonic()
        report = smoke_test(service.url, golden, timeout=1)
    assert not report.passed
    assert "no complete answer within 1 s" in report.summary
    assert time.monotonic() - start < 3


def test_an_answer_that_is_cut_short_is_no_answer(golden: Golden) -> None:
    with serve(Service(predict=lambda _: (200, b"[0, 0]"), promise=7)) as service:
        report = smoke_test(service.url, golden, timeout=5)
    assert not report.passed
    assert "IncompleteRead" in report.summary


NAMED = (
    {"type": "double", "name": "low", "required": True},
    {"type": "string", "name": "label", "required": False},
)
FLOATS = ({"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}},)
ONE_NAMED = ({"type": "long", "name": "target", "required": True},)
FIXED = ({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [3]}},)


@pytest.mark.parametrize(
    ("outputs", "answer", "passed"),
    [
        (NAMED, [{"low": 1.5, "label": "x"}, {"low": 2, "label": None}], True),
        (NAMED, [{"low": 1.5}, {"low": 2}], False),
        (NAMED, [{"low": "1.5", "label": "x"}, {"low": 2, "label": "y"}], False),
        (NAMED, [1.5, 2.5], False),
        (FLOATS, [[0.5, 0.5], [1, None]], True),
        (FLOATS, [[0.5], [1.0]], False),
        (FLOATS, [0.5, 1.0], False),
        (ONE_NAMED, [1, 2], True),
        (ONE_NAMED, [{"target": 1}, {"target": 2}], True),
        (FIXED, [0.1, 0.2, 0.3], True),
        (FIXED, [0.1, 0.2], False),
        ((), ["anything", {"goes": True}], True),
        ((), ["one"], False),
    ],
)
def test_the_answer_must_be_what_the_signature_promises(
    outputs: Any, answer: Any, passed: bool
) -> None:
    golden = make_golden(outputs=outputs)
    with serve(Service(predict=lambda _: (200, answer))) as service:
        assert smoke_test(service.url, golden, timeout=5).passed is passed


GREETING = with_answer(
    GoldenRequest(
        "given 1", "given", path="/greet?loud=1", content=Content("text/csv", "text", "a")
    ),
    200,
    Content("text/plain", "text", "hello"),
    SERVICE,
)


@pytest.mark.parametrize(
    ("answer", "media_type", "said"),
    [
        ((200, b"anything"), "text/plain", "as when it was built"),
        ((200, b"anything"), "text/html", "the media type is text/html, not text/plain"),
        ((200, b"anything"), "", "the media type is none, not text/plain"),
        ((404, b"no"), "text/plain", "the status is 404 no"),
    ],
)
def test_a_service_of_ones_own_is_asked_its_own_way(
    answer: Any, media_type: str, said: str
) -> None:
    golden = make_golden(requests=[GREETING])
    with serve(Service(predict=lambda _: answer, media_type=media_type)) as service:
        report = smoke_test(service.url, golden, timeout=5)
    assert report.passed is (said == "as when it was built")
    assert said in report.summary
    assert service.paths[-1] == "/greet?loud=1"
    assert service.bodies == [b"a"]


def test_each_path_is_asked_once(golden: Golden) -> None:
    other = replace(golden.requests[0], path="/predict/other")
    both = replace(golden, requests=(*golden.requests, other))
    with serve(Service(predict=lambda body: (200, [0] * len(body["inputs"])))) as service:
        report = smoke_test(service.url, both, timeout=5)
    assert report.passed, report.summary
    assert service.paths == ["/readyz", "/predict", "/predict/other"]
    assert report.measures["rows"] == 4


@pytest.mark.parametrize(("answer", "passed"), [((200, [0, 0]), True), ((200, ["x", "y"]), False)])
def test_where_verify_was_off_the_signature_is_all_there_is_and_the_report_says_so(
    answer: Any, passed: bool
) -> None:
    with serve(Service(predict=lambda _: answer)) as service:
        report = smoke_test(service.url, make_golden(None), timeout=5)
    assert report.passed is passed
    assert ("Verify is off" in report.summary) is passed


@pytest.mark.parametrize(("status", "passed"), [(400, True), (500, False)])
def test_made_up_values_may_be_refused(status: int, passed: bool) -> None:
    asked = GoldenRequest("all rows", "synthetic", content=Content.json({}), model=TAG)
    golden = make_golden(None, requests=[asked])
    with serve(Service(predict=lambda _: (status, b"{}"))) as service:
        assert smoke_test(service.url, golden, timeout=5).passed is passed


def test_where_nothing_can_be_asked_readiness_is_all_that_is_said() -> None:
    with serve(Service()) as service:
        report = smoke_test(service.url, make_golden(None, requests=[]), timeout=5)
    assert report.passed
    assert "Nothing is known that could be asked" in report.summary
    assert service.bodies == []


def test_a_release_that_was_only_rendered_cannot_be_checked(golden: Golden) -> None:
    with pytest.raises(CheckError, match="only rendered"):
        smoke_test("", golden)


@pytest.mark.parametrize("url", ["wine", "ftp://x", "http://", "http://x:y", "http://x?a=1"])
def test_what_is_no_url_cannot_be_checked(golden: Golden, url: str) -> None:
    with pytest.raises(CheckError, match="is no address"):
        smoke_test(url, golden)


def test_proxies_of_the_environment_are_not_used(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serve(Service()) as service:
        assert smoke_test(service.url, golden, timeout=5).passed
