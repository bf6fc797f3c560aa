"""S3 by way of boto3, the one client that knows every kind of identity AWS gives a pod.

Checksums beyond those of S3's first days are asked for only where S3 needs them: boto3's new
defaults break against other stores (boto/boto3#4392).
"""

from __future__ import annotations

import base64
import functools
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from kfp_bento.runtime.concurrency import run_all
from kfp_bento.runtime.errors import StorageError
from kfp_bento.runtime.proxies import proxy_for
from kfp_bento.runtime.storage.object_place import AT_ONCE, CHUNK, PART, file_md5, part_plan
from kfp_bento.runtime.storage.place import NotThereError, StoredObject
from kfp_bento.runtime.storage.refusals import Refusals

if TYPE_CHECKING:
    from kfp_bento.runtime.storage.place import Progress
    from kfp_bento.runtime.storage.settings import StorageSettings

_AMAZON = "https://s3.amazonaws.com"


class S3Client:
    """One bucket through boto3; see `BucketClient`.

    Args:
        bucket: The bucket.
        settings: Where it is, and who asks.
    """

    def __init__(self, bucket: str, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._settings = settings
        self._client = _client(settings)
        self._refusals = Refusals(
            f"s3://{bucket}",
            "AWS_ENDPOINT_URL",
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            settings.endpoint or _AMAZON,
        )

    def head(self, key: str) -> StoredObject:
        """Describe an object."""
        with self._explained(key):
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        return StoredObject(
            key,
            found["ContentLength"],
            etag=found.get("ETag", ""),
            facts={name.lower(): value for name, value in found.get("Metadata", {}).items()},
            modified=found.get("LastModified"),
        )

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Give the objects whose key begins with a prefix."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._explained(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    yield StoredObject(
                        entry["Key"],
                        entry["Size"],
                        etag=entry.get("ETag", ""),
                        modified=entry.get("LastModified"),
                    )

    def chunks(self, found: StoredObject, start: int, end: int) -> Iterator[bytes]:
        """Give a part of an object, of the very object that was described."""
        if start == end:
            return
        wanted = {"IfMatch": found.etag} if found.etag else {}
        with self._explained(found.name):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=found.name, Range=f"bytes={start}-{end - 1}", **wanted
            )
            with answer["Body"] as body:
                while piece := body.read(CHUNK):
                    yield piece

    def put(self, key: str, file: Path, facts: Mapping[str, str], progress: Progress) -> None:
        """Store a file in one step, whatever its size, and clear what earlier tries left."""
        size = file.stat().st_size
        if size <= PART:
            with self._explained(key), file.open("rb") as body:
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=body,
                    ContentMD5=_md5(file, 0, size),
                    Metadata=dict(facts),
                )
            progress(size, size)
            self._clear(key, answer, "")
            return
        with self._explained(key):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, Metadata=dict(facts)
            )
        try:
            self._send(key, answer["UploadId"], file, size, progress)
        except BaseException:
            self._abort(key, answer["UploadId"])
            raise
        self._clear(key, answer, answer["UploadId"])

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        with suppress(NotThereError), self._explained(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def sign(self, key: str, seconds: int) -> str:
        """Give the URL of an object, signed for a time if there is anything to sign with."""
        # Left to itself, boto3 signs URLs as S3 no longer does in newer regions.
        client = _client(self._settings, signature="s3v4")
        with self._explained(key):
            url: str = client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=seconds
            )
        return url

    def _send(self, key: str, upload: str, file: Path, size: int, progress: Progress) -> None:
        stop, told, sent = threading.Event(), threading.Lock(), 0

        def part(number: int, start: int, length: int) -> dict[str, Any]:
            nonlocal sent
            if stop.is_set():
                raise StorageError("Another part of the same upload failed.")
            with self._explained(key), _Slice(file, start, length) as body:
                answer = self._client.upload_part(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    Body=body,
                    ContentMD5=_md5(file, start, length),
                )
            with told:
                sent += length
                progress(sent, size)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        plan = part_plan(size, PART)
        tasks = [functools.partial(part, number, *where) for number, where in enumerate(plan, 1)]
        parts = run_all(tasks, AT_ONCE, stop=stop)
        with self._explained(key):
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def _abort(self, key: str, upload: str) -> None:
        # Whatever failed is what the caller has to hear of.
        with suppress(Exception):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def _clear(self, key: str, begun: dict[str, Any], own: str) -> None:
        """Abort the uploads of this very object that were begun before ours and never ended.

        A killed process leaves its parts behind, unseen and paid for. Whoever may not list
        uploads leaves this to the bucket's own rules.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        said = begun["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        with suppress(BotoCoreError, ClientError, ValueError, TypeError):
            since = parsedate_to_datetime(said)
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=key):
                for upload in page.get("Uploads", []):
                    earlier = upload["Initiated"] <= since
                    if upload["Key"] == key and upload["UploadId"] != own and earlier:
                        self._abort(key, upload["UploadId"])

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises into what people can use."""
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        say = self._refusals
        # A body that breaks off comes as urllib3 says it.
        broken = (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            exceptions.IncompleteReadError,
        )
        try:
            yield
        except exceptions.ClientError as failure:
            error = failure.response.get("Error", {})
            code, said = str(error.get("Code", "")), str(error.get("Message", ""))
            raise say.of_store(key, code, said) from failure
        except exceptions.NoCredentialsError as failure:
            raise say.denied(key, "there are no credentials") from failure
        except exceptions.SSLError as failure:
            raise say.untrusted(key) from failure
        except (*broken, HTTPError) as failure:
            raise say.broken(key, failure) from failure
        except exceptions.BotoCoreError as failure:
            raise say.unusable(key, failure) from failure
        except OSError as failure:  # a connection that breaks below urllib3
            raise say.broken(key, failure) from failure


