"""Golden answers survive a file, and what somebody else wrote there never passes for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.models import ModelSignature
from kfp_bento.runtime.proof import Content, Golden, GoldenRequest, load_given_golden
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import MODEL, SERVICE, GoldenModel, with_answer

SIGNATURE = ModelSignature.from_dict(
    {"inputs": [{"type": "double", "name": "a", "required": True}], "outputs": []}
)
GOLDEN = Golden(
    bento="wine:0123456789abcdef",
    models=(GoldenModel("wine:ab", "models:/wine/1", "1", "sha256:" + "ab" * 32, SIGNATURE),),
    requests=(
        with_answer(
            GoldenRequest(
                "all rows", "input example", content=Content.json({"inputs": [{"a": 1}]})
            ),
            200,
            Content.json([1.5, None, 10**20]),
            MODEL,
        ),
        with_answer(
            GoldenRequest(
                "given 2",
                "given",
                "PUT",
                "/draw?x=1",
                Content("image/png", "base64", "iVBORw=="),
                {"X-Kind": "cat"},
            ),
            200,
            Content("text/csv; charset=utf-8", "text", "a,b\nü,2"),
            SERVICE,
        ),
        GoldenRequest("given 3", "given", "GET", "/livez"),
    ),
    verified="on",
    reason="It was asked.",
    tolerance=Tolerance(1e-6, 1e-9),
    rows="dependent",
    rows_reason="Row 1 differs.",
)


class Artifact:
    def __init__(self, path: Path, **metadata: str) -> None:
        self.path, self.metadata = str(path), metadata


def test_golden_answers_survive_a_file(tmp_path: Path) -> None:
    record = GOLDEN.save(tmp_path / "golden.json")
    assert Golden.load(tmp_path / "golden.json") == GOLDEN
    assert load_given_golden(Artifact(tmp_path / "golden.json", record=record)) == GOLDEN


def test_a_file_that_was_changed_after_the_build_is_refused(tmp_path: Path) -> None:
    record = GOLDEN.save(tmp_path / "golden.json")
    text = (tmp_path / "golden.json").read_text()
    (tmp_path / "golden.json").write_text(text.replace("1.5", "2.5"))
    with pytest.raises(CheckError, match="somebody changed them"):
        load_given_golden(Artifact(tmp_path / "golden.json", record=record))


def request(**changes: Any) -> dict[str, Any]:
    return {**GOLDEN.to_dict()["requests"][0], **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"bento": 1},
        {"models": [1]},
        {"models": [{"tag": "a"}]},
        {"verified": True},
        {"verified": "perhaps"},
        {"reason": None},
        {"tolerance": {"relative": "x", "absolute": 0}},
        {"rows": {"are": "fine", "reason": ""}},
        {"requests": {}, "rows": 1},
        {"requests": [request(method="TRACE")]},
        {"requests": [request(path="http://elsewhere/")]},
        {"requests": [request(path="@elsewhere/predict")]},
        {"requests": [request(path="/predict HTTP/1.1\r\nHost: x")]},
        {"requests": [request(headers={"Authorization": "Bearer x"})]},
        {"requests": [request(headers={"X": "a\r\nb: c"})]},
        {"requests": [request(headers=[])]},
        {"requests": [request(body={"json": 1, "text": "x"})]},
        {"requests": [request(body={"base64": "?"})]},
        {"requests": [request(rows=-1)]},
        {"requests": [request(rows=True)]},
        {"requests": [request(answer={"status": 99, "source": "", "body": {"json": 1}})]},
    ],
    ids=range(22),
)
def test_a_field_of_another_kind_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text(json.dumps({**GOLDEN.to_dict(), **change}))
    with pytest.raises(CheckError, match="no golden answers") as refused:
        Golden.load(tmp_path / "golden.json")
    assert refused.value.hint


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "{", "[" * 100_000, '{"format": 1}'])
def test_a_file_that_holds_no_golden_answers_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "golden.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckError, match="no golden answers"):
        Golden.load(path)


@pytest.mark.parametrize(
    ("body", "media_type", "content"),
    [
        (b'{"a": NaN}', "application/json", Content("application/json", "json", {"a": None})),
        (b"{", "application/json", Content("application/json", "base64", "ew==")),
        (b"[1]", "application/problem+json", Content("application/problem+json", "json", [1])),
        (b"a,b", "text/csv", Content("text/csv", "text", "a,b")),
        (b"\xff", "text/csv", Content("text/csv", "base64", "/w==")),
        (b"\x89PNG", "image/png", Content("image/png", "base64", "iVBORw==")),
        (b"[1]", "", Content("", "base64", "WzFd")),
    ],
)
def test_a_body_is_kept_as_what_its_media_type_says(
    body: bytes, media_type: str, content: Content
) -> None:
    assert Content.of(body, media_type) == content
    assert Content.from_dict(json.loads(json.dumps(content.to_dict()))) == content
    if content.form != "json":
        assert content.to_bytes() == body
