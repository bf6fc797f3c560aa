from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest
from servers import S3Server, free_port
from stored_files import PART, Addresses


@pytest.fixture(autouse=True)
def _no_storage_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_", "KFP_BENTO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ranges.RANGE", "s3.PART", "minio_client.PART"):
        monkeypatch.setattr(f"kfp_bento.runtime.storage.{name}", PART)


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Addresses:
    """Gives a fresh address in a storage; the environment points to the real server."""

    def give(scheme: str, name: str) -> str:
        if scheme == "file":
            return f"file://{tmp_path}/files/{name}"
        server: S3Server = request.getfixturevalue("s3_server")
        monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        return f"{scheme}://{server.bucket}/{uuid.uuid4().hex}/{name}"

    return give


@pytest.fixture
def free_address() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that nobody trusts; the certificate alone has .crt at its end."""
    file = tmp_path_factory.mktemp("tls") / "site.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=site",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    command += ["-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file
