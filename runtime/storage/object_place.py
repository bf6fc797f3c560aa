"""Objects in a bucket, whichever client carries them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.storage.place import (
    SUM,
    NotThereError,
    StoredObject,
    parsed_sum,
    require_inside,
    sum_line,
)
from kfp_bento.runtime.storage.ranges import RangeSource, fetch

if TYPE_CHECKING:
    from kfp_bento.runtime.storage.place import Progress
    from kfp_bento.runtime.storage.uri import StorageUri

PART = 16 << 20
"""Bytes in a part of an upload."""
AT_ONCE = 4
"""Parts that are sent at a time."""
CHUNK = 1 << 20
"""Bytes that are read from an answer at a time."""

_SUM_LIMIT = 4096
_LONGEST_KEY = 1024
_SIGNED = "X-Amz-Signature="

LONGEST_URL = 7 * 24 * 3600
"""Seconds that a presigned URL may be good for, by Signature Version 4."""


class BucketClient(RangeSource, Protocol):
    """What a client does for one bucket; names are whole keys here."""

    def head(self, key: str) -> StoredObject:
        """Describe an object.

        Raises:
            NotThereError: There is none.
        """

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Give the objects whose key begins with a prefix, page by page."""

    def put(self, key: str, file: Path, facts: Mapping[str, str], progress: Progress) -> None:
        """Store a file in one step, whatever its size, and clear what earlier tries left."""

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""

    def sign(self, key: str, seconds: int) -> str:
        """Give the URL of an object, signed for a time if there is anything to sign with."""


class ObjectPlace:
    """An object, or those below a prefix; see `Place`.

    Args:
        uri: The address.
        client: Carries the bytes.
    """

    def __init__(self, uri: StorageUri, client: BucketClient) -> None:
        self.address = uri.text
        self._key = uri.key
        self._client = client

    def list(self) -> Iterator[StoredObject]:
        """Give what is there, without the sums beside it."""
        below = f"{self._key.rstrip('/')}/" if self._key else ""
        for found in self._client.keys(self._key):
            if found.name.endswith((".sha256", "/")):
                continue
            if found.name == self._key:
                yield replace(found, name="")
            elif found.name.startswith(below):
                yield replace(found, name=found.name[len(below) :])

    def stat(self, name: str = "") -> StoredObject:
        """Describe an object; its own metadata says the sum, or else the object beside it."""
        key = self._name(name)
        found = self._described(key)
        if found is None:
            raise NotThereError(
                f"There is no object {self._shown(name)}.",
                hint="Look at the bucket, the key and the endpoint.",
            )
        sha256 = found.facts.get(SUM, "") or self._sum_beside(key)
        return replace(found, name=name, sha256=sha256)

    def read(
        self, to: Path, name: str = "", *, sha256: str = "", progress: Progress | None = None
    ) -> StoredObject:
        """Copy an object to a file."""
        found = self.stat(name)
        whole = replace(found, name=self._name(name))
        wanted = sha256 or found.sha256
        got = fetch(self._client, whole, self._shown(name), to, sha256=wanted, progress=progress)
        return replace(found, sha256=got)

    def write(
        self,
        file: Path,
        name: str = "",
        *,
        facts: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> StoredObject:
        """Store a file; its sum is part of the same step, and put beside it after that."""
        key, sha256, size = self._name(name), file_sha256(file), file.stat().st_size
        said = progress or (lambda done, total: None)
        self._client.put(key, file, {**(facts or {}), SUM: sha256}, said)
        stored = self._described(key)
        if stored is None or stored.size != size or stored.facts.get(SUM, sha256) != sha256:
            raise StorageError(
                f"{self._shown(name)} is not what was just written there.",
                hint="Something else writes the same object, or the store is broken.",
            )
        with tempfile.TemporaryDirectory() as folder:
            beside = Path(folder, "sum")
            beside.write_bytes(sum_line(sha256, key.rpartition("/")[2]))
            self._client.put(f"{key}.sha256", beside, {}, lambda done, total: None)
        return replace(stored, name=name, sha256=sha256)

    def delete(self, name: str = "") -> None:
        """Remove an object and its sum."""
        key = self._name(name)
        self._client.remove(f"{key}.sha256")
        self._client.remove(key)

    def presigned(self, name: str = "", *, seconds: int) -> str:
        """Give a URL that everybody may read an object by, for a time."""
        if not 1 <= seconds <= LONGEST_URL:
            raise InvalidInput(
                f"A presigned URL cannot be good for {seconds} seconds.",
                hint=f"S3 takes 1 to {LONGEST_URL}, which are seven days.",
            )
        url = self._client.sign(self._name(name), seconds)
        if _SIGNED not in url:
            raise StorageError(
                f"There are no credentials to sign a URL of {self._shown(name)} with.",
                hint="Give them in the environment, in the mounted Secret or by the pod's "
                "identity. What everybody may read needs no signature: use its https:// address.",
            )
        return url

    def _sum_beside(self, key: str) -> str:
        """Read the sum that somebody else put beside an object, as `sha256sum` writes it."""
        beside = self._described(f"{key}.sha256")
        if beside is None or beside.size > _SUM_LIMIT:
            return ""
        with suppress(NotThereError):
            return parsed_sum(b"".join(self._client.chunks(beside, 0, beside.size)))
        return ""

    def _described(self, key: str) -> StoredObject | None:
        with suppress(NotThereError):
            return self._client.head(key)
        return None

    def _name(self, name: str) -> str:
        inside = require_inside(name, self.address)
        key = "/".join(part for part in (self._key.rstrip("/"), inside) if part)
        if not key:
            raise InvalidInput(f"{self.address} is a bucket, not an object in it.")
        if len(key.encode()) > _LONGEST_KEY:
            raise InvalidInput(f"The key of {self._shown(name)} is longer than {_LONGEST_KEY}.")
        return key

    def _shown(self, name: str) -> str:
        return f"{self.address.rstrip('/')}/{name}" if name else self.address


def part_plan(size: int, smallest: int, most: int = 10_000) -> list[tuple[int, int]]:
    """Cut a size into at most 10,000 parts, the limit of S3: where each starts, its length."""
    step = max(smallest, -(-size // most))
    return [(start, min(step, size - start)) for start in range(0, size, step)]


def file_md5(file: Path, start: int, length: int) -> bytes:
    """Give the MD5 of a part of a file, by which a store checks what it received."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        stream.seek(start)
        left = length
        while left and (piece := stream.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()
