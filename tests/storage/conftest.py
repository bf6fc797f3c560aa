from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from servers import S3Server
from stored_files import Addresses


@pytest.fixture(autouse=True)
def _no_storage_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_", "KFP_BENTO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


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
