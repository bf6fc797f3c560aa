"""Many users at once: answers stay right, times are held against limits, nobody else is asked."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_models import DIGEST, make_golden
from faulty_services import Service, serve

from kfp_bento.runtime.checks import CheckReport, LoadOptions, load_test
from kfp_bento.runtime.errors import CheckError, InvalidInput, KfpBentoError
from kfp_bento.runtime.proof import Golden

TOKEN = "a-token-of-the-service"


def zeros(body: Any) -> Any:
    return 200, [0 for _ in body["inputs"]]


def options(**given: Any) -> LoadOptions:
    """Short and small, so that nothing waits for the time to be over."""
    few = {"users": 2, "ramp_seconds": 0, "duration_seconds": 20, "max_requests": 6}
    return LoadOptions.of({**few, **given})


def evidence(report: CheckReport, key: str) -> Any:
    return next(entry[key] for entry in report.evidence if key in entry)


def patched_by_gevent() -> set[Any]:
    return {threading.Thread.start, time.sleep, socket.socket, *({"locust"} & sys.modules.keys())}


def test_a_service_that_answers_rightly_and_in_time_passes(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = patched_by_gevent()
    monkeypatch.setenv("KFP_BENTO_API_TOKEN", TOKEN)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serve(Service(predict=zeros)) as service:
        limits = {"p95_ms": 5000, "max_p99_ms": 6000.0, "requests_per_second": 0.01}
        report = load_test(service.url, golden, options(max_requests=60, users=3, limits=limits))
    assert report.passed, report.summary
    assert report.model_digests == (DIGEST,)
    assert set(report.measures) == {
        *("requests", "failures", "failure_ratio", "seconds", "requests_per_second"),
        *("p50_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms"),
    }
    assert report.measures["requests"] == 60
    assert report.measures["failures"] == 0
    # One is asked before, to see whether there is anybody.
    assert len(service.bodies) == 61
    assert set(service.logins) == {f"Bearer {TOKEN}"}
    assert {len(body["inputs"]) for body in service.bodies} == {1, 2}
    assert sum(step["requests"] for step in evidence(report, "over_time")) == 60
    assert sum(bucket["requests"] for bucket in evidence(report, "histogram")) == 60
    assert [one["limit"] for one in evidence(report, "limits")] == [
        *("p95_ms", "p99_ms", "requests_per_second", "failure_ratio")
    ]
    assert evidence(report, "asked")["ended_by"] == "max_requests"
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert CheckReport.from_dict(json.loads(text)) == report
    assert TOKEN not in text
    assert patched_by_gevent() == before


FAULTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "a wrong answer": ({"predict": lambda body: (200, [0.5] * len(body["inputs"]))}, "a float"),
    "a cut": ({"predict": zeros, "promise": 5}, "no answer"),
    "silence": ({"predict": zeros, "drip": 9.0}, "no complete answer within 0.3 s"),
}


@pytest.mark.parametrize(("faults", "said"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_cut_or_late_has_failed(
    golden: Golden, faults: dict[str, Any], said: str
) -> None:
    with serve(Service(**faults)) as service:
        report = load_test(service.url, golden, options(max_requests=4, timeout_seconds=0.3))
    assert not report.passed
    assert report.measures["failures"] == report.measures["requests"] == 4
    assert report.measures["requests_per_second"] == 0
    assert "failure_ratio: 1, at most 0 is allowed" in report.summary
    failures = [entry for entry in report.evidence if "count" in entry]
    assert sum(entry["count"] for entry in failures) == 4
    assert all(said in entry["reason"] for entry in failures), failures


def test_a_redirect_to_another_host_is_not_followed(golden: Golden) -> None:
    with serve(Service(predict=zeros)) as other:
        redirecting = Service(predict=lambda _: (307, b""), location=f"{other.url}/predict")
        with serve(redirecting) as service:
            report = load_test(service.url, golden, options())
    assert report.measures["failures"] == 6
    assert other.bodies == other.paths == []


def test_failures_may_be_allowed_and_still_are_told(golden: Golden) -> None:
    turn = iter(range(1000))

    def sometimes(body: Any) -> Any:
        return zeros(body) if next(turn) % 4 else (500, {"error": "out of memory"})

    with serve(Service(predict=sometimes)) as service:
        few = options(users=1, max_requests=11, limits={"failure_ratio": 0.5})
        report = load_test(service.url, golden, few)
    assert report.passed
    assert report.measures["failures"] == 2
    failures = [one for one in report.evidence if "count" in one]
    assert all("out of memory" in one["reason"] for one in failures)


def test_a_limit_that_does_not_hold_says_what_was_measured(golden: Golden) -> None:
    def slowly(body: Any) -> Any:
        time.sleep(0.05)
        return zeros(body)

    with serve(Service(predict=slowly)) as service:
        limits = {"p50_ms": 10, "requests_per_second": 1e6, "p99_ms": 60_000}
        report = load_test(service.url, golden, options(limits=limits))
    assert not report.passed
    assert report.measures["p50_ms"] >= 50
    broken = {entry["limit"]: entry for entry in report.evidence if "limit" in entry}
    assert broken.keys() == {"p50_ms", "requests_per_second"}
    assert broken["p50_ms"]["served"] == report.measures["p50_ms"]
    assert "at most 10 is allowed" in broken["p50_ms"]["reason"]
    assert "at least 1e+06" in broken["requests_per_second"]["reason"]


def test_the_rate_has_a_cap_and_the_load_ends_with_its_time(golden: Golden) -> None:
    capped = options(
        users=4, ramp_seconds=2, duration_seconds=1, max_requests=1000, max_requests_per_second=20
    )
    with serve(Service(predict=zeros)) as service:
        report = load_test(service.url, golden, capped)
    assert report.passed, report.summary
    assert evidence(report, "asked")["ended_by"] == "time"
    assert report.measures["seconds"] >= 3
    assert 0 < report.measures["requests_per_second"] <= 24
    users = [step["users"] for step in evidence(report, "over_time")]
    assert users[0] < 4
    assert max(users) == 4


def test_rows_of_a_table_are_asked_as_a_batch_asks_them(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("b,a,c\n" + "".join(f"{n},{n}.5,x\n" for n in range(5)))
    table = {"payloads": str(tmp_path / "rows.csv"), "rows_per_request": 2}
    with serve(Service(predict=zeros)) as service:
        report = load_test(service.url, golden, options(users=1, max_requests=3, **table))
    assert report.passed, report.summary
    assert service.bodies[1:] == [
        {"inputs": [{"a": 0.5, "b": 0}, {"a": 1.5, "b": 1}]},
        {"inputs": [{"a": 2.5, "b": 2}, {"a": 3.5, "b": 3}]},
        {"inputs": [{"a": 4.5, "b": 4}]},
    ]


def test_a_table_needs_a_model_with_a_signature(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    unsigned = replace(golden, models=(replace(golden.models[0], signature=None),))
    given = options(payloads=str(tmp_path / "rows.csv"))
    with pytest.raises(InvalidInput, match="no model with a signature"):
        load_test("http://127.0.0.1:1", unsigned, given)
    with pytest.raises(InvalidInput, match="lacks the column that the model needs: b"):
        load_test("http://127.0.0.1:1", golden, given)


def test_where_nothing_answers_nothing_was_checked(golden: Golden) -> None:
    with pytest.raises(CheckError, match="Nothing answers"):
        load_test("http://127.0.0.1:9", golden, options())
    with pytest.raises(CheckError, match="only rendered"):
        load_test("", golden, options())


def test_where_nothing_can_be_asked_nothing_was_checked() -> None:
    with pytest.raises(CheckError, match="Nothing is known that could be asked"):
        load_test("http://127.0.0.1:9", make_golden(None, requests=[]), options())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"user": 3}, "user: the load test has no such option"),
        ({"users": 0}, "users: 0 is not between 1 and 1000"),
        ({"users": 1001}, "users: 1001 is not between"),
        ({"users": 2.5}, "users: 2.5 is no integer"),
        ({"duration_seconds": 3601}, "duration_seconds: 3601 is not between 1 and 3600"),
        ({"duration_seconds": float("nan")}, "duration_seconds: nan is not between"),
        ({"max_requests": 10**7}, "max_requests: 10000000 is not between"),
        ({"timeout_seconds": 0}, "timeout_seconds: 0 is not above 0"),
        ({"payloads": 3}, "payloads: 3 is no string"),
        ({"limits": [1]}, r"limits: \[1\] is no object"),
        ({"limits": {"p96_ms": 3}}, "p96_ms: the load test .* has no such option"),
        ({"limits": {"p95_ms": 0}}, "limits.p95_ms: 0 is not above 0"),
        ({"limits": {"failure_ratio": 1.5}}, "limits.failure_ratio: 1.5 is not between 0 and 1"),
        ({"limits": {"p95_ms": 1, "max_p95_ms": 2}}, "p95_ms is given twice"),
    ],
)
def test_options_that_cannot_be_are_refused_by_their_name(given: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        LoadOptions.of(given)
    assert refused.value.hint


def test_what_kubeflow_makes_of_numbers_is_put_right() -> None:
    given = {"users": 5.0, "max_requests": 7.0, "limits": {"p95_ms": 200.0}, "payloads": None}
    assert LoadOptions.of(given) == LoadOptions.of(
        {"users": 5, "max_requests": 7, "limits": {"max_p95_ms": 200}}
    )


def test_a_certificate_that_nobody_vouches_for_is_no_service(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl
    import subprocess
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(zeros(body)[1]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(KfpBentoError, match="CERTIFICATE_VERIFY_FAILED"):
            load_test(url, golden, options())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert load_test(url, golden, options()).passed
    finally:
        server.shutdown()
        server.server_close()
