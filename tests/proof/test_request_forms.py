"""Requests as people write them: forms with files, files beside, addresses, answers, kinds."""

from __future__ import annotations

import base64
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers import S3Server

from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.http import HttpAnswer
from kfp_bento.runtime.proof import Content, Golden, GoldenRequest, answer_differences
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import REQUEST, GoldenAnswer
from kfp_bento.runtime.proof.proving import _judged, _require_same, unproven
from kfp_bento.runtime.proof.request_files import given_requests, read_requests
from kfp_bento.runtime.proof.requests import requests_for
from kfp_bento.runtime.storage import open_place

CAT = b"\x89PNG\r\n--not a boundary\r\n\x00\xff"
EXACT = Tolerance(0, 0)
BENTO: Any = SimpleNamespace(directory=Path("nowhere"), tag="own:1")


def asked(*given: Any) -> list[GoldenRequest]:
    return requests_for(BENTO, [], given)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat.png").write_bytes(CAT)
    (tmp_path / "body.json").write_text('{"a": 1}')
    (tmp_path / "requests.yaml").write_text(
        "- path: /measure\n"
        "  multipart:\n"
        "    image: {file: pictures/cat.png}\n"
        "    threshold: 0.5\n"
        "    strict: true\n"
        "    tags: [a, b]\n"
        "    size: {json: {width: 2}}\n"
        "- {path: /whole, file: pictures/cat.png}\n"
        "- {path: /json, file: body.json}\n"
    )
    return tmp_path


def parts_of(content: Content) -> list[tuple[str, str | None, str, bytes]]:
    """The parts as Python's own parser of e-mail reads them."""
    head = f"Content-Type: {content.media_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + content.to_bytes())
    assert not message.defects
    return [
        (
            part["Content-Disposition"].params["name"],
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def test_a_form_with_a_file_is_sent_as_browsers_send_it(folder: Path) -> None:
    form, whole, as_json = asked(str(folder / "requests.yaml"))
    assert form.content and whole.content and as_json.content
    assert form.place == "POST /measure"
    assert parts_of(form.content) == [
        ("image", "cat.png", "image/png", CAT),
        ("size", None, "application/json", b'{"width": 2}'),
        ("strict", None, "text/plain", b"true"),
        ("tags", None, "text/plain", b"a"),
        ("tags", None, "text/plain", b"b"),
        ("threshold", None, "text/plain", b"0.5"),
    ]
    assert (whole.content.media_type, whole.content.to_bytes()) == ("image/png", CAT)
    assert as_json.content.value == {"a": 1}


def test_a_form_is_the_same_bytes_again_and_after_it_was_kept(folder: Path, tmp_path: Path) -> None:
    golden = unproven(BENTO, [], requests=[str(folder / "requests.yaml")])
    golden.save(tmp_path / "golden.json")
    again = Golden.load(tmp_path / "golden.json")
    assert again.requests == golden.requests
    for one, other in zip(golden.requests, again.requests, strict=True):
        assert one.content and other.content
        assert one.content.to_bytes() == other.content.to_bytes()


def test_requests_and_the_files_beside_them_come_from_a_bucket(
    folder: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    address = f"s3://{s3_server.bucket}/forms"
    for name in ("requests.yaml", "pictures/cat.png", "body.json"):
        open_place(f"{address}/{name}").write(folder / name)
    assert given_requests([f"{address}/requests.yaml"]) == read_requests(folder / "requests.yaml")


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../secret", "pictures/../../secret", "link", "", "."]
)
def test_what_is_not_beside_the_requests_is_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    inside = tmp_path / "inside"
    (inside / "pictures").mkdir(parents=True)
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "requests.json").write_text(f'[{{"file": "{name}"}}]')
    with pytest.raises(InvalidInput, match="not beside it") as refused:
        read_requests(inside / "requests.json")
    assert "pictures/cat.png" in refused.value.hint


def test_requests_and_their_files_have_a_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (folder / "requests.yaml").stat().st_size
    monkeypatch.setattr("kfp_bento.runtime.proof.request_files.LARGEST_REQUESTS", size + 5)
    with pytest.raises(InvalidInput, match="it is larger than 5 bytes"):
        read_requests(folder / "requests.yaml")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"multipart": {}}, "no object with fields"),
        ({"multipart": {"a": None}}, "the field a is no plain value"),
        ({"multipart": {"a": {"text": "x", "base64": "eA=="}}}, "the field a is neither"),
        ({"multipart": {"a": {"base64": "~"}}}, "base64 of the field a is none"),
        ({"multipart": {"a": {"file": "x"}}}, "the field a is neither"),
        ({"multipart": {"a\r\nb": "x"}}, "is no line of text"),
        ({"multipart": {"a": "x"}, "text": "y"}, "a body is one of"),
        ({"file": "x"}, "there is none beside"),
        ({"path": "/x", "compare": "loosely"}, "compare is neither value nor kind"),
        ({"path": "/x", "answer": 7}, "answer is no object"),
        ({"path": "/x", "answer": {"state": 200}}, "answer has a field 'state'"),
        ({"path": "/x", "answer": {"status": 7}}, "no HTTP status"),
        ({"path": "/x", "answer": {"json": 1}, "expect": "service"}, "expect says nothing"),
    ],
)
def test_a_form_that_is_none_is_refused(given: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match="Request 1 cannot be sent") as refused:
        asked(given)
    assert told in refused.value.message
    assert "multipart" in refused.value.hint


