"""What every place answers: objects by name, below one address."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from kfp_bento.runtime.errors import InvalidInput, StorageError

SUM = "sha256"
"""The name under which an object's metadata holds the SHA-256 of its bytes."""

Progress = Callable[[int, int], None]


class NotThereError(StorageError):
    """There is no such object."""


class BrokenTransferError(StorageError):
    """A connection broke, or an answer was cut short: another try may well succeed."""


@dataclass(frozen=True)
class StoredObject:
    """An object as its place describes it.

    Attributes:
        name: Its name below the address of the place; "" for the address itself.
        size: Bytes; -1 where the place does not say.
        sha256: SHA-256 in hexadecimal as whoever wrote the object recorded it, or "".
        etag: What changes when the object does, as the place says it, or "".
        facts: What else was recorded with it.
        modified: Since when it is there, in UTC; None where the place does not say.
    """

    name: str
    size: int
    sha256: str = ""
    etag: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    modified: datetime | None = None


class Place(Protocol):
    """A file, an object or a folder of them. Names are relative to its address, "" is itself."""

    address: str

    def list(self) -> Iterator[StoredObject]:
        """Give what is at the address or below it, by name; recorded facts are left to `stat`.

        Raises:
            InvalidInput: The place cannot be listed.
            StorageError: It refuses, or cannot be reached.
        """

    def stat(self, name: str = "") -> StoredObject:
        """Describe an object.

        Raises:
            NotThereError: There is none.
            StorageError: The place refuses, or cannot be reached.
        """

    def read(
        self, to: Path, name: str = "", *, sha256: str = "", progress: Progress | None = None
    ) -> StoredObject:
        """Copy an object to a file, which is there only once it is whole and what was recorded.

        What a killed process had fetched already is used again, if the object is still the same.

        Args:
            to: The file.
            name: The object.
            sha256: What its SHA-256 has to be; by default what was recorded with it, if anything.
            progress: Told the bytes done and the bytes in all.

        Returns:
            The object, with the SHA-256 of the bytes that were read.

        Raises:
            NotThereError: There is none.
            StorageError: It cannot be read, has changed meanwhile, or is not what was recorded.
        """

    def write(
        self,
        file: Path,
        name: str = "",
        *,
        facts: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> StoredObject:
        """Put a file under a name: there is the old object or the whole new one, nothing else.

        Its SHA-256 is recorded with the object where the place can do that, and beside it as
        `<name>.sha256` for people and other programs.

        Raises:
            StorageError: It cannot be written.
        """

    def delete(self, name: str = "") -> None:
        """Remove an object, and the sum beside it; one that is not there is no failure."""

    def presigned(self, name: str = "", *, seconds: int) -> str:
        """Give a URL by which anybody may read an object for a time, without credentials.

        Args:
            name: The object; nobody looks whether it is there.
            seconds: How long the URL is good for, 1 to 604,800. It ends earlier with temporary
                credentials.

        Raises:
            InvalidInput: The place has no such URLs, or none of that length.
            StorageError: There are no credentials to sign with.
        """


def require_inside(name: str, address: str) -> str:
    """Give a name back, if it stays below the address it belongs to.

    Raises:
        InvalidInput: It does not.
    """
    if name and any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidInput(f"'{name}' is no name below {address}.")
    return name


def sum_line(sha256: str, name: str) -> bytes:
    """Write a sum as `sha256sum --check` reads it."""
    return f"{sha256}  {name}\n".encode()


def parsed_sum(text: bytes) -> str:
    """Give the sum in a line that `sha256sum` wrote, or "" where there is none."""
    words = text.decode("ascii", "replace").split()
    return words[0].lower() if words and is_sum(words[0].lower()) else ""


def is_sum(text: str) -> bool:
    """Say whether a text is a SHA-256 in hexadecimal."""
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def require_sum(found: str, wanted: str, address: str) -> None:
    """Make sure that bytes are those that somebody recorded.

    Raises:
        StorageError: They are not.
    """
    if wanted and found != wanted.lower():
        raise StorageError(
            f"{address} has the SHA-256 {found}, not {wanted} as it should be.",
            hint="It was changed or damaged: write it again from its source.",
        )
