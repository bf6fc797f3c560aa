"""The real kfp.Client submits and follows; the server is a stub: down, slow, or strict."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import COMMAND, assert_refused, kfp_bento, kfp_bento_here
from pipelines_api import KubeflowPipelines, refusal, serve_pipelines, step, until
from proxy_server import ProxyServer

from kfp_bento.runtime.errors import RunError, RunUnavailable
from kfp_bento.runtime.local import load_pipeline
from kfp_bento.runtime.runs import PipelinesApi, Submission, choose_server, follow_run, submit_run
from kfp_bento.runtime.runs import server as server_module

PIPELINE = "tests.local.sample_pipelines:two_steps"
SHOWN = "tests.local.sample_pipelines:service_artifact"


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*os.environ]:
        if name.startswith(("KF_PIPELINES", "KFP_BENTO_KFP")) or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[KubeflowPipelines]:
    with serve_pipelines() as served:
        yield served


def submit(server: KubeflowPipelines, *more: object) -> subprocess.CompletedProcess[str]:
    return kfp_bento_here("submit", PIPELINE, "-p", "number=3", "--host", server.url, *more)


def test_a_run_is_submitted_with_typed_parameters(server: KubeflowPipelines) -> None:
    done = submit(
        *(server, "-p", 'settings={"a": 1}', "-p", "on=false", "--run-name", "mine"),
        *("--experiment", "trials", "--service-account", "runner"),
    )
    assert done.returncode == 0, done.stderr
    (run,) = server.runs
    parameters = run["runtime_config"]["parameters"]
    assert parameters == {"number": 3, "settings": {"a": 1}, "on": False}
    assert (run["display_name"], run["service_account"]) == ("mine", "runner")
    assert run["experiment_id"] == server.experiments[0]["experiment_id"]
    assert server.experiments[0]["display_name"] == "trials"
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "two-steps"
    assert f"{server.url}/#/runs/details/{run['run_id']}" in done.stdout
    assert f"kfp-bento follow {run['run_id']} --host {server.url}" in done.stdout


def test_nothing_is_sent_where_a_parameter_is_missing_or_of_another_type(
    server: KubeflowPipelines,
) -> None:
    for words, told in (
        (["-p", "number=x"], "not of type Integer"),
        (["-p", "numbr=1"], "names no parameter"),
        ([], "needs a value for number"),
    ):
        done = kfp_bento_here("submit", PIPELINE, *words, "--host", server.url)
        assert_refused(done, told)
    assert not server.asked


def test_a_placeholder_for_the_image_is_refused(
    server: KubeflowPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = kfp_bento_here("submit", SHOWN, "-p", "place=s3://a/b", "--host", server.url)
    assert_refused(done, "placeholder that no cluster can pull: registry.example.com/")
    assert "kfp-bento install" in done.stderr
    assert "KFP_BENTO_IMAGE" in done.stderr
    assert not server.runs


def test_an_image_without_a_name_is_refused(server: KubeflowPipelines) -> None:
    done = kfp_bento(
        *("submit", SHOWN, "-p", "place=s3://a/b", "--host", server.url), KFP_BENTO_IMAGE=" "
    )
    assert_refused(done, "A step of the pipeline has an image without a name")
    assert not server.runs


ROLL_BACK = ("submit", "roll_back_model", "-p", "deploy_name=wine", "-p", "promote_alias=prod")


def test_a_shipped_pipeline_without_an_image_for_its_steps_is_refused(
    server: KubeflowPipelines,
) -> None:
    for blank in ("", "  "):
        nameless = kfp_bento_here(*ROLL_BACK, "-p", f"runtime_image={blank}", "--host", server.url)
        assert_refused(nameless, "needs a value for runtime_image")
    done = kfp_bento_here(*ROLL_BACK, "--host", server.url)
    assert_refused(done, "needs a value for runtime_image")
    assert "kfp-bento install" in done.stderr
    assert "KFP_BENTO_IMAGE" in done.stderr
    assert not server.asked


def test_the_image_of_the_steps_is_a_parameter_of_the_run(server: KubeflowPipelines) -> None:
    image = "registry.example.org/ml/runtime-python:1"
    done = kfp_bento_here(*ROLL_BACK, "-p", f"runtime_image={image}", "--host", server.url)
    assert done.returncode == 0, done.stderr
    (run,) = server.runs
    assert run["runtime_config"]["parameters"]["runtime_image"] == image
    assert "registry.example.com/kfp-bento" not in str(run["pipeline_spec"])


def test_without_caching_no_step_is_cached_inside_a_block_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from kfp_bento.runtime.runs import package
    from kfp_bento.runtime.runs.run_state import dags

    monkeypatch.setattr(package, "_PLACEHOLDER", "nowhere/")
    for caching in (True, False):
        package.make_package(load_pipeline("serve_model"), tmp_path / "p.yaml", caching=caching)
        specification = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
        cached = {
            name
            for dag in dags(specification)
            for name, task in dag["tasks"].items()
            if task.get("cachingOptions", {}).get("enableCache")
        }
        assert ("build-bento" in cached) is caching
        assert "promote-model" not in cached
        assert caching or not cached


def test_a_name_is_submitted_once(server: KubeflowPipelines) -> None:
    assert submit(server, "--run-name", "mine").returncode == 0
    again = submit(server, "--run-name", "mine", "--json")
    assert '"found": true' in again.stdout
    assert len(server.runs) == 1


def test_an_answer_that_is_lost_does_not_submit_twice(server: KubeflowPipelines) -> None:
    server.lost = 1
    assert submit(server).returncode == 0
    assert len(server.runs) == 1


RUNNING = [
    {"state": "RUNNING", "run_details": {"task_details": [step("root", "RUNNING")]}},
    {"state": "RUNNING", "run_details": {"task_details": [step("double", "RUNNING")]}},
]


def ended(state: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    engine = [step("root", state), step("double-driver", "SUCCEEDED"), step("executor", state)]
    return {"state": state, "run_details": {"task_details": [*engine, *tasks]}}


def test_a_run_is_followed_step_by_step(server: KubeflowPipelines) -> None:
    server.looks = [
        *RUNNING,
        ended("SUCCEEDED", step("double", "SUCCEEDED"), step("write", "SUCCEEDED", seconds=5)),
    ]
    done = submit(server, "--follow", "--every", "0.05")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stderr.splitlines() if line.startswith("  ")]
    assert lines == [["ok", "double", "3.0", "s"], ["ok", "write", "5.0", "s"]]


def test_a_run_that_failed_names_step_and_reason(server: KubeflowPipelines) -> None:
    server.looks = [ended("FAILED", step("double", "FAILED", error="6 is too small.\x1b[2J"))]
    done = submit(server, "--follow", "--every", "0.05")
    assert done.returncode == 1
    assert "step double failed" in done.stdout
    assert "6 is too small." in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert f"{server.url}/#/runs/details/" in done.stdout
    as_json = kfp_bento_here(
        "follow", server.runs[0]["run_id"], "--host", server.url, "--every", 0.05, "--json"
    )
    assert as_json.returncode == 1
    assert '"failed_step": "double"' in as_json.stdout


def test_an_interrupt_leaves_the_run_going_and_says_how_to_follow(
    server: KubeflowPipelines,
) -> None:
    server.looks = [RUNNING[1]]
    with subprocess.Popen(
        [
            *(*COMMAND, "submit", PIPELINE, "-p", "number=3", "--host", server.url),
            *("--follow", "--every", "0.05"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "300", "NO_COLOR": "1"},
    ) as process:
        until(lambda: sum("/runs/" in one for one in server.asked) > 2)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "The run goes on: " in told
    assert f"kfp-bento follow {server.runs[0]['run_id']} --host {server.url}" in told


def api(server: KubeflowPipelines, **more: Any) -> PipelinesApi:
    return PipelinesApi(choose_server(server.url, **more))


def test_a_server_that_is_away_for_a_while_is_waited_for(server: KubeflowPipelines) -> None:
    connected = api(server)
    made = submit_run(connected, Submission(load_pipeline(PIPELINE)), {"number": 1}, "mine")
    server.looks = [RUNNING[0], ended("SUCCEEDED")]
    server.passing = [refusal(503, 14, "no endpoints"), (0, None), (502, "<html>Bad gateway")]
    assert follow_run(connected, made.run_id, every=0.01).succeeded
    server.passing = [refusal(503, 14, "no endpoints")] * 50
    with pytest.raises(RunUnavailable, match="HTTP 503 no endpoints"):
        follow_run(connected, made.run_id, every=0.01, patience=0.1)


def test_a_server_that_hangs_is_given_up(
    server: KubeflowPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SECONDS", (1, 0.2))
    server.passing = [(-1, None)]
    with pytest.raises(RunUnavailable, match="does not answer"):
        api(server)


def test_a_token_comes_from_a_file_and_is_read_anew(
    server: KubeflowPipelines, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    server.token = "new"
    done = submit(server, "--token-file", file)
    assert_refused(done, "does not know who asks: HTTP 401")
    assert "old" not in done.stderr.replace(str(file), "")
    file.write_text("old\n")
    server.token = "old"
    connected = api(server, token_file=str(file))
    server.token = "new"
    with pytest.raises(RunError, match="401"):
        connected.find("mine")
    file.write_text("new\n")
    assert connected.find("mine") is None


def test_a_token_comes_from_the_environment(
    server: KubeflowPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "secret-of-mine"
    monkeypatch.setenv("KFP_BENTO_KFP_TOKEN", "secret-of-mine")
    done = submit(server)
    assert done.returncode == 0, done.stderr
    assert "secret-of-mine" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (refusal(403, 7, "not authorized"), "refuses: HTTP 403 not authorized"),
        ((302, ""), "asks for a login"),
        ((404, "404 page not found"), "no Kubeflow Pipelines API of version 2"),
        ((200, "<html>Sign in</html>"), "something that is no Kubeflow Pipelines API"),
        (refusal(503, 14, "starting"), "failed: HTTP 503 starting"),
    ],
    ids=["forbidden", "login", "too old", "another site", "down"],
)
def test_what_a_server_refuses_is_said(
    answer: tuple[int, Any], told: str, server: KubeflowPipelines
) -> None:
    server.passing = [answer] * 3
    assert_refused(submit(server), told)


def test_nothing_there_is_said() -> None:
    with serve_pipelines() as gone:
        pass
    done = submit(gone)
    assert_refused(done, f"{gone.url} does not answer")


def test_a_server_of_many_users_needs_a_namespace(server: KubeflowPipelines) -> None:
    server.multi_user = True
    assert_refused(submit(server), "has many users")
    assert_refused(submit(server, "-n", "nobody"), "not authorized for namespace nobody")
    assert submit(server, "-n", "team").returncode == 0
    assert server.experiments[0]["namespace"] == "team"


def test_the_proxy_of_the_environment_is_asked(
    server: KubeflowPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1,inside.example.com")
    assert PipelinesApi(choose_server("http://kubeflow.example.com")).find("mine") is None
    assert all("http://kubeflow.example.com/apis/" in one for one in server.asked)
    seen = len(server.asked)
    with pytest.raises(RunError, match="does not answer"):
        PipelinesApi(choose_server("http://inside.example.com")).find("mine")
    assert len(server.asked) == seen


@pytest.mark.parametrize("web", ["http", "https"])
def test_a_proxy_that_lets_nobody_through_is_told(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProxyServer(refuses="407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv(f"{web}_proxy", f"ali:secret@{proxy.host}")
        with pytest.raises(
            RunError, match=r"does not lead to kubeflow\.only\.example.*: 407"
        ) as failure:
            PipelinesApi(choose_server(f"{web}://kubeflow.only.example")).find("mine")
    assert failure.value.message.startswith(f"The proxy {proxy.url} ")
    assert "secret" not in str(failure.value)


def test_an_unknown_run_is_said(server: KubeflowPipelines) -> None:
    done = kfp_bento_here("follow", "nobody", "--host", server.url)
    assert_refused(done, "HTTP 404 Run nobody not found.")


def test_an_address_with_a_password_is_refused() -> None:
    done = kfp_bento_here("follow", "1", "--host", "https://me:secret@kubeflow.example.com")
    assert_refused(done, "holds a password")
    assert "secret" not in done.stderr


def test_a_certificate_that_nobody_trusts_is_said(tmp_path: Path) -> None:
    import ssl
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"https://127.0.0.1:{server.server_port}"
        with pytest.raises(RunError, match="is not trusted") as caught:
            PipelinesApi(choose_server(url))
        assert "--ca" in caught.value.hint
        assert PipelinesApi(choose_server(url, ca=str(certificate))).find("mine") is None
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