def _client(settings: StorageSettings, *, signature: str = "") -> Any:
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    own_session = botocore.session.get_session()
    own_session.register_component("data_loader", _descriptions())
    session = boto3.session.Session(botocore_session=own_session)
    path_style = bool(settings.endpoint) if settings.path_style is None else settings.path_style
    config: dict[str, Any] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path" if path_style else "auto"},
        "retries": {"mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 16,
        # botocore's own choice would not know networks in NO_PROXY.
        "proxies": _proxies(settings.endpoint or _AMAZON),
    }
    if "AWS_MAX_ATTEMPTS" not in os.environ:  # boto3's own, which it takes itself
        config["retries"]["total_max_attempts"] = 5
    if signature:
        config["signature_version"] = signature
    own: dict[str, Any] = {}
    if settings.access_key:
        own = {
            "aws_access_key_id": settings.access_key,
            "aws_secret_access_key": settings.secret_key,
            "aws_session_token": settings.session_token or None,
        }
    elif session.get_credentials() is None:
        config["signature_version"] = UNSIGNED
    return session.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        region_name=settings.region or session.region_name or "us-east-1",
        verify=settings.ca_bundle or None,
        config=Config(**config),
        **own,
    )


def _proxies(endpoint: str) -> dict[str, str]:
    """Give the proxy by scheme, as botocore takes it, its account within the address."""
    proxy = proxy_for(endpoint)
    if proxy is None:
        return {}
    user, _, password = proxy.account.partition(":")
    account = f"{quote(user, safe='')}:{quote(password, safe='')}@" if proxy.account else ""
    return {urlsplit(endpoint).scheme: proxy.address.replace("://", f"://{account}", 1)}


@functools.cache
def _descriptions() -> Any:
    """Give what botocore knows of S3: half a megabyte of JSON, read once for all clients."""
    from botocore.loaders import create_loader

    return create_loader()


def _md5(file: Path, start: int, length: int) -> str:
    return base64.b64encode(file_md5(file, start, length)).decode()


class _Slice(io.RawIOBase):
    """A part of a file, which the client may read again when it has to send it again."""

    def __init__(self, file: Path, start: int, length: int) -> None:
        super().__init__()
        self._stream = file.open("rb", buffering=0)
        self._start, self._length, self._at = start, length, 0
        self._stream.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        above = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = min(max(above + offset, 0), self._length)
        self._stream.seek(self._start + self._at)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._length - self._at]
        count = self._stream.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