def judged(request: Any, answer: HttpAnswer) -> GoldenRequest:
    one = asked(request)
    return _judged(BENTO, one, [answer], [None], Tolerance(1e-6, 0))[0][0]


JSON_ONE = HttpAnswer(200, b'{"score": 0.25}', 1, "application/json")


def test_an_answer_that_was_given_has_to_be_served() -> None:
    right = {"path": "/x", "answer": {"json": {"score": 0.25000001}}}
    kept = judged(right, JSON_ONE)
    assert kept.answer == GoldenAnswer(200, Content.json({"score": 0.25000001}), REQUEST)
    for answer in ({"json": {"score": 0.3}}, {"status": 400}, {"text": "0.25"}):
        with pytest.raises(BentoError, match="does not answer as the request says") as refused:
            judged({"path": "/x", "answer": answer}, JSON_ONE)
        assert "`answer` of the request" in refused.value.hint
    assert judged({"path": "/x", "answer": {"status": 200}}, JSON_ONE).compare == "kind"


def test_a_kind_is_the_status_and_the_media_type() -> None:
    right = GoldenAnswer(200, Content.of(CAT, "image/png"), "the service")
    same, other = (HttpAnswer(200, b"other", 1, kind) for kind in ("image/png", "image/jpeg"))
    assert answer_differences(same, right, EXACT)
    assert not answer_differences(same, right, EXACT, "kind")
    (difference,) = answer_differences(other, right, EXACT, "kind")
    assert difference.reason == "image/jpeg instead of image/png"


def test_an_answer_that_is_never_the_same_is_refused_unless_its_kind_is_enough() -> None:
    later: Any = SimpleNamespace(ask=lambda _: HttpAnswer(200, b'{"at": 2}', 1, "application/json"))
    first = HttpAnswer(200, b'{"at": 1}', 1, "application/json")
    with pytest.raises(BentoError, match=r"same twice: GET /now, given 1\['at'\]") as refused:
        _require_same(BENTO, asked({"path": "/now"}), [first], later, EXACT)
    assert "compare: kind" in refused.value.hint
    _require_same(BENTO, asked({"path": "/now", "compare": "kind"}), [first], later, EXACT)


def test_answers_of_the_user_prove_nothing_where_verify_is_off() -> None:
    golden = unproven(BENTO, [], requests=[{"path": "/x", "answer": {"json": 1}}])
    assert golden.answered == ()


def test_a_picture_inline_is_base64() -> None:
    (one,) = asked(
        {"multipart": {"image": {"base64": base64.b64encode(CAT).decode(), "filename": "c.png"}}}
    )
    assert one.content
    assert parts_of(one.content) == [("image", "c.png", "text/plain", CAT)]
