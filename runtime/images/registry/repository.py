"""A small client for OCI registries (distribution specification 1.1), made for large blobs.

Uploads are streamed: one PATCH with chunked transfer encoding, the way that docker and skopeo
take. What breaks is begun again from its first byte, since the source is on disk or can be
fetched again. Registries that do not take that way get the blob as a whole or in pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from urllib3.exceptions import HTTPError

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.blobs import verified
from kfp_bento.runtime.images.oci.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    BlobSource,
    BlobStream,
    Descriptor,
    Placement,
    is_digest,
    referrer_type,
)
from kfp_bento.runtime.images.oci.reference import Reference
from kfp_bento.runtime.images.registry.connections import (
    INSECURE_VARIABLE,
    RetryPolicy,
    is_loopback,
)
from kfp_bento.runtime.images.registry.transport import (
    CONTENT_LIMIT,
    Answer,
    TransientError,
    Transport,
    whole_number,
)

__all__ = ["INSECURE_VARIABLE", "Repository", "RetryPolicy", "is_loopback"]

_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
_OCTETS = {"Content-Type": "application/octet-stream"}
# What GHCR takes at most in one PATCH with a Content-Range.
_PIECE = 4 << 20
_LARGEST_PIECE = 64 << 20
# Less is gathered before it is sent.
_LEAST = 256 << 10
# A download that brought as much before it broke has not used up an attempt.
_PROGRESS = 64 << 20
_REFERRER_ROUNDS = 8
_REFERRER_PAGES = 1000
_RANGE = re.compile(r"(?:bytes[= ])?\s*(\d{1,19})-(\d{1,19})(?:/(\d{1,19}|\*))?", re.ASCII)
_NO_REFERRERS = {400, 404, 405, 406, 501}

# How a blob is sent: one PATCH of yet unknown length, one PUT of known length, or many PATCHes.
_Route = Literal["stream", "whole", "pieces"]
_UNSUITED = {400, 405, 411, 413, 416, 501}
_TOO_LARGE = {413, 416}
# Errors that no other way of sending would mend.
_FINAL_CODES = {"DENIED", "UNAUTHORIZED", "NAME_INVALID", "NAME_UNKNOWN", "TOOMANYREQUESTS"}
# Bytes were lost on the way, or the registry forgot the upload.
_LOST_CODES = {"DIGEST_INVALID", "SIZE_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"}


class Repository:
    """One repository of a registry: a source of blobs and manifests, and a sink.

    Several threads may use one object at once.

    Args:
        reference: Which repository; its tag and digest are not looked at.
        patience: Time limits and retries.
    """

    carries_referrers: ClassVar[bool] = True

    def __init__(self, reference: Reference, patience: RetryPolicy | None = None) -> None:
        self.reference = reference
        self._http = Transport(reference.host, reference.repository, patience or RetryPolicy())
        self._route: _Route = "stream"
        self._unmountable: set[str] = set()
        self._listing = threading.Lock()

    def head_manifest(self, identifier: str) -> Descriptor | None:
        """What a tag or digest stands for now; None if the registry does not know it."""
        answer = self._request("HEAD", f"manifests/{identifier}", headers={"Accept": _MANIFESTS})
        if answer.status == 404:
            return None
        self._expect(answer, {200}, f"look up {self.reference.name}:{identifier}")
        digest = answer.headers.get("Docker-Content-Digest", "")
        if not is_digest(digest) or answer.length is None:
            found = self.read_manifest_bytes(identifier)
            return found[0] if found else None
        return Descriptor(_media_type(answer), digest, answer.length)

    def read_manifest(self, identifier: str) -> tuple[Descriptor, dict[str, Any]]:
        """A manifest or index, checked against its digest when asked for by digest.

        Raises:
            RegistryError: It is not there, is too large, or is not what its digest says.
        """
        found, content = self.fetch_manifest(identifier)
        return found, self._parsed(content)

    def fetch_manifest(self, identifier: str) -> tuple[Descriptor, bytes]:
        """A manifest or index byte for byte, checked as above.

        Raises:
            RegistryError: It is not there, is too large, or is not what its digest says.
        """
        answer = self._get_manifest(identifier)
        self._expect(answer, {200}, f"read {self.reference.name}:{identifier}")
        return self._described(answer, identifier), answer.content

    def read_manifest_bytes(self, identifier: str) -> tuple[Descriptor, bytes] | None:
        """A manifest or index byte for byte, checked as above; None if it is not there.

        Raises:
            RegistryError: It is too large, or is not what its digest says.
        """
        answer = self._get_manifest(identifier)
        if answer.status == 404:
            return None
        self._expect(answer, {200}, f"read {self.reference.name}:{identifier}")
        return self._described(answer, identifier), answer.content

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the repository holds the blob.

        Raises:
            RegistryError: What it holds under this digest has another size.
        """
        answer = self._request("HEAD", f"blobs/{blob.digest}")
        if answer.status == 404:
            return False
        self._expect(answer, {200}, f"look for a blob in {self.reference.name}")
        if answer.length and answer.length != blob.size:
            raise RegistryError(
                f"{self.reference.name} holds a damaged blob: {answer.length} instead of "
                f"{blob.size} bytes for {blob.digest}.",
                hint="Ask the registry's administrator to remove it, then run this again.",
            )
        return True

    def local_path(self, blob: Descriptor) -> Path | None:
        """A registry has no files."""
        return None

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Streams a blob and checks it at the end; a broken download is taken up again.

        Raises:
            ImageError: The download keeps breaking off, or the bytes are not the blob's.
        """
        return verified(self._download(blob), blob, self.reference.name)

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Uploads a blob unless the repository has it; mounts it from a neighbour where it can.

        Raises:
            RegistryError: The registry refuses it, or keeps failing.
        """
        if self.has_blob(blob):
            return "present"
        content = _Content(_StoredBlob(blob, source), known=blob)
        return self._upload(content, self.neighbour(source))

    def neighbour(self, source: BlobSource) -> str:
        """Give the repository of the same registry that a source is; empty if it is none."""
        if isinstance(source, Repository) and source.reference.host == self.reference.host:
            return source.reference.repository
        return ""

    def put_stream(self, stream: BlobStream) -> None:
        """Uploads a blob that is made while it is read; begun again when it breaks off."""
        self._upload(_Content(stream))

    def put_manifest(self, manifest: Descriptor, content: bytes) -> None:
        """Stores a manifest by digest."""
        self._put_manifest(manifest, content, manifest.digest)

    def tag(self, manifest: Descriptor, content: bytes, tag: str) -> bool:
        """Lets the tag point to the manifest, unless it does already."""
        present = self.head_manifest(tag)
        if present is not None and present.digest == manifest.digest:
            return False
        self._put_manifest(manifest, content, tag)
        return True

    def put_referrer(self, manifest: Descriptor, content: bytes, subject: Descriptor) -> None:
        """Stores a manifest that refers to another one, so that it is found from there.

        Where the registry does not say (``OCI-Subject``) that it keeps the list of referrers,
        the list is kept as the specification has clients do: an index tagged
        ``sha256-<hex of the subject>``. Entries of others stay in it. Registries offer no
        check-and-set, so the list is read again after writing and mended if need be.
        """
        answer = self._put_manifest(manifest, content, manifest.digest)
        if "OCI-Subject" not in answer.headers:
            with self._listing:
                self._list_referrer(_referrer_entry(manifest, content), subject.digest)

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is the digest, with their artifact types.

        Raises:
            RegistryError: The registry fails, or what it gives is no index.
        """
        found: list[dict[str, Any]] = []
        url = self._url(f"referrers/{digest}")
        for _ in range(_REFERRER_PAGES):
            answer = self._http.request("GET", url, headers={"Accept": OCI_INDEX})
            if answer.status in _NO_REFERRERS and not found:
                return _entries(self._fallback_index(digest), self.reference.name)
            self._expect(answer, {200}, f"list what refers to {self.reference.name}@{digest}")
            found += _entries(self._parsed(answer.content), self.reference.name)
            url = self._next_page(answer)
            if not url:
                break
        return found

    def _get_manifest(self, identifier: str) -> Answer:
        return self._request("GET", f"manifests/{identifier}", headers={"Accept": _MANIFESTS})

    def _described(self, answer: Answer, identifier: str) -> Descriptor:
        if len(answer.content) > CONTENT_LIMIT:
            raise RegistryError(f"The manifest of {self.reference.name} is larger than 4 MiB.")
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        named = answer.headers.get("Docker-Content-Digest", "")
        wanted = identifier if identifier.startswith("sha256:") else named or digest
        if wanted.startswith("sha256:") and digest != wanted:
            raise RegistryError(
                f"{self.reference.host} answered with {digest} when asked for {wanted}.",
                hint="Do not use this registry until its administrator has looked at it.",
            )
        return Descriptor(_media_type(answer), digest, len(answer.content))

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            return parse_json(content)
        except ValueError as error:
            raise RegistryError(
                f"The manifest of {self.reference.name} cannot be read: {error}."
            ) from error

    def _put_manifest(self, manifest: Descriptor, content: bytes, identifier: str) -> Answer:
        if len(content) > CONTENT_LIMIT:
            raise RegistryError(
                f"A manifest of {len(content)} bytes cannot be stored in {self.reference.name}: "
                "registries take 4 MiB at most."
            )
        answer = self._request(
            "PUT",
            f"manifests/{identifier}",
            body=content,
            headers={"Content-Type": manifest.media_type},
        )
        self._expect(answer, {200, 201, 202}, f"store {self.reference.name}:{identifier}")
        self._check_echo(answer, manifest.digest, "manifest")
        return answer

    def _check_echo(self, answer: Answer, digest: str, what: str) -> bool:
        """Whether the registry says what it stored; that it is the right thing."""
        echoed = answer.headers.get("Docker-Content-Digest", "")
        if echoed and echoed != digest:
            raise RegistryError(
                f"{self.reference.host} stored the {what} as {echoed}, not as {digest}.",
                hint="Do not use this registry until its administrator has looked at it.",
            )
        return bool(echoed)

    def _download(self, blob: Descriptor) -> Iterator[bytes]:
        """The blob's bytes, taken up where they broke off."""
        done = counted = 0
        attempt = 1
        while True:
            try:
                for chunk in self._download_from(blob, done):
                    done += len(chunk)
                    yield chunk
                return
            except TransientError as passing:
                if blob.size and done >= blob.size:
                    return  # only the end of the answer was lost
                if done - counted >= _PROGRESS:
                    attempt, counted = 1, done
                self._http.pause(attempt, passing)
                attempt += 1

    def _download_from(self, blob: Descriptor, start: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._request("GET", f"blobs/{blob.digest}", headers=headers, stream=True)
        action = f"download {blob.digest} from {self.reference.name}"
        try:
            self._expect(answer, {200, 206} if start else {200}, action)
            begins, total = self._extent(answer)
            if begins > start:
                raise TransientError(self._broken_off(blob, start))
            skip = start - begins
            for chunk in answer.chunks():
                if skip < len(chunk):
                    part = chunk[skip:]
                    start += len(part)
                    yield part
                skip = max(0, skip - len(chunk))
            # A length that differs means other bytes, and asking again would not change them.
            if start < blob.size and total in {None, blob.size}:
                raise TransientError(self._broken_off(blob, start))
        except HTTPError as error:
            raise TransientError(self._broken_off(blob, start)) from error
        finally:
            answer.close()

    def _extent(self, answer: Answer) -> tuple[int, int | None]:
        """The first byte that an answer holds, and the size of the whole where that is said."""
        if answer.status == 200:
            return 0, answer.length
        given = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if given is None:
            raise RegistryError(f"{self.reference.host} does not say which part it sends.")
        total = given[3] or "*"
        return int(given[1]), int(total) if total.isdecimal() else None

    def _broken_off(self, blob: Descriptor, done: int) -> RegistryError:
        return RegistryError(
            f"The download from {self.reference.name} broke off after {done} of {blob.size} bytes.",
            hint="Run this again.",
        )

    def _upload(self, content: _Content, neighbour: str = "") -> Placement:
        """Sends a blob, by other ways when the registry does not take the first."""
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
        if content.begun and content.known and self.has_blob(content.known):
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
        if not self._check_echo(closed, blob.digest, "blob") and not self.has_blob(blob):
            raise TransientError(
                RegistryError(f"{self.reference.name} took {blob.digest} but does not hold it.")
            )
        return "sent"

    def _start(self, content: _Content, neighbour: str) -> Answer:
        """Opens an upload, or mounts the blob from another repository of the registry."""
        action = f"upload a blob to {self.reference.name}"
        if neighbour and neighbour not in self._unmountable and content.known:
            query = urllib.parse.urlencode({"mount": content.known.digest, "from": neighbour})
            # A registry that knows no mounts, or a token server that denies the source.
            with contextlib.suppress(RegistryError):
                answer = self._request(
                    "POST", f"blobs/uploads/?{query}", body=b"", also=(neighbour,)
                )
                if answer.status == 201:
                    self._check_echo(answer, content.known.digest, "blob")
                    return answer
                if answer.status == 202:
                    return answer
            self._unmountable.add(neighbour)
        answer = self._request("POST", "blobs/uploads/", body=b"")
        self._expect(answer, {202}, action)
        return answer

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
            failure = RegistryError(f"{self.reference.host} wants pieces of {session.piece} bytes.")
            raise _Unsuited(failure, "whole")
        sent = 0
        confirmed = False
        for piece in _recut(content.chunks(), session.piece):
            place = f"{sent}-{sent + len(piece) - 1}"
            sent += len(piece)
            answer = self._patch(session, piece, {"Content-Range": place})
            given = _RANGE.fullmatch(answer.headers.get("Range", ""))
            confirmed = given is not None
            if given and int(given[2]) + 1 != sent:
                # ECR takes the first piece, drops the others and says that all is well.
                failure = RegistryError(
                    f"{self.reference.host} lost a part of an upload: it has "
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
        self._expect(answer, {201, 202, 204}, f"upload a blob to {self.reference.name}")
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
        self._expect(answer, {200, 201, 204}, f"upload a blob to {self.reference.name}")
        return answer

    def _check_suited(self, answer: Answer, *, streamed: bool) -> None:
        """Raises _Unsuited when the blob may get through in another way."""
        if answer.status not in _UNSUITED or answer.codes & _FINAL_CODES:
            return
        failure = self._http.failure(answer, f"upload a blob to {self.reference.name}")
        if streamed and answer.status not in _TOO_LARGE:
            raise _Unsuited(failure, "whole", "pieces")
        raise _Unsuited(failure, "pieces", "whole")

    def _check_lost(self, answer: Answer, codes: set[str]) -> None:
        """Raises _Lost when all may go well the next time."""
        if answer.status in {400, 404, 416} and answer.codes & codes:
            raise _Lost(self._http.failure(answer, f"upload a blob to {self.reference.name}"))

    def _list_referrer(self, entry: dict[str, Any], subject: str) -> None:
        """Adds an entry to the fallback index, and what somebody else's writing made vanish."""
        wanted = [entry]
        for _ in range(_REFERRER_ROUNDS):
            index = self._fallback_index(subject)
            listed = _entries(index, self.reference.name)
            present = {item.get("digest") for item in listed}
            missing = [item for item in wanted if item.get("digest") not in present]
            if not missing:
                return
            # Sorted, so that the order of writing does not show.
            wanted = sorted([*listed, *missing], key=lambda item: str(item.get("digest")))
            content = json.dumps({**index, "manifests": wanted}, separators=(",", ":")).encode()
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            media_type = str(index.get("mediaType") or OCI_INDEX)
            self._put_manifest(
                Descriptor(media_type, digest, len(content)), content, _fallback_tag(subject)
            )
        raise RegistryError(
            f"{entry['digest']} could not be listed as a referrer of "
            f"{self.reference.name}@{subject}: others keep writing the list.",
            hint="Run this again.",
        )

    def _fallback_index(self, subject: str) -> dict[str, Any]:
        """The index that lists referrers where the registry does not; empty if there is none."""
        found = self.read_manifest_bytes(_fallback_tag(subject))
        if found is None:
            return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        return self._parsed(found[1])

    def _next_page(self, answer: Answer) -> str:
        link = re.match(r'<([^>]+)>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
        return self._http.location(answer, default=link[1]) if link else ""

    def _url(self, path: str) -> str:
        return f"{self._http.base}/v2/{self.reference.repository}/{path}"

    def _request(self, method: str, path: str, **options: Any) -> Answer:
        return self._http.request(method, self._url(path), **options)

    def _expect(self, answer: Answer, good: set[int], action: str) -> None:
        if answer.status not in good:
            raise self._http.failure(answer, action)


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
        """The bytes, small pieces gathered into larger ones."""
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
    """The same bytes in pieces of one size, only the last one smaller."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _fallback_tag(subject: str) -> str:
    return subject.replace(":", "-", 1)


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _referrer_entry(manifest: Descriptor, content: bytes) -> dict[str, Any]:
    """How the index of referrers describes a manifest (distribution specification)."""
    document = parse_json(content)
    kind = referrer_type(document)
    more = {"artifactType": kind, "annotations": document.get("annotations")}
    return {**manifest.to_dict(), **{name: value for name, value in more.items() if value}}


def _entries(index: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise RegistryError(
            f"What {name} gives as a list of referrers is no index.",
            hint="Remove the tag sha256-… that holds it, if it was made for something else.",
        )
    return entries
