"""The Secret of a package index, as the pipelines give it to a step."""

from __future__ import annotations

import base64
import http.server
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from package_index import package_index

from kfp_bento.pipelines.credentials import PACKAGE_INDEX
from kfp_bento.runtime.bentos.lock import lock_requirements
from kfp_bento.runtime.errors import BentoError


@pytest.mark.parametrize("key", ["default_index", "index"])
def test_a_private_index_is_asked_with_its_account_and_named_nowhere(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with package_index() as index:
        index.has_wheel("inhouse", "1.5")
        secret = {
            "default_index": index.simple,
            key: f"private={index.simple}",
            "username": "ada",
            "password": "s3cret-word",
        }
        for name, value in secret.items():
            monkeypatch.setenv(PACKAGE_INDEX[name], value)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        lock = lock_requirements(["inhouse"], [], "3.11", tmp_path)
    assert lock.startswith("inhouse==1.5 ")
    account = f"Basic {base64.b64encode(b'ada:s3cret-word').decode()}"
    assert account in {login for _, login in index.arrived}
    assert not [word for word in ("s3cret", "ada", index.address) if word in lock]


def test_what_has_sources_only_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with package_index() as index:
        index.has_sources("sourced", str(tmp_path / "built"))
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        with pytest.raises(BentoError, match="cannot be locked") as failure:
            lock_requirements(["sourced"], [], "3.11", tmp_path)
    assert "Build a wheel of sourced once" in failure.value.hint
    assert not (tmp_path / "built").exists()


def test_an_index_of_an_unknown_authority_is_told_with_where_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=index"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"https://127.0.0.1:{server.server_port}/simple/")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    try:
        with pytest.raises(BentoError, match="cannot be locked") as failure:
            lock_requirements(["inhouse"], [], "3.11", tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert "ca.crt in the ConfigMap" in failure.value.hint
