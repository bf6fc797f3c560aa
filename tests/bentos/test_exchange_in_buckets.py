"""Bentos in buckets: by the command, through both clients, from presigned URLs, and killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import assert_refused, kfp_bento
from sample_bentos import write_bento
from servers import S3Server

from kfp_bento.runtime.bentos import ImportOptions, export_bento, import_bento, load_bento
from kfp_bento.runtime.errors import BentoError, InvalidInput, StorageError

AS_IT_IS = ImportOptions(lock=False)

WEIGHTS = "models/wine/v1/weights.bin"
# Runs exports and imports in children that have everything imported already, and kills them.
FORKING = """
import json, os, select, signal, sys, time
from pathlib import Path
import boto3
from kfp_bento.runtime.bentos import ImportOptions, export_bento, import_bento, load_bento
from kfp_bento.runtime.storage import ranges, s3

s3.PART = ranges.RANGE = 5 << 20
for line in sys.stdin:
    job = json.loads(line)
    began, child = time.monotonic(), os.fork()
    if child == 0:
        try:
            if job["verb"] == "export":
                export_bento(load_bento(Path(job["directory"])), job["uri"], "tar")
            else:
                import_bento(job["uri"], Path(job["directory"]), ImportOptions(lock=False))
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    handle = os.pidfd_open(child)
    if not select.select([handle], [], [], job["after"])[0]:
        os.kill(child, signal.SIGKILL)
    os.close(handle)
    _, status = os.waitpid(child, 0)
    print(json.dumps({"status": status, "seconds": time.monotonic() - began}), flush=True)
