"""S3 by way of MinIO's own client: small, and what `minio://` addresses stand for in Kubeflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.storage.object_place import AT_ONCE, CHUNK, PART
from kfp_bento.runtime.storage.place import NotThereError, StoredObject
from kfp_bento.runtime.storage.refusals import Refusals

if TYPE_CHECKING:
    from kfp_bento.runtime.storage.place import Progress
    from kfp_bento.runtime.storage.settings import StorageSettings

_META = "x-amz-meta-"
# By these a pod is given an identity; without them nobody is to be asked for one.
_IDENTITY = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class MinioClient:
    """One bucket through MinIO's client; see `BucketClient`.

    Args:
        bucket: The bucket.
        settings: Where it is, and who asks.
    """

    def __init__(self, bucket: str, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._client = _client(settings)
        self._refusals = Refusals(
            f"minio://{bucket}",
            "MINIO_ENDPOINT",
            ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
            settings.endpoint,
        )

    def head(self, key: str) -> StoredObject:
        """Describe an object."""
        with self._explained(key):
            found = self._client.stat_object(self._bucket, key)
        facts = {
            name.lower().removeprefix(_META): value
            for name, value in (found.metadata or {}).items()
            if name.lower().startswith(_META)
        }
        return StoredObject(
            key,
            found.size or 0,
            etag=_quoted(found.etag),
            facts=facts,
            modified=found.last_modified,
        )

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Give the objects whose key begins with a prefix."""
        with self._explained(prefix):
            for entry in self._client.list_objects(self._bucket, prefix, recursive=True):
                yield StoredObject(
                    entry.object_name or "",
                    entry.size or 0,
                    etag=_quoted(entry.etag),
                    modified=entry.last_modified,
                )

    def chunks(self, found: StoredObject, start: int, end: int) -> Iterator[bytes]:
        """Give a part of an object, of the very object that was described."""
        if start == end:
            return
        wanted = {"If-Match": found.etag} if found.etag else {}
        with self._explained(found.name):
            # Its `length` 0 means "to the end", as its `offset` 0 does "from the start".
            answer = self._client.get_object(
                self._bucket, found.name, offset=start, length=end - start, request_headers=wanted
            )
            try:
                while piece := answer.read(CHUNK):
                    yield piece
            finally:
                answer.close()
                answer.release_conn()

    def put(self, key: str, file: Path, facts: Mapping[str, str], progress: Progress) -> None:
        """Store a file in one step, whatever its size, and clear what earlier tries left."""
        size = file.stat().st_size
        begun = datetime.now(UTC)
        with self._explained(key):
            # It aborts its own upload when it fails.
            self._client.fput_object(
                self._bucket,
                key,
                str(file),
                metadata=dict(facts),
                part_size=max(PART, -(-size // 10_000)),
                num_parallel_uploads=AT_ONCE,
            )
        progress(size, size)
        self._clear(key, begun)

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        with suppress(NotThereError), self._explained(key):
            self._client.remove_object(self._bucket, key)

    def sign(self, key: str, seconds: int) -> str:
        """Give the URL of an object, signed for a time if there is anything to sign with."""
        with self._explained(key):
            time = timedelta(seconds=seconds)
            return str(self._client.presigned_get_object(self._bucket, key, expires=time))

    def _clear(self, key: str, begun: datetime) -> None:
        """Abort the uploads of this very object that were begun before ours and never ended.

        The client shows them in no public call; a version of it without these leaves them to the
        bucket's own rules.
        """
        client: Any = self._client
        with suppress(Exception):
            listed = client._list_multipart_uploads(self._bucket, prefix=key)
            for upload in listed.uploads:
                if upload.object_name == key and upload.initiated_time < begun:
                    client._abort_multipart_upload(self._bucket, key, upload.upload_id)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn what the client raises into what people can use."""
        import urllib3
        from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

        say = self._refusals
        try:
            yield
        except S3Error as failure:
            raise say.of_store(key, str(failure.code), str(failure.message)) from failure
        except (ServerError, InvalidResponseError) as failure:
            if getattr(failure, "status_code", 0) == 407:
                raise say.of_store(key, "407", "") from failure
            raise say.busy(key, str(failure)) from failure
        except (MinioException, ValueError) as failure:
            raise say.unusable(key, failure) from failure
        except urllib3.exceptions.HTTPError as failure:
            if "CERTIFICATE_VERIFY_FAILED" in str(failure):
                raise say.untrusted(key) from failure
            if isinstance(getattr(failure, "reason", None), urllib3.exceptions.ResponseError):
                raise say.busy(key, str(getattr(failure, "reason", ""))) from failure
            raise say.broken(key, failure) from failure


def _client(settings: StorageSettings) -> Any:
    import urllib3
    from minio import Minio
    from minio.credentials.providers import IamAwsProvider

    from kfp_bento.runtime.pools import ConnectionPools

    if not settings.endpoint:
        raise InvalidInput(
            "Nothing says where minio:// addresses are.",
            hint="Set MINIO_ENDPOINT to https://host:port (or http:// for plain HTTP), or use "
            "s3:// for Amazon's own.",
        )
    endpoint = urlsplit(settings.endpoint)
    if endpoint.path not in ("", "/"):
        raise InvalidInput(
            f"The endpoint has the path {endpoint.path}, which MinIO's client cannot use.",
            hint="Use s3:// with the same endpoint.",
        )
    identity = any(os.environ.get(name) for name in _IDENTITY)
    pool = ConnectionPools(
        timeout=urllib3.Timeout(connect=10, read=60),
        maxsize=16,
        cert_reqs="CERT_REQUIRED",
        ca_certs=settings.ca_bundle or None,
        retries=urllib3.Retry(
            total=5,
            other=1,  # such as a certificate that nobody trusts
            redirect=0,
            backoff_factor=0.2,
            status_forcelist=[500, 502, 503, 504],
        ),
    )
    return Minio(
        endpoint.netloc,
        access_key=settings.access_key or None,
        secret_key=settings.secret_key or None,
        session_token=settings.session_token or None,
        secure=endpoint.scheme == "https",
        region=settings.region or None,
        http_client=pool,
        credentials=IamAwsProvider() if identity and not settings.access_key else None,
    )


def _quoted(etag: str | None) -> str:
    return f'"{etag.strip(chr(34))}"' if etag else ""
