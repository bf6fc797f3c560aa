"""Addresses of objects: what `s3://bucket/folder/name` says, and what no address may say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kfp_bento.runtime.errors import InvalidInput, plain_text

BUCKETS = ("s3", "minio")
WEB = ("https", "http")
_KNOWN = "file://, s3://, minio:// and, to read, https://"


@dataclass(frozen=True)
class StorageUri:
    """An address, taken apart.

    Attributes:
        scheme: `file`, `s3`, `minio`, `https` or `http`.
        bucket: The bucket; "" for files and the web.
        key: The object's key, the absolute path of a file, or the whole URL of the web.
        text: The address for people: without the query, which signs a presigned URL.
    """

    scheme: str
    bucket: str
    key: str
    text: str


def parse_uri(text: str) -> StorageUri:
    """Take an address apart.

    Args:
        text: An address, or a path on this machine.

    Raises:
        InvalidInput: It is of another kind, holds a user name or password, or names no bucket.
    """
    if not text or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise InvalidInput(
            f"'{plain_text(text)}' is no address of an object.", hint=f"Known are {_KNOWN}."
        )
    if "://" not in text:
        path = Path(text).expanduser().absolute()
        return StorageUri("file", "", str(path), str(path))
    scheme = text.partition("://")[0].lower()
    if scheme == "file":
        return _file(text)
    if scheme in WEB:
        return _web(scheme, text)
    if scheme in BUCKETS:
        return _object(scheme, text)
    raise InvalidInput(f"'{scheme}://' is no storage that is known.", hint=f"Known are {_KNOWN}.")


def _file(text: str) -> StorageUri:
    rest = text.partition("://")[2]
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise InvalidInput(
            f"'{text}' names a machine, and files are read on this one only.",
            hint="Write file:///absolute/path.",
        )
    decoded = unquote(f"/{path}")
    return StorageUri("file", "", decoded, decoded)


def _web(scheme: str, text: str) -> StorageUri:
    parts = urlsplit(text)
    shown = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        raise InvalidInput(
            f"The address {shown} holds a user name or password.",
            hint="Use a presigned URL; addresses are logged.",
        )
    if not parts.hostname:
        raise InvalidInput(f"'{shown}' names no host.")
    return StorageUri(scheme, "", text, shown)


def _object(scheme: str, text: str) -> StorageUri:
    # Not urlsplit: keys may hold ? and #, which mean nothing to a bucket.
    bucket, _, key = text.partition("://")[2].partition("/")
    if "@" in bucket or ":" in bucket:
        raise InvalidInput(
            f"'{bucket.rpartition('@')[2]}' is no bucket: {scheme}:// takes neither a user nor a "
            "host.",
            hint="Name the endpoint in AWS_ENDPOINT_URL (MINIO_ENDPOINT for minio://), and the "
            "credentials in the environment or a mounted Secret.",
        )
    if not bucket:
        raise InvalidInput(f"'{text}' names no bucket.", hint=f"Write {scheme}://bucket/key.")
    if any(part in (".", "..") for part in key.split("/")):
        raise InvalidInput(
            f"The key '{key}' holds '.' or '..' as a part, which many programs cannot address."
        )
    return StorageUri(scheme, bucket, key, f"{scheme}://{bucket}/{key}")
