"""The one door: an address becomes a place."""

from __future__ import annotations

from pathlib import Path

from kfp_bento.runtime.storage.file_place import FilePlace
from kfp_bento.runtime.storage.minio_client import MinioClient
from kfp_bento.runtime.storage.object_place import ObjectPlace
from kfp_bento.runtime.storage.place import Place
from kfp_bento.runtime.storage.s3 import S3Client
from kfp_bento.runtime.storage.settings import storage_settings
from kfp_bento.runtime.storage.uri import WEB, parse_uri
from kfp_bento.runtime.storage.web import WebPlace


def open_place(uri: str) -> Place:
    """Give the place at an address; nothing is asked yet.

    Args:
        uri: `file:///path` or a path, `s3://bucket/key`, `minio://bucket/key`, `https://…`.

    Raises:
        InvalidInput: The address or a setting makes no sense.
        StorageError: The mounted Secret cannot be used.
    """
    parsed = parse_uri(uri)
    if parsed.scheme == "file":
        return FilePlace(Path(parsed.key))
    settings = storage_settings(parsed.scheme)
    if parsed.scheme in WEB:
        return WebPlace(parsed, settings.ca_bundle)
    client = MinioClient if parsed.scheme == "minio" else S3Client
    return ObjectPlace(parsed, client(parsed.bucket, settings))


def local_path(uri: str) -> Path | None:
    """Give the path of an address on this machine, or None for any other.

    Raises:
        InvalidInput: The address makes no sense.
    """
    parsed = parse_uri(uri)
    return Path(parsed.key) if parsed.scheme == "file" else None
