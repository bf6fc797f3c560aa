"""What an administrator says once in a ConfigMap holds for every step, and nowhere else."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from kfp_bento.runtime import cluster_settings
from kfp_bento.runtime.programs import NETWORK

# As it happens in a step, before anything of a component is imported.
STEP = """\
import json, os, pathlib, sys
import kfp_bento.runtime.cluster_settings as settings
settings.MOUNTED = pathlib.Path(sys.argv[1])
settings.use_cluster_settings()
import requests, urllib.request
answers = []
for url in sys.argv[2:]:
    for ask in (lambda: requests.get(url, timeout=20).status_code,
                lambda: urllib.request.urlopen(url, timeout=20).status):
        try:
            answers.append(ask())
        except OSError as error:
            answers.append("CERTIFICATE_VERIFY_FAILED" in str(error))
print(json.dumps([answers, {k: v for k, v in os.environ.items()}]))
"""


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", folder / "key.pem", "-out", folder / "ca.crt"],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def server(authority: Path) -> Iterator[str]:
    """A server whose certificate nobody trusts but who has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "ca.crt", authority / "key.pem")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as found:
        found.socket = context.wrap_socket(found.socket, server_side=True)
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def step(mounted: Path, *urls: str, **environment: str) -> tuple[list[object], dict[str, str]]:
    ours = {name for names in cluster_settings.VARIABLES.values() for name in names}
    names = {*NETWORK, "AWS_CA_BUNDLE", *ours}
    clean = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(mounted), *urls],
        env={**clean, "TMPDIR": str(mounted.parent), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers, found = json.loads(done.stdout)
    return answers, found


def test_a_certificate_of_ones_own_is_trusted_by_every_client(
    mounted: Path, server: str, authority: Path
) -> None:
    assert step(mounted, server)[0] == [True, True]
    (mounted / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    answers, found = step(mounted, server)
    assert answers == [200, 200]
    bundles = {found[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")}
    assert len(bundles) == 1
    # What a step has written is gone with it.
    assert [path.name for path in mounted.parent.iterdir()] == ["mounted"]


def test_what_was_trusted_before_still_is(mounted: Path, authority: Path, tmp_path: Path) -> None:
    (mounted / "ca.crt").write_text("-----OWN-----")
    others = tmp_path / "others.pem"
    others.write_text("-----OTHERS-----")
    code = STEP.replace("print(", "print(open(os.environ['SSL_CERT_FILE']).read()) or print(")
    done = subprocess.run(
        [sys.executable, "-c", code, str(mounted)],
        env={**os.environ, "SSL_CERT_FILE": str(others)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("-----OTHERS-----\n-----OWN-----\n")


def test_proxies_and_plain_registries_are_set_unless_the_step_says_otherwise(
    mounted: Path,
) -> None:
    (mounted / "https_proxy").write_text("http://proxy:3128\n")
    (mounted / "no_proxy").write_text(".svc,10.0.0.0/8")
    (mounted / "insecure_registries").write_text("registry:5000")
    (mounted / "allowed_storage_hosts").write_text("10.1.2.3:5001")
    found = step(mounted, https_proxy="http://mine:1")[1]
    assert "HTTPS_PROXY" not in found
    assert found["NO_PROXY"] == ".svc,10.0.0.0/8"
    assert found["KFP_BENTO_INSECURE_REGISTRIES"] == "registry:5000"
    assert found["KFP_BENTO_ALLOWED_STORAGE_HOSTS"] == "10.1.2.3:5001"
    assert step(mounted)[1]["HTTPS_PROXY"] == "http://proxy:3128"


def test_where_nothing_is_mounted_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_settings, "MOUNTED", tmp_path / "none")
    before = dict(os.environ)
    cluster_settings.use_cluster_settings()
    assert dict(os.environ) == before
