"""Where object storage is and who asks: from the environment, then from a mounted Secret.

Values come in pairs or not at all: a key from here is never joined with a secret from there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.files import read_small_file, reading

MOUNTED_SECRET = Path("/etc/kfp-bento/storage")
"""Where the pipelines mount the Secret with the credentials of object storage."""

_LONGEST = 64 << 10
# As Kubeflow's own Secret `mlpipeline-minio-artifact` calls them, and as AWS does.
_NAMES = {
    "access_key": ("AWS_ACCESS_KEY_ID", "accesskey"),
    "secret_key": ("AWS_SECRET_ACCESS_KEY", "secretkey"),
    "session_token": ("AWS_SESSION_TOKEN", "sessiontoken"),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "endpoint"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION", "region"),
    "ca_bundle": ("AWS_CA_BUNDLE", "ca.crt"),
    "path_style": ("KFP_BENTO_S3_PATH_STYLE", "pathstyle"),
}
_MINIO_NAMES = {
    **_NAMES,
    "access_key": ("MINIO_ACCESS_KEY", *_NAMES["access_key"]),
    "secret_key": ("MINIO_SECRET_KEY", *_NAMES["secret_key"]),
    "endpoint": ("MINIO_ENDPOINT", *_NAMES["endpoint"]),
}
_YES, _NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True)
class StorageSettings:
    """How to reach object storage; the secrets never show in a repr.

    Attributes:
        endpoint: `https://host[:port]`, or "" for the client's own default.
        region: The region, or "" for the client's own default.
        path_style: Whether the bucket is part of the path; None leaves it to the client.
        ca_bundle: A file with the certificates to trust, or "" for the system's.
        access_key: The access key, or "" where the client looks for one itself.
        secret_key: The secret that belongs to it.
        session_token: The token that belongs to both, if they are temporary.
    """

    endpoint: str
    region: str
    path_style: bool | None
    ca_bundle: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)


def storage_settings(scheme: str) -> StorageSettings:
    """Read the settings for `s3` or `minio`.

    Raises:
        InvalidInput: A value makes no sense.
        StorageError: The mounted Secret cannot be read, or has one half of the credentials.
    """
    names = _MINIO_NAMES if scheme == "minio" else _NAMES
    mounted = _mounted()
    given = {key: os.environ[key] for found in names.values() for key in found if key in os.environ}

    def value(name: str, source: dict[str, str]) -> str:
        return next((source[key] for key in names[name] if source.get(key)), "")

    keys = ("access_key", "secret_key", "session_token")
    # A pair of the environment is complete, or it is not one.
    source = given if value("access_key", given) else mounted
    credentials = {name: value(name, source) for name in keys}
    if bool(credentials["access_key"]) != bool(credentials["secret_key"]):
        raise StorageError(
            "Of the credentials for object storage one half is missing.",
            hint=f"Give both {names['access_key'][0]} and {names['secret_key'][0]}, or neither.",
        )
    style = value("path_style", given) or value("path_style", mounted)
    bundle = value("ca_bundle", given)
    if not bundle and value("ca_bundle", mounted):
        bundle = str(MOUNTED_SECRET / "ca.crt")
    return StorageSettings(
        endpoint=_endpoint(value("endpoint", given) or value("endpoint", mounted)),
        region=value("region", given) or value("region", mounted),
        path_style=_truth(style),
        ca_bundle=bundle,
        **credentials,
    )


def plain_http_allowed() -> bool:
    """Say whether `http://` addresses may be read: only where somebody said so."""
    return _truth(os.environ.get("KFP_BENTO_PLAIN_HTTP", "")) is True


def _mounted() -> dict[str, str]:
    if not MOUNTED_SECRET.is_dir():
        return {}
    found = {}
    for name in {name for names in _MINIO_NAMES.values() for name in names}:
        file = MOUNTED_SECRET / name
        if file.exists():
            with reading(
                f"The mounted Secret's {file} cannot be read",
                StorageError,
                hint="Mount the Secret so that the step's user may read it.",
            ):
                found[name] = read_small_file(file, _LONGEST).decode().strip()
    return found


def _endpoint(text: str) -> str:
    """Give the endpoint with its scheme; plain HTTP only where `http://` was written out."""
    if not text:
        return ""
    whole = text if "://" in text else f"https://{text}"
    parts = urlsplit(whole)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InvalidInput(
            "The endpoint of object storage is no http:// or https:// address of a host.",
            hint="Write https://host:port; plain HTTP has to be written out as http://host:port.",
        )
    return whole.rstrip("/")


def _truth(text: str) -> bool | None:
    if not text:
        return None
    if text.lower() not in _YES | _NO:
        raise InvalidInput(f"'{text}' is neither true nor false.", hint="Write true or false.")
    return text.lower() in _YES
