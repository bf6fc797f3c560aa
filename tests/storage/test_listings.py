"""Folders of any length are listed, and what cannot be listed says so."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import S3Server

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.storage import open_place

MORE_THAN_A_PAGE = 1003


@pytest.fixture(scope="module")
def many(s3_server: S3Server) -> str:
    """A folder of the bucket with more objects than one answer of S3 lists."""
    folder, client = uuid.uuid4().hex, s3_server.client()

    def put(number: int) -> None:
        client.put_object(Bucket=s3_server.bucket, Key=f"{folder}/{number:04}", Body=b"x")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(MORE_THAN_A_PAGE)))
    return folder


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_all_pages_of_a_listing_are_read(
    scheme: str, many: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    found = [one.name for one in open_place(f"{scheme}://{s3_server.bucket}/{many}/").list()]
    assert found == [f"{number:04}" for number in range(MORE_THAN_A_PAGE)]


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_a_bucket_that_is_not_there_is_named(
    scheme: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=rf"There is no bucket for {scheme}://nobodys/wine/"):
        list(open_place(f"{scheme}://nobodys/wine/").list())


def test_the_web_cannot_be_listed_and_says_what_can() -> None:
    place = open_place("https://store.example/bentos/?signature=secret")
    with pytest.raises(InvalidInput, match="cannot be listed") as refusal:
        list(place.list())
    assert "s3://bucket/folder/" in refusal.value.hint
    assert "secret" not in str(refusal.value)
