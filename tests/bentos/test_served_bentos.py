"""Bentos under the real `bentoml serve`: their answers are those of the registry's model."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import packed_models as samples
import pytest
from wine import requirements

from kfp_bento.runtime.bentos import build_bento, can_require_token, prediction_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def records(frame: Any) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records"))


TOKEN = "a-token-of-the-service"
HEAD = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
# Those that announce more than they send are answered without waiting for the rest.
ATTACKS = [
    f"POST /predict HTTP/1.1\r\n{HEAD}Content-Length: 67108864\r\nExpect: 100-continue\r\n\r\n",
    f"POST /predict HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    + f"100000\r\n{' ' * 2**20}\r\n" * 17
    + "0\r\n\r\n",
    f"POST /predict HTTP/1.1\r\n{HEAD}Content-Length: -5\r\n\r\n",
    "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    f"GET /nowhere HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n",
]


def said(port: int, request: str) -> bytes:
    """What a service says to a request, whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.slow  # a served bento is compared with its model by the checks, too
def test_a_served_wine_model_answers_like_the_model_itself(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    model = samples.save_wine(tmp_path / "wine", pip_requirements=[*requirements(), "skops"])
    bento = build_bento([model], tmp_path / "bento")
    data = samples.wine_columns()
    expected = mlflow.pyfunc.load_model(str(model.directory)).predict(data).tolist()
    home = tmp_path / "home"
    home.mkdir()
    with serve(bento.directory, home, token=TOKEN) as send:
        assert send("/predict", {"inputs": records(data)}) == (200, expected)
        assert send("/predict", prediction_request(model)) == (200, expected[:3])
        assert send("/livez")[0] == 200
        status, problem = send("/predict", {"inputs": [{**records(data)[0], "hue": "red"}]})
        answers = [said(send.port, request) for request in ATTACKS]
        assert [answer[9:12] for answer in answers] == [b"413", b"413", b"400", b"401", b"404"]
        assert max(map(len, answers)) < 1000
        assert b"nowhere" not in send("/metrics")[1].encode()
    assert status == 400
    assert can_require_token(bento)
    assert problem["detail"][0]["loc"] == ["inputs", 0, "hue"]
    assert sorted(path.name for path in home.iterdir() if "mlflow" in path.name) == []


@pytest.mark.slow  # that each has its routes is asked without a server, too
def test_several_models_have_a_route_each(tmp_path: Path, serve: Callable[..., Any]) -> None:
    people = samples.save_people(tmp_path / "People")
    digits = samples.save_digits(tmp_path / "digits")
    bento = build_bento([people, digits], tmp_path / "bento", name="ensemble")
    home = tmp_path / "home"
    home.mkdir()
    rows, images = samples.people(), samples.digits()[:5]
    wanted_people = mlflow.pyfunc.load_model(str(people.directory)).predict(rows)
    wanted_digits = mlflow.pyfunc.load_model(str(digits.directory)).predict(images)
    with serve(bento.directory, home) as send:
        people_answer = send("/predict/people", {"inputs": records(rows)})
        digits_answer = send("/predict/digits", {"inputs": images.tolist()})
        missing = send("/predict/people", {"inputs": [{"class": "a"}]})
        misshapen = send("/predict/digits", {"inputs": [[1.0, 2.0]]})
        nowhere = send("/predict", {"inputs": []})
    assert people_answer == (200, pytest.approx(wanted_people.tolist()))
    assert digits_answer[0] == 200
    np.testing.assert_allclose(digits_answer[1], wanted_digits, rtol=1e-6)
    assert (missing[0], missing[1]["detail"][0]["loc"]) == (400, ["inputs", 0, "children"])
    assert misshapen[0] == 400
    assert "expected shape (-1, 64), got (1, 2)" in misshapen[1]["detail"][0]["msg"]
    assert nowhere[0] == 404
