"""Golden requests out of a service that BentoML serves, as programs ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from kfp_bento_command import COMMAND, assert_refused, kfp_bento
from servers import free_port

from kfp_bento.runtime.checks import Recording, record_examples, recording_proxy
from kfp_bento.runtime.checks.readiness import wait_for_readyz
from kfp_bento.runtime.checks.recorded_request import recorded_request
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.files import parse_yaml
from kfp_bento.runtime.http import HttpAnswer
from kfp_bento.runtime.proof import Content, given_requests

SERVICE = """
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from pydantic import BaseModel, Field

class Asked(BaseModel):
    age: int = Field(examples=[31])
    town: str = "a"

@bentoml.service
class Many:
    @bentoml.api
    def score(self, asked: Asked) -> dict[str, int]:
        return {"score": asked.age}

    @bentoml.api
    def size(self, image: Annotated[Path, ContentType("image/png")], factor: float) -> float:
        return len(image.read_bytes()) * factor

    @bentoml.api
    def shout(self, text: str) -> str:
        return text.upper()

    @bentoml.api
    def fail(self) -> str:
        raise RuntimeError("no")
"""
BYTES = bytes(range(256)) + b"\r\n--x\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a service that BentoML serves."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    (folder / "service.py").write_text(SERVICE)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "service:Many", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            assert wait_for_readyz(url, 120).ready, (folder / "log").read_text()
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def test_what_programs_ask_is_kept_in_a_readable_form(service: str, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "requests.yaml", headers=("X-Size",))
    with recording_proxy(service, recording) as proxy:
        login = {"Authorization": "Bearer s3cret-1", "Cookie": "id=s3cret-2", "X-Size": "small"}
        body = {"asked": {"age": 40, "town": "Köln"}}
        answer = requests.post(f"{proxy.url}/score", json=body, headers=login, timeout=60)
        assert answer.json() == {"score": 40}
        requests.post(f"{proxy.url}/score", json=body, headers=login, timeout=60)
        form = {"image": ("../my cat.png", BYTES, "image/png"), "factor": (None, "0.5")}
        answer = requests.post(f"{proxy.url}/size", files=form, timeout=60)
        assert answer.json() == len(BYTES) / 2
        requests.get(f"{proxy.url}/readyz", timeout=60)
        requests.get(f"{proxy.url}/score?api_key=s3cret-3", timeout=60)
        assert requests.post(f"{proxy.url}/fail", json={}, timeout=60).status_code == 500
        proxy.wait_for(2)
    written = parse_yaml((tmp_path / "requests.yaml").read_bytes())
    assert written == [
        {"path": "/score", "body": body, "headers": {"X-Size": "small"}},
        {
            "path": "/size",
            "multipart": {
                "image": {
                    "file": "requests-files/2-0-my-cat.png",
                    "filename": "../my cat.png",
                    "media_type": "image/png",
                },
                "factor": "0.5",
            },
        },
    ]
    assert (tmp_path / "requests-files/2-0-my-cat.png").read_bytes() == BYTES
    kept = "".join(path.read_text("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    assert "s3cret" not in kept
    assert sorted(recording.left_out) == [
        "/fail was answered with 500, and is not kept",
        "/score has a secret in its query, and is not kept",
    ]


def test_a_recorded_form_is_the_form_that_was_sent(service: str, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "requests.json", answers=True)
    with recording_proxy(service, recording) as proxy:
        form = {"image": ("cat.png", BYTES, "image/png"), "factor": (None, "2")}
        requests.post(f"{proxy.url}/size", files=form, timeout=60)
    (again,) = given_requests([str(tmp_path / "requests.json")])
    assert again["answer"]["json"] == 2.0 * len(BYTES)
    content = Content.from_dict(again)
    asked = urllib.request.Request(f"{service}/size", content.to_bytes())
    asked.add_header("Content-Type", content.media_type)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert json.load(answer) == 2.0 * len(BYTES)


def test_the_examples_of_the_api_are_asked_instead(service: str, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "requests.yaml")
    without = record_examples(service, recording)
    assert recording.kept == [{"path": "/score", "body": {"asked": {"age": 31, "town": "a"}}}]
    assert set(without) >= {"/size", "/shout"}


def test_the_command_ends_with_ctrl_c_and_leaves_a_whole_file(service: str, tmp_path: Path) -> None:
    command = [*COMMAND, "requests", "record", service, "--to", "asked.yaml"]
    with subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        url = process.stderr.readline().split()[1]
        requests.post(f"{url}/shout", json={"text": "hey"}, timeout=60)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "asked.yaml" in told
    assert given_requests([str(tmp_path / "asked.yaml")]) == [
        {"path": "/shout", "body": {"text": "hey"}}
    ]
    assert_refused(
        kfp_bento("requests", "record", service, "--to", tmp_path / "asked.yaml"), "left as it is"
    )


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Cookie", "X-Auth-Token", "Host"])
def test_a_header_that_says_who_asks_cannot_be_kept(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not kept"):
        Recording(tmp_path / "requests.yaml", headers=(name,))


def test_a_form_that_is_none_is_left_out(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "requests.yaml")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = HttpAnswer(200, b"{}", 1, "application/json")
    recording.add("POST", "/x", headers, b"--x\r\n\r\nno name\r\n--x--", answer)
    assert recording.left_out == ["A form came that is none (RFC 7578)."]
    assert not recording.file.exists()


def test_nothing_is_recorded_of_a_service_that_is_not_there(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "requests.yaml")
    with (
        pytest.raises(CheckError, match="gives no answer"),
        recording_proxy(f"http://127.0.0.1:{free_port()}", recording),
    ):
        pass


PNG = {"Content-Type": "image/png"}


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({}, None, {"method": "POST"}),
        (
            {"content-type": "text/csv; charset=utf-8"},
            b"a",
            {"text": "a", "media_type": "text/csv"},
        ),
        ({"Content-Type": "application/json"}, b"{", {"file": "f/3-body.json"}),
        (PNG, b"\x89", {"file": "f/3-body.png"}),
        ({}, b"\xff", {"file": "f/3-body.bin"}),
    ],
)
def test_every_body_has_its_form(headers: dict[str, str], body: bytes | None, told: Any) -> None:
    request, files = recorded_request("POST", "/x", headers, body, "f/", 3)
    named = {"media_type": headers["Content-Type"]} if "file" in told and headers else {}
    assert request == {"path": "/x", **told, **named}
    assert [one.content for one in files] == ([body] if "file" in told else [])
