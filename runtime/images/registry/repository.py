"""A small client for OCI registries (distribution specification 1.1), made for large blobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from urllib3.exceptions import HTTPError

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.oci.blobs import verified
from kfp_bento.runtime.images.oci.config import descriptor_of
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
)
from kfp_bento.runtime.images.oci.reference import Reference
from kfp_bento.runtime.images.registry.answers import (
    BYTE_RANGE,
    Answer,
    TransientError,
    hint_for_manifest,
)
from kfp_bento.runtime.images.registry.connections import RetryPolicy
from kfp_bento.runtime.images.registry.referrers import (
    find_referrers,
    list_referrers,
    referrer_entry,
)
from kfp_bento.runtime.images.registry.transport import CONTENT_LIMIT, Transport
from kfp_bento.runtime.images.registry.uploads import Uploads

_MANIFESTS = {"Accept": ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))}
# How registries, and what stands before them, refuse a HEAD of what they would give.
_NO_HEAD = frozenset({403, 405, 501})
# A download that brought as much before it broke has not used up an attempt.
_PROGRESS = 64 << 20


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
        self._uploads = Uploads(self._http, self.has_blob)
        self._listing = threading.Lock()

    def head_manifest(self, identifier: str) -> Descriptor | None:
        """Say what a tag or digest stands for now; None if the registry does not know it."""
        action = f"look up {self.reference.name}:{identifier}"
        path = f"manifests/{identifier}"
        good = {200, 404, *_NO_HEAD}
        answer = self._http.request("HEAD", path, good, action, headers=_MANIFESTS)
        if answer.status == 404:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status != 200 or not is_digest(digest) or answer.length is None:
            found = self.read_manifest_bytes(identifier)
            return found[0] if found else None
        return Descriptor(answer.media_type, digest, answer.length)

    def fetch_manifest(self, identifier: str) -> tuple[Descriptor, bytes]:
        """Fetch a manifest or index byte for byte, checked against the digest it is asked for by.

        Raises:
            RegistryError: It is not there, is too large, or is not what its digest says.
        """
        answer = self._get_manifest(identifier, {200})
        return self._described(answer, identifier), answer.content

    def read_manifest_bytes(self, identifier: str) -> tuple[Descriptor, bytes] | None:
        """Fetch a manifest or index as above; None if it is not there.

        Raises:
            RegistryError: It is too large, or is not what its digest says.
        """
        answer = self._get_manifest(identifier, {200, 404})
        if answer.status == 404:
            return None
        return self._described(answer, identifier), answer.content

    def has_blob(self, blob: Descriptor) -> bool:
        """Tell whether the repository holds the blob.

        Raises:
            RegistryError: What it holds under this digest has another size.
        """
        action = f"look for a blob in {self.reference.name}"
        path = f"blobs/{blob.digest}"
        answer = self._http.request("HEAD", path, {200, 404, *_NO_HEAD}, action)
        length = answer.length
        if answer.status in _NO_HEAD:
            answer = self._http.request("GET", path, {200, 404}, action, stream=True)
            length = answer.length
            answer.close()
        if answer.status == 404:
            return False
        if length and length != blob.size:
            raise RegistryError(
                f"{self.reference.name} holds a damaged blob: {length} instead of "
                f"{blob.size} bytes for {blob.digest}.",
                hint="Ask the registry's administrator to remove it, then run this again.",
            )
        return True

    def local_path(self, blob: Descriptor) -> Path | None:
        """Give None: a registry has no files."""
        return None

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Stream a blob and checks it at the end; a broken download is taken up again.

        Raises:
            ImageError: The download keeps breaking off, or the bytes are not the blob's.
        """
        return verified(self._download(blob), blob, self.reference.name)

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Upload a blob unless the repository has it; mounts it from a neighbour where it can.

        Raises:
            RegistryError: The registry refuses it, or keeps failing.
        """
        if self.has_blob(blob):
            return "present"
        return self._uploads.send(blob, source, self.neighbour(source))

    def neighbour(self, source: BlobSource) -> str:
        """Give the repository of the same registry that a source is; empty if it is none."""
        if isinstance(source, Repository) and source.reference.host == self.reference.host:
            return source.reference.repository
        return ""

    def put_stream(self, stream: BlobStream) -> None:
        """Upload a blob that is made while it is read; begun again when it breaks off."""
        self._uploads.send_stream(stream)

    def put_manifest(self, manifest: Descriptor, content: bytes) -> None:
        """Store a manifest by digest; see `store_manifest`."""
        self.store_manifest(manifest, content, manifest.digest)

    def store_manifest(self, manifest: Descriptor, content: bytes, identifier: str) -> Answer:
        """Store a manifest under its digest or a tag.

        Raises:
            RegistryError: The registry refuses it, stores something else, or it is too large.
        """
        if len(content) > CONTENT_LIMIT:
            raise RegistryError(
                f"A manifest of {len(content)} bytes cannot be stored in {self.reference.name}: "
                "registries take 4 MiB at most."
            )
        try:
            answer = self._http.request(
                "PUT",
                f"manifests/{identifier}",
                {200, 201, 202},
                f"store {self.reference.name}:{identifier}",
                body=content,
                headers={"Content-Type": manifest.media_type},
            )
        except RegistryError as error:
            error.hint = hint_for_manifest(error, content, identifier) or error.hint
            raise
        self._http.check_echo(answer, manifest.digest, "manifest")
        return answer

    def tag(self, manifest: Descriptor, content: bytes, tag: str) -> bool:
        """Let the tag point to the manifest, unless it does already."""
        present = self.head_manifest(tag)
        if present is not None and present.digest == manifest.digest:
            return False
        self.store_manifest(manifest, content, tag)
        return True

    def put_referrers(
        self, manifests: Sequence[tuple[Descriptor, bytes]], subject: Descriptor
    ) -> None:
        """Store manifests that refer to another one, so that they are found from there.

        Where the registry does not say (`OCI-Subject`) that it keeps the list of referrers, the
        list is kept here.
        """
        unlisted = []
        for manifest, content in manifests:
            answer = self.store_manifest(manifest, content, manifest.digest)
            if "OCI-Subject" not in answer.headers:
                unlisted.append(referrer_entry(manifest, content))
        if unlisted:
            with self._listing:
                list_referrers(self, unlisted, subject.digest)

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Find the descriptors of manifests whose subject is the digest, with artifact types.

        Raises:
            RegistryError: The registry fails, or what it gives is no index.
        """
        return find_referrers(self._http, self, digest)

    def _get_manifest(self, identifier: str, good: set[int]) -> Answer:
        action = f"read {self.reference.name}:{identifier}"
        return self._http.request(
            "GET", f"manifests/{identifier}", good, action, headers=_MANIFESTS
        )

    def _described(self, answer: Answer, identifier: str) -> Descriptor:
        if len(answer.content) > CONTENT_LIMIT:
            raise RegistryError(f"The manifest of {self.reference.name} is larger than 4 MiB.")
        found = descriptor_of(answer.content, answer.media_type)
        named = answer.headers.get("Docker-Content-Digest", "")
        wanted = identifier if identifier.startswith("sha256:") else named or found.digest
        if wanted.startswith("sha256:") and found.digest != wanted:
            raise RegistryError(
                f"{self.reference.host} answered with {found.digest} when asked for {wanted}.",
                hint="Do not use this registry until its administrator has looked at it.",
            )
        return found

    def _download(self, blob: Descriptor) -> Iterator[bytes]:
        """Give the blob's bytes, taken up where they broke off."""
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
        answer = self._http.request(
            "GET",
            f"blobs/{blob.digest}",
            {200, 206} if start else {200},
            f"download {blob.digest} from {self.reference.name}",
            headers=headers,
            stream=True,
        )
        try:
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
        """Give the first byte that an answer holds, and the size of the whole if said."""
        if answer.status == 200:
            return 0, answer.length
        given = BYTE_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if given is None:
            raise RegistryError(f"{self.reference.host} does not say which part it sends.")
        total = given[3] or "*"
        return int(given[1]), int(total) if total.isdecimal() else None

    def _broken_off(self, blob: Descriptor, done: int) -> RegistryError:
        return RegistryError(
            f"The download from {self.reference.name} broke off after {done} of {blob.size} bytes.",
            hint="Run this again.",
        )
