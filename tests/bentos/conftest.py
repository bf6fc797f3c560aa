"""Bentos that answer: in a forked process for most tests, under `bentoml serve` for a few."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conversations import Ask, Conversation, Write
from servers import free_port

from kfp_bento.runtime.bentos.build import bento_models
from kfp_bento.runtime.bentos.service_source import SERVICE_MODULE, generated_files
from kfp_bento.runtime.bentos.tree import add_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kfp_bento.runtime.models import ModelVersion

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def no_tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Saving a model must not make a database in the working directory."""
    patch = pytest.MonkeyPatch()
    if "MLFLOW_TRACKING_URI" not in os.environ:
        database = tmp_path_factory.mktemp("tracking") / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    patch.setenv("BENTOML_DO_NOT_TRACK", "true")
    yield
    patch.undo()


@pytest.fixture(scope="session")
def bento_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BentoML store of the asking process."""
    return tmp_path_factory.mktemp("bento-home")


@pytest.fixture(scope="session")
def asker(bento_home: Path) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Gives `asker(job)`: what `bento_asker.py` answers to a job."""
    folder = bento_home
    environment = {**os.environ, "BENTOML_HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "bento_asker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        cwd=folder,
        text=True,
    )
    assert process.stdin and process.stdout

    def answers(job: dict[str, Any]) -> Any:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield answers
    process.stdin.close()
    process.wait(timeout=300)
    log.close()


@pytest.fixture(scope="session")
def ask(asker: Callable[..., Any], bento_home: Path) -> Callable[..., Any]:
    """Gives `ask(directory, *bodies, path=…)`: the `(status, answer)` of each body."""

    def ask_service(
        directory: Path, *bodies: Any, path: str = "/predict", method: str = "POST"
    ) -> Any:
        requests = [[method, path, body] for body in bodies]
        answers = asker({"bento": str(directory), "requests": requests})
        log = (bento_home / "log").read_text()[-3000:]
        assert isinstance(answers, list), f"{answers}\n{log}"
        return [tuple(answer) for answer in answers]

    return ask_service


@pytest.fixture(scope="session")
def talk(asker: Callable[..., Any]) -> Callable[..., Conversation]:
    """Gives `talk(directory, *requests, base=…, VARIABLE=…)`."""

    def talk_to(
        directory: Path, *requests: Ask | Write, base: str = "http://service:3000", **variables: str
    ) -> Conversation:
        job = {
            "whole": True,
            "bento": str(directory),
            "base": base,
            "environment": variables,
            "requests": [request.as_job() for request in requests],
        }
        found = asker(job)
        if "log" in found:
            lines = found["log"].splitlines(keepends=True)
            found["log"] = "".join(line for line in lines if "ervice " not in line)
        return Conversation(**found) if "answers" in found else Conversation([], "", found["error"])

    return talk_to


@pytest.fixture(scope="session")
def generate(tmp_path_factory: pytest.TempPathFactory, bento_home: Path) -> Callable[..., Path]:
    """Gives `generate(*models)`: a directory with the generated service, ready to be asked.

    It is what BentoML serves before a bento is built: quick, for tests of the service alone.
    """

    def generate_service(*models: ModelVersion, **options: Any) -> Path:
        directory = tmp_path_factory.mktemp("service")
        tags = bento_models(models)
        for model, made in zip(models, tags, strict=True):
            if not (bento_home / "models" / made.tag.replace(":", "/")).exists():
                add_model(model, made.tag, bento_home / "models")
        for name, content in generated_files("sample", models, tags, **options).items():
            (directory / name).write_bytes(content)
        (directory / "bentofile.yaml").write_text(f"service: {SERVICE_MODULE}\n")
        return directory

    return generate_service


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """Gives `serve(directory, home)`, a context manager around `bentoml serve`."""
    return serving


@contextmanager
def serving(
    directory: Path, home: Path, token: str = "", **variables: str
) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Serves a bento with `bentoml serve` and gives a function that sends it requests.

    Its attribute `port` is where the bento listens.
    """
    port = free_port()
    log = (home / "serve.log").open("w")
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
    environment |= variables | ({"KFP_BENTO_API_TOKEN": token} if token else {})
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bentoml", "serve", str(directory)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        env=environment,
        cwd=home,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def send(path: str, body: Any = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if token and path != "/readyz":
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, text = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode()

    send.port = port
    try:
        _wait_until_ready(send, process, home / "serve.log")
        yield send
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=300)
        log.close()


def _wait_until_ready(send: Callable[..., Any], process: Any, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if send("/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the bento did not become ready:\n{log.read_text()[-3000:]}")
