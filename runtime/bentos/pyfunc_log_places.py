"""Where the log of requests goes: a file, the standard output, or a bucket.

This file lies beside the service in every bento that kfp-bento generates. What writes to a bucket,
boto3, is in a bento that was built with the option `log_to_bucket`.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import os
import re
import socket
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from bentoml._internal.context import server_context
from bentoml.exceptions import BentoMLConfigException

STANDARD_OUTPUT = "stdout"
ATTEMPTS = 5


class Place(Protocol):
    """Where lines are written.

    Attributes:
        seconds: How long lines may be kept back, so that more are written at once.
    """

    seconds: float

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes lines, all or none.

        Raises:
            Exception: They cannot be written.
        """


class Output:
    """The standard output, which belongs to nobody else line by line."""

    seconds = 0.0

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes lines."""
        for line in lines:
            while line:
                line = line[os.write(1, line) :]


class File:
    """A file that is put aside when it is full: `NAME.1` is the newest of those."""

    seconds = 0.0

    def __init__(self, path: Path, most_bytes: int, kept: int) -> None:
        """Looks whether the file can be written.

        Args:
            path: The file.
            most_bytes: How large it may become.
            kept: How many that are full are kept.

        Raises:
            BentoMLConfigException: It cannot.
        """
        index = server_context.worker_index or 1  # processes must not move each other's file away
        self._path = (
            path if index == 1 else path.with_name(f"{path.stem}.worker{index}{path.suffix}")
        )
        self._most, self._kept = most_bytes, kept
        try:
            os.close(self._open())
        except OSError as error:
            told = f"KFP_BENTO_REQUEST_LOG: {path} cannot be written: {error.strerror}"
            raise BentoMLConfigException(told) from None

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes lines; of those for which there is no room, nothing stays."""
        data = b"".join(lines)
        file = self._open()
        size = os.fstat(file).st_size
        if size and size + len(data) > self._most:
            os.close(file)
            self._put_aside()
            file, size = self._open(), 0
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
        finally:
            os.close(file)

    def _put_aside(self) -> None:
        full = [self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._kept + 1)]
        for older, newer in zip(full[:0:-1], full[-2::-1], strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._path.replace(full[0])


class Bucket:
    """Objects in a bucket, each of some minutes or megabytes of lines, compressed by gzip.

    The names hold day and hour, as what reads them by date wants it, and the pod.
    """

    def __init__(self, uri: str, seconds: float) -> None:
        """Makes ready to write; nothing is asked of the bucket yet.

        Args:
            uri: `s3://bucket/prefix`.
            seconds: How long lines are gathered for one object.

        Raises:
            BentoMLConfigException: It is no such address, or nothing here can write to it.
        """
        parts = urlsplit(uri)
        if (
            not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,62}", parts.netloc)
            or parts.query
            or parts.fragment
        ):
            raise BentoMLConfigException("KFP_BENTO_REQUEST_LOG is not s3://bucket/prefix.")
        try:
            boto3, config = (
                importlib.import_module("boto3"),
                importlib.import_module("botocore.config"),
            )
        except ImportError:
            told = "KFP_BENTO_REQUEST_LOG: this bento holds nothing that writes to a bucket"
            raise BentoMLConfigException(
                f"{told}; build it with the option log_to_bucket, or name a file"
            ) from None
        self._bucket, self.seconds = parts.netloc, seconds
        prefix = parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._number = 0
        settings = config.Config(
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=5,
            read_timeout=20,
            request_checksum_calculation="when_required",
        )
        try:
            self._client: Any = boto3.client("s3", config=settings)
        except Exception as error:  # an address or a profile of the environment's, in many kinds
            told = f"KFP_BENTO_REQUEST_LOG: the settings of the bucket do not do: {error}"
            raise BentoMLConfigException(told) from None

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes lines as one object."""
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._key(),
            Body=gzip.compress(b"".join(lines), mtime=0),
            ContentType="application/x-ndjson",
            ContentEncoding="gzip",
        )

    def _key(self) -> str:
        self._number += 1
        now = datetime.now(timezone.utc)  # noqa: UP017 (Python 3.10)
        pod = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
        name = f"{now:%Y%m%dT%H%M%S.%f}Z-{pod}-{os.getpid()}-{self._number}.jsonl.gz"
        return f"{self._prefix}{server_context.bento_name}/{now:%Y/%m/%d/%H}/{name}"