"""


def bento_of(directory: Path, seed: int, megabytes: int = 11) -> Path:
    write_bento(directory)
    weights = directory / WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(random.Random(seed).randbytes(megabytes << 20))
    return directory


@pytest.fixture
def uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_")):
            monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}/wine.tar"


def test_what_one_client_stores_the_other_reads(
    uri: str, s3_server: S3Server, tmp_path: Path
) -> None:
    bento = bento_of(tmp_path / "bento", 1, megabytes=1)
    known = digest_of(bento)
    other = uri.replace("s3:", "minio:")
    exported = json.loads(kfp_bento("bento", "export", bento, uri, "--json").stdout)
    found = s3_server.client().head_object(Bucket=s3_server.bucket, Key=key_of(uri))
    assert found["Metadata"]["sha256"] == exported["sha256"]
    assert found["Metadata"]["bento-digest"] == known == exported["digest"]
    out = kfp_bento("bento", "import", other, "--to", tmp_path / "one", "--no-lock", "--json")
    assert json.loads(out.stdout)["digest"] == known == digest_of(tmp_path / "one")
    again = export_bento(load_bento(bento), other)
    assert again.sha256 == exported["sha256"]
    assert import_bento(uri, tmp_path / "two", AS_IT_IS).digest == known


def test_another_bento_under_the_recorded_digest_is_refused(
    uri: str, s3_server: S3Server, tmp_path: Path
) -> None:
    export_bento(load_bento(bento_of(tmp_path / "one", 1, megabytes=1)), uri)
    client, where = s3_server.client(), {"Bucket": s3_server.bucket, "Key": key_of(uri)}
    digest = client.head_object(**where)["Metadata"]["bento-digest"]
    export_bento(load_bento(bento_of(tmp_path / "two", 2, megabytes=1)), str(tmp_path / "x.tar"))
    body = (tmp_path / "x.tar").read_bytes()
    sums = {"sha256": hashlib.sha256(body).hexdigest(), "bento-digest": digest}
    client.put_object(**where, Body=body, Metadata=sums)
    with pytest.raises(BentoError, match="was recorded"):
        import_bento(uri, tmp_path / "to", AS_IT_IS)
    assert not (tmp_path / "to").exists()


def test_the_command_says_what_is_wrong(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = kfp_bento("bento", "import", uri, "--to", tmp_path / "to", "--no-lock")
    assert_refused(done, "There is no object s3://")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="does not let us use"):
        import_bento(uri, tmp_path / "to", AS_IT_IS)
    assert not (tmp_path / "to").exists()


def test_a_presigned_url_is_taken_in(
    uri: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bento = bento_of(tmp_path / "bento", 1, megabytes=1)
    export_bento(load_bento(bento), uri)
    url = s3_server.client().generate_presigned_url(
        "get_object", Params={"Bucket": s3_server.bucket, "Key": key_of(uri)}, ExpiresIn=300
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InvalidInput, match="plain HTTP") as refusal:
        import_bento(url, tmp_path / "to", AS_IT_IS)
    assert "Signature" not in str(refusal.value)
    monkeypatch.setenv("KFP_BENTO_PLAIN_HTTP", "true")
    assert import_bento(url, tmp_path / "to", AS_IT_IS).digest == digest_of(bento)
    with pytest.raises(StorageError, match="may not be read"):
        import_bento(url.replace("Signature=", "Signature=0"), tmp_path / "to", AS_IT_IS)


@contextmanager
def forking(tmp_path: Path) -> Iterator[Any]:
    """Gives a function that runs a job in a child and kills it after some seconds."""
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout

    def run(verb: str, uri: str, directory: Path, after: float) -> dict[str, float]:
        job = {"verb": verb, "uri": uri, "directory": str(directory), "after": after}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    process.stdout.close()
    assert process.wait() == 0


def killed(kills: int, tmp_path: Path, uri: str, server: S3Server) -> None:
    """Kills exports, then imports, of two bentos in turn; looks at what is there after each."""
    chance = random.Random(kills)
    bentos = [bento_of(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    whole = {sha256_of_export(bento, tmp_path / f"{bento.name}.tar") for bento in bentos}
    digests = {digest_of(bento) for bento in bentos}
    to = tmp_path / "in" / "bento"
    outcomes = []
    with forking(tmp_path) as run:
        assert run("export", uri, bentos[0], 60)["status"] == 0
        for verb in ("export", "import"):
            seconds = run(verb, uri, bentos[1] if verb == "export" else to, 60)["seconds"]
            for number in range(kills):
                given = bentos[number % 2] if verb == "export" else to
                outcomes.append(run(verb, uri, given, chance.uniform(0, 1.1 * seconds))["status"])
                assert object_sum(server, uri) in whole
                if verb == "import" and to.exists():
                    assert digest_of(to) in digests
            assert run(verb, uri, bentos[0] if verb == "export" else to, 60)["status"] == 0
    assert any(outcomes)
    listed = server.client().list_multipart_uploads(Bucket=server.bucket).get("Uploads", [])
    assert not [upload for upload in listed if upload["Key"] == key_of(uri)]
    assert digest_of(to) == digest_of(bentos[0])
    assert [one.name for one in to.parent.iterdir()] == ["bento"]
    assert list((tmp_path / "temporary").glob("*export*")) == []


def test_killed_a_few_times_nothing_is_half_made(
    uri: str, s3_server: S3Server, tmp_path: Path
) -> None:
    killed(3, tmp_path, uri, s3_server)


@pytest.mark.slow
def test_killed_fifty_times_nothing_is_half_made(
    uri: str, s3_server: S3Server, tmp_path: Path
) -> None:
    killed(50, tmp_path, uri, s3_server)


def key_of(uri: str) -> str:
    return uri.split("/", 3)[3]


def digest_of(directory: Path) -> str:
    return load_bento(directory).digest


def sha256_of_export(bento: Path, archive: Path) -> str:
    return export_bento(load_bento(bento), str(archive), "tar").sha256


def object_sum(server: S3Server, uri: str) -> str:
    body = server.client().get_object(Bucket=server.bucket, Key=key_of(uri))["Body"]
    return hashlib.sha256(body.read()).hexdigest()
