"""Uploads of blobs, streamed: one PATCH with chunked transfer encoding, as docker and skopeo do.

What breaks is begun again from its first byte, since the source is on disk or can be fetched
again. Registries that do not take that way get the blob as a whole or in pieces.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.oci.blobs import verified
from kfp_bento.runtime.images.oci.image import BlobSource, BlobStream, Descriptor, Placement
from kfp_bento.runtime.images.registry.answers import (
    BYTE_RANGE,
    Answer,
    TransientError,
    whole_number,
)
from kfp_bento.runtime.images.registry.transport import Transport

_OCTETS = {"Content-Type": "application/octet-stream"}
# What GHCR takes at most in one PATCH with a Content-Range.
_PIECE = 4 << 20
_LARGEST_PIECE = 64 << 20
# Less is gathered before it is sent.
_LEAST = 256 << 10

# How a blob is sent: one PATCH of yet unknown length, one PUT of known length, or many PATCHes.
_Route = Literal["stream", "whole", "pieces"]
_UNSUITED = {400, 405, 411, 413, 416, 501}
_TOO_LARGE = {413, 416}
# Errors that no other way of sending would mend.
_FINAL_CODES = {"DENIED", "UNAUTHORIZED", "NAME_INVALID", "NAME_UNKNOWN", "TOOMANYREQUESTS"}
# Bytes were lost on the way, or the registry forgot the upload.
_LOST_CODES = {"DIGEST_INVALID", "SIZE_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"}


class Uploads:
    """Uploads to one repository, which remember what its registry takes; for several threads.

    Args:
        http: Requests to the repository.
        has_blob: Whether the repository holds a blob.
    """

    def __init__(self, http: Transport, has_blob: Callable[[Descriptor], bool]) -> None:
        self._http = http
        self._has_blob = has_blob
        self._action = f"upload a blob to {http.name}"
        self._route: _Route = "stream"
        self._unmountable: set[str] = set()

    def send(self, blob: Descriptor, source: BlobSource, neighbour: str = "") -> Placement:
        """Send a blob that is known.

        Args:
            blob: What to send.
            source: Where it is.
            neighbour: A repository of the same registry to mount it from; may be empty.

        Raises:
            RegistryError: The registry refuses it, or keeps failing.
        """
        return self._send(_Content(_StoredBlob(blob, source), known=blob), neighbour)

    def send_stream(self, stream: BlobStream) -> None:
        """Send a blob that is made while it is read; begun again when it breaks off.

        Raises:
            RegistryError: As `send`.
        """
        self._send(_Content(stream))

    def _send(self, content: _Content, neighbour: str = "") -> Placement:
        """Send a blob, by other ways when the registry does not take the first."""
        tried: list[_Route] = []
        route = self._route
        while True:
            try:
                placed = self._http.retrying(lambda: self._attempt(route, content, neighbour))  # noqa: B023
            except _Unsuited as unsuited:
                tried.append(route)
                left = [other for other in unsuited.instead if other not in tried]
                if not left:
                    raise unsuited.error from None
                route = left[0]
            else:
                if placed == "sent":
                    self._route = route
                return placed

    def _attempt(self, route: _Route, content: _Content, neighbour: str) -> Placement:
        # The attempt before may have got through, only its answer did not.
        if content.begun and content.known and self._has_blob(content.known):
            return "sent"
        started = self._start(content, neighbour)
        if started.status == 201:
            return "mounted"
        least = started.headers.get("OCI-Chunk-Min-Length", "")
        session = _Session(self._http.location(started), max(_PIECE, whole_number(least) or 0))
        content.begun = True
        try:
            if route == "stream":
                closed = self._send_stream(session, content)
            elif route == "whole":
                closed = self._send_whole(session, content)
            else:
                closed = self._send_pieces(session, content)
        except BaseException:
            self._http.abandon(session.place)
            raise
        blob = content.known
        assert blob is not None  # noqa: S101
        if not self._http.check_echo(closed, blob.digest, "blob") and not self._has_blob(blob):
            raise TransientError(
                RegistryError(f"{self._http.name} took {blob.digest} but does not hold it.")
            )
        return "sent"

    def _start(self, content: _Content, neighbour: str) -> Answer:
        """Open an upload, or mount the blob from another repository of the registry."""
        if neighbour and neighbour not in self._unmountable and content.known:
            query = urllib.parse.urlencode({"mount": content.known.digest, "from": neighbour})
            # A registry that knows no mounts, or a token server that denies the source.
            with contextlib.suppress(RegistryError):
                answer = self._http.request(
                    "POST",
                    f"blobs/uploads/?{query}",
                    {201, 202},
                    self._action,
                    body=b"",
                    also=(neighbour,),
                )
                if answer.status == 201:
                    self._http.check_echo(answer, content.known.digest, "blob")
                return answer
            self._unmountable.add(neighbour)
        return self._http.request("POST", "blobs/uploads/", {202}, self._action, body=b"")

    def _send_stream(self, session: _Session, content: _Content) -> Answer:
        failures: list[Exception] = []

        def body() -> Iterator[bytes]:
            # Ended in good order: docker-registry cannot cancel an upload that broke off.
            try:
                yield from content.chunks()
            except Exception as error:
                failures.append(error)

        try:
            answer = self._patch(session, body())
        finally:
            if failures:
                raise failures[0]
        if not content.finished:
            raise TransientError(self._http.failure(answer, "wait for the end of a blob"))
        return self._close(session, content)

    def _send_whole(self, session: _Session, content: _Content) -> Answer:
        if content.known is None:
            # Read once more than sent: the length must be said before the first byte.
            for _ in content.chunks():
                pass
        assert content.known is not None  # noqa: S101
        chunks = verified(content.chunks(), content.known, "The source")
        headers = {**_OCTETS, "Content-Length": str(content.known.size)}
        return self._close(session, content, chunks, headers)

    def _send_pieces(self, session: _Session, content: _Content) -> Answer:
        if session.piece > _LARGEST_PIECE:
            failure = RegistryError(f"{self._http.host} wants pieces of {session.piece} bytes.")
            raise _Unsuited(failure, "whole")
        sent = 0
        confirmed = False
        for piece in _recut(content.chunks(), session.piece):
            place = f"{sent}-{sent + len(piece) - 1}"
            sent += len(piece)
            answer = self._patch(session, piece, {"Content-Range": place})
            given = BYTE_RANGE.fullmatch(answer.headers.get("Range", ""))
            confirmed = given is not None
            if given and int(given[2]) + 1 != sent:
                # ECR takes the first piece, drops the others and says that all is well.
                failure = RegistryError(
                    f"{self._http.host} lost a part of an upload: it has "
                    f"{int(given[2]) + 1} of {sent} bytes."
                )
                raise _Unsuited(failure, "whole")
        try:
            return self._close(session, content)
        except _Lost as lost:
            if confirmed:
                raise
            raise _Unsuited(lost.error, "whole") from None

    def _patch(
        self, session: _Session, body: bytes | Iterator[bytes], more: dict[str, str] | None = None
    ) -> Answer:
        answer = self._http.once("PATCH", session.place, body, {**_OCTETS, **(more or {})})
        self._check_lost(answer, {"BLOB_UPLOAD_UNKNOWN"})
        self._check_suited(answer, streamed=more is None)
        self._http.expect(answer, {201, 202, 204}, self._action)
        session.place = self._http.location(answer, default=session.place)
        return answer

    def _close(
        self,
        session: _Session,
        content: _Content,
        body: bytes | Iterator[bytes] = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        assert content.known is not None  # noqa: S101
        separator = "&" if "?" in session.place else "?"
        query = urllib.parse.urlencode({"digest": content.known.digest})
        answer = self._http.once("PUT", f"{session.place}{separator}{query}", body, headers)
        self._check_lost(answer, _LOST_CODES)
        if headers:
            self._check_suited(answer, streamed=False)
        self._http.expect(answer, {200, 201, 204}, self._action)
        return answer

    def _check_suited(self, answer: Answer, *, streamed: bool) -> None:
        """Raise _Unsuited when the blob may get through in another way."""
        if answer.status not in _UNSUITED or answer.codes & _FINAL_CODES:
            return
        failure = self._http.failure(answer, self._action)
        if streamed and answer.status not in _TOO_LARGE:
            raise _Unsuited(failure, "whole", "pieces")
        raise _Unsuited(failure, "pieces", "whole")

    def _check_lost(self, answer: Answer, codes: set[str]) -> None:
        """Raise _Lost when all may go well the next time."""
        if answer.status in {400, 404, 416} and answer.codes & codes:
            raise _Lost(self._http.failure(answer, self._action))


class _Lost(TransientError):
    """The registry did not get what was sent, or has forgotten it."""


class _Unsuited(Exception):
    """The registry does not take a blob this way; perhaps in one of the others."""

    def __init__(self, error: RegistryError, *instead: _Route) -> None:
        super().__init__(error.message)
        self.error = error
        self.instead = instead


@dataclass
class _Session:
    """An upload that was opened: where to send next, and the size of pieces."""

    place: str
    piece: int


@dataclass(frozen=True)
class _StoredBlob:
    """A blob of a source in the shape of a stream."""

    blob: Descriptor
    source: BlobSource

    def open(self) -> Iterator[bytes]:
        return self.source.open_blob(self.blob)

    @property
    def digest(self) -> str:
        return self.blob.digest

    @property
    def size(self) -> int:
        return self.blob.size


@dataclass
class _Content:
    """What is uploaded.

    Attributes:
        stream: Gives the bytes, from the first one on and as often as needed.
        known: Digest and size, once they are known.
        begun: Whether any of it was sent before.
        finished: Whether the last reading went to the end.
    """

    stream: BlobStream
    known: Descriptor | None = None
    begun: bool = False
    finished: bool = False

    def chunks(self) -> Iterator[bytes]:
        """Give the bytes, small pieces gathered into larger ones."""
        self.finished = False
        yield from _gathered(self.stream.open())
        self.known = Descriptor("", self.stream.digest, self.stream.size)
        self.finished = True


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= _LEAST:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


def _recut(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Give the same bytes in pieces of one size, only the last one smaller."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
