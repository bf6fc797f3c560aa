"""Addresses and settings: what is taken, from where, and what is refused before it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError, StorageError
from kfp_bento.runtime.storage import open_place
from kfp_bento.runtime.storage.settings import storage_settings
from kfp_bento.runtime.storage.uri import parse_uri


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no address"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://key:secret@bucket/x", "no bucket"),
        ("minio://host:9000/bucket/x", "no bucket"),
        ("s3://bucket/a/../b", "'..'"),
        ("gs://bucket/key", "no storage that is known"),
        ("ftp://host/x", "no storage that is known"),
        ("file://host/x", "names a machine"),
        ("https://user:secret@host/x", "user name or password"),
        ("http://host/x", "plain HTTP"),
        ("https:///x", "no host"),
        ("s3://bucket/a\nb", "no address"),
    ],
)
def test_an_address_is_refused_and_no_secret_repeated(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refusal:
        open_place(text)
    assert "secret" not in str(refusal.value)


def test_a_presigned_url_is_never_shown_whole() -> None:
    place = open_place("https://host/bucket/key?X-Amz-Signature=secret")
    assert place.address == "https://host/bucket/key"


@pytest.mark.parametrize("key", ["a?b#c", "a b", "ü", "a%20b", "a//b"])
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert parse_uri(f"s3://bucket/{key}").key == key


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    monkeypatch.setattr("kfp_bento.runtime.storage.settings.MOUNTED_SECRET", folder)
    return folder


def test_a_mounted_secret_is_read_as_kubeflow_names_its_keys(mounted: Path) -> None:
    for name, value in (("accesskey", "mine\n"), ("secretkey", "its"), ("endpoint", "store:9000")):
        (mounted / name).write_text(value)
    (mounted / "ca.crt").write_text("certificate")
    found = storage_settings("minio")
    assert (found.access_key, found.secret_key) == ("mine", "its")
    assert found.endpoint == "https://store:9000"
    assert found.ca_bundle == str(mounted / "ca.crt")
    assert "its" not in repr(found)


def test_the_environment_wins_and_pairs_stay_together(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        (mounted / name).write_text("mounted")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "given")
    with pytest.raises(StorageError, match="one half is missing"):
        storage_settings("s3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "given")
    found = storage_settings("s3")
    assert (found.access_key, found.secret_key, found.session_token) == ("given", "given", "")


def test_minio_has_names_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other:1")
    monkeypatch.setenv("MINIO_ENDPOINT", "http://minio:9000")
    assert storage_settings("minio").endpoint == "http://minio:9000"
    assert storage_settings("s3").endpoint == "http://other:1"


@pytest.mark.parametrize("endpoint", ["ftp://host", "https://", "https://me:secret@host"])
def test_an_endpoint_that_is_none_is_refused(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(InvalidInput) as refusal:
        open_place("s3://bucket/key")
    assert "secret" not in str(refusal.value)


def test_minio_without_an_endpoint_says_so() -> None:
    with pytest.raises(KfpBentoError, match="Nothing says where") as refusal:
        open_place("minio://bucket/key")
    assert "MINIO_ENDPOINT" in refusal.value.hint


def test_a_store_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_address: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", free_address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="connection to the store broke") as failure:
        open_place("s3://bucket/key").read(tmp_path / "x")
    assert "AWS_ENDPOINT_URL" in failure.value.hint
