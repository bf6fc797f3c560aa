"""A small client for OCI registries (distribution specification 1.1), made for large blobs.

Uploads are streamed: one PATCH with chunked transfer encoding, the way that docker and skopeo
take. What breaks is begun again from its first byte, since the source is on disk or can be
fetched again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
import re
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import HTTPError

from kfp_bento.runtime.errors import ImageError, RegistryError
from kfp_bento.runtime.images.blobs import verified
from kfp_bento.runtime.images.credentials import Credentials, find_credentials
from kfp_bento.runtime.images.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    BlobSource,
    BlobStream,
    Descriptor,
    Placement,
)
from kfp_bento.runtime.images.reference import DOCKER_HUB, Reference
from kfp_bento.runtime.images.tar import CHUNK

_HUB_ENDPOINT = "registry-1.docker.io"
_RETRIED = {408, 429, 500, 502, 503, 504}
_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
_MANIFEST_LIMIT = 4 << 20
_LONGEST_WAIT = 60.0
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"')

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a registry and how often to try again (seconds)."""

    attempts: int = 4
    connect: float = 15.0
    read: float = 300.0
    backoff: float = 0.5


class Repository:
    """One repository of a registry: a source of blobs and manifests, and a sink.

    Args:
        reference: Which repository; its tag and digest are not looked at.
        patience: Time-outs and retries.
    """

    carries_referrers = True

    def __init__(self, reference: Reference, patience: Patience | None = None) -> None:
        self.reference = reference
        self._patience = patience or Patience()
        host = _HUB_ENDPOINT if reference.host == DOCKER_HUB else reference.host
        self._plain = is_loopback(reference.host)
        self._base = f"{'http' if self._plain else 'https'}://{host}"
        self._credentials: Credentials | None = None
        self._authorization: dict[tuple[str, ...], str] = {}
        self._pool = _pool(self._base, self._patience)

    def head_manifest(self, identifier: str) -> Descriptor | None:
        """What a tag or digest stands for now; None if the registry does not know it."""
        answer = self._request("HEAD", f"manifests/{identifier}", headers={"Accept": _MANIFESTS})
        if answer.status == 404:
            return None
        self._expect(answer, {200}, f"look up {self.reference.name}:{identifier}")
        digest = answer.headers.get("Docker-Content-Digest", "")
        size = int(answer.headers.get("Content-Length", "0"))
        return Descriptor(answer.headers.get("Content-Type", ""), digest, size)

    def read_manifest(self, identifier: str) -> tuple[Descriptor, dict[str, Any]]:
        """A manifest or index, checked against its digest when asked for by digest.

        Raises:
            RegistryError: It is not there, is too large, or is not what its digest says.
        """
        found, content = self.fetch_manifest(identifier)
        try:
            manifest: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise RegistryError(f"The manifest of {self.reference.name} is no JSON.") from error
        return found, manifest

    def fetch_manifest(self, identifier: str) -> tuple[Descriptor, bytes]:
        """The bytes of a manifest or index, checked when asked for by digest.

        Raises:
            RegistryError: It is not there, is too large, or is not what its digest says.
        """
        answer = self._request(
            "GET", f"manifests/{identifier}", headers={"Accept": _MANIFESTS}, stream=True
        )
        self._expect(answer, {200}, f"read {self.reference.name}:{identifier}")
        content = answer.read(_MANIFEST_LIMIT + 1)
        answer.close()
        found = _describe(content, answer.headers.get("Content-Type", ""))
        if len(content) > _MANIFEST_LIMIT:
            raise RegistryError(f"The manifest of {self.reference.name} is larger than 4 MiB.")
        if identifier.startswith("sha256:") and found.digest != identifier:
            raise RegistryError(
                f"{self.reference.host} answered with {found.digest} when asked for {identifier}.",
                hint="Do not use this registry until its administrator has looked at it.",
            )
        return found, content

    def read_manifest_bytes(self, identifier: str) -> tuple[Descriptor, bytes] | None:
        """A manifest's exact bytes; None if the registry does not know it."""
        answer = self._request("GET", f"manifests/{identifier}", headers={"Accept": _MANIFESTS})
        if answer.status == 404:
            return None
        self._expect(answer, {200}, f"read {self.reference.name}:{identifier}")
        return _describe(answer.data, answer.headers.get("Content-Type", "")), answer.data

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the repository holds the blob."""
        answer = self._request("HEAD", f"blobs/{blob.digest}")
        if answer.status not in {200, 404}:
            self._expect(answer, {200}, f"look for a blob in {self.reference.name}")
        return answer.status == 200

    def local_path(self, blob: Descriptor) -> Path | None:
        """A registry has no files."""
        return None

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Streams a blob and checks it at the end.

        Raises:
            ImageError: The download breaks off or the bytes are not the blob's.
        """
        answer = self._request("GET", f"blobs/{blob.digest}", stream=True)
        try:
            self._expect(answer, {200}, f"download {blob.digest} from {self.reference.name}")
            yield from verified(_chunks(answer, self.reference), blob, self.reference.name)
        finally:
            answer.close()

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Uploads a blob unless the repository has it; mounts it from a neighbour where it can.

        Raises:
            RegistryError: The registry refuses it, or keeps failing.
        """
        if self.has_blob(blob):
            return "present"
        return self._with_retries(lambda: self._upload(blob, source))

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

    def _put_manifest(self, manifest: Descriptor, content: bytes, identifier: str) -> None:
        answer = self._request(
            "PUT",
            f"manifests/{identifier}",
            body=content,
            headers={"Content-Type": manifest.media_type},
        )
        self._expect(answer, {201}, f"store {self.reference.name}:{identifier}")
        echoed = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if echoed != manifest.digest:
            raise RegistryError(
                f"{self.reference.host} stored the manifest as {echoed}, not as {manifest.digest}."
            )

    def _upload(self, blob: Descriptor, source: BlobSource) -> Placement:
        query = ""
        if isinstance(source, Repository) and source.reference.host == self.reference.host:
            query = "?" + urllib.parse.urlencode(
                {"mount": blob.digest, "from": source.reference.repository}
            )
        action = f"upload a blob to {self.reference.name}"
        also = (source.reference.repository,) if isinstance(source, Repository) and query else ()
        started = self._request("POST", f"blobs/uploads/{query}", body=b"", also=also)
        self._expect(started, {201, 202}, action)
        if started.status == 201:
            return "mounted"
        self._stream(started, source.open_blob(blob), lambda: blob.digest)
        return "sent"

    def put_stream(self, stream: BlobStream) -> None:
        """Uploads a blob that is made while it is read; begun again when it breaks off."""

        def upload() -> None:
            started = self._request("POST", "blobs/uploads/", body=b"")
            self._expect(started, {202}, f"upload a blob to {self.reference.name}")
            self._stream(started, stream.open(), lambda: stream.digest)

        self._with_retries(upload)

    def put_referrer(self, manifest: Descriptor, content: bytes, subject: Descriptor) -> None:
        """Stores a manifest that refers to another one."""
        self.put_manifest(manifest, content)

    def _stream(
        self,
        started: urllib3.BaseHTTPResponse,
        chunks: Iterator[bytes],
        digest: Callable[[], str],
    ) -> None:
        action = f"upload a blob to {self.reference.name}"
        sent = self._once(
            "PATCH",
            self._location(started),
            body=chunks,
            headers={"Content-Type": "application/octet-stream"},
        )
        self._expect(sent, {202}, action)
        location = self._location(sent)
        separator = "&" if "?" in location else "?"
        closing = f"{location}{separator}{urllib.parse.urlencode({'digest': digest()})}"
        done = self._once("PUT", closing, body=b"")
        self._expect(done, {201}, action)

    def _location(self, answer: urllib3.BaseHTTPResponse) -> str:
        """Where to go on; never another host, since the upload carries our authorisation."""
        location = urllib.parse.urlsplit(
            urllib.parse.urljoin(self._base, answer.headers.get("Location", ""))
        )
        if location.hostname != urllib.parse.urlsplit(self._base).hostname:
            raise RegistryError(
                f"{self.reference.host} wanted to send the upload to '{location.hostname}'.",
                hint="Set the registry's external URL right, or push to that host directly.",
            )
        # Registries behind a proxy name the wrong scheme or port: ours is the one that works.
        return f"{self._base}{location.path}" + (f"?{location.query}" if location.query else "")

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        stream: bool = False,
        also: tuple[str, ...] = (),
    ) -> urllib3.BaseHTTPResponse:
        """A request that may be repeated, with retries for what is known to pass."""
        url = f"{self._base}/v2/{self.reference.repository}/{path}"

        def send() -> urllib3.BaseHTTPResponse:
            answer = self._once(method, url, body, headers, stream=stream, also=also)
            if answer.status in _RETRIED:
                raise _Passing(self._failure(answer, f"answer {method}"), _retry_after(answer))
            return answer

        return self._with_retries(send)

    def _once(
        self,
        method: str,
        url: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        *,
        stream: bool = False,
        also: tuple[str, ...] = (),
    ) -> urllib3.BaseHTTPResponse:
        """One request with authorisation, asked for when the registry first says 401."""
        scopes = self._scopes(method, also)
        for _ in range(2):
            authorization = self._authorization.get(scopes)
            sent = {**(headers or {}), "User-Agent": "kfp-bento"}
            if authorization:
                sent["Authorization"] = authorization
            answer = self._send(method, url, body, sent, stream)
            if answer.status != 401:
                break
            if not self._authorize(answer, scopes) or not isinstance(body, bytes | None):
                break
        if answer.status in _RETRIED and not isinstance(body, bytes | None):
            raise _Passing(self._failure(answer, "take a blob"), _retry_after(answer))
        if answer.status == 401 and not isinstance(body, bytes | None):
            raise _Passing(self._failure(answer, "take a blob"), 0.0)
        return answer

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        for _ in range(5):
            try:
                answer = self._pool.request(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    preload_content=not stream,
                    redirect=False,
                    retries=False,
                    chunked=not isinstance(body, bytes | None),
                )
            except HTTPError as error:
                raise _Passing(_unreachable(self.reference.host, error), 0.0) from error
            if answer.status not in {301, 302, 303, 307, 308} or method not in {"GET", "HEAD"}:
                return answer
            answer.close()
            url, headers = self._redirected(url, answer, headers)
        raise RegistryError(f"{self.reference.host} redirects in a circle.")

    def _redirected(
        self, url: str, answer: urllib3.BaseHTTPResponse, headers: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        target = urllib.parse.urljoin(url, answer.headers.get("Location", ""))
        before, after = urllib.parse.urlsplit(url), urllib.parse.urlsplit(target)
        if after.scheme != "https" and not is_loopback(after.netloc):
            raise RegistryError(f"{self.reference.host} redirects to an address without TLS.")
        if is_loopback(after.netloc) and not self._plain:
            raise RegistryError(f"{self.reference.host} redirects to this machine.")
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
        return target, headers

    def _scopes(self, method: str, also: tuple[str, ...]) -> tuple[str, ...]:
        action = "pull" if method in {"GET", "HEAD"} else "pull,push"
        # One token that can push serves the reads too, once we have it.
        own = f"repository:{self.reference.repository}:"
        if (f"{own}pull,push",) in self._authorization and not also:
            action = "pull,push"
        return (f"{own}{action}", *(f"repository:{name}:pull" for name in also))

    def _authorize(self, answer: urllib3.BaseHTTPResponse, scopes: tuple[str, ...]) -> bool:
        """Gets what the challenge asks for; says whether there is something new to try."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        if self._credentials is None:
            self._credentials = find_credentials(self.reference.host, self.reference.repository)
        before = self._authorization.pop(scopes, None)
        if kind.lower() == "bearer":
            parameters = dict(_CHALLENGE.findall(rest))
            self._authorization[scopes] = f"Bearer {self._token(parameters, scopes)}"
            return True
        if kind.lower() == "basic" and self._credentials and before is None:
            self._authorization[scopes] = self._credentials.basic
            return True
        return False

    def _token(self, challenge: dict[str, str], scopes: tuple[str, ...]) -> str:
        realm = urllib.parse.urlsplit(challenge.get("realm", ""))
        if realm.scheme != "https" and not (self._plain and is_loopback(realm.netloc)):
            raise RegistryError(
                f"{self.reference.host} asks for a login at '{realm.netloc}' without TLS."
            )
        query = [("scope", scope) for scope in scopes]
        if service := challenge.get("service"):
            query.insert(0, ("service", service))
        url = realm._replace(
            query="&".join(filter(None, (realm.query, urllib.parse.urlencode(query))))
        ).geturl()
        headers = {"User-Agent": "kfp-bento"}
        if self._credentials:
            headers["Authorization"] = self._credentials.basic
        try:
            answer = self._pool.request("GET", url, headers=headers, redirect=False, retries=False)
        except HTTPError as error:
            raise _Passing(_unreachable(realm.netloc, error), 0.0) from error
        if answer.status in _RETRIED:
            raise _Passing(self._failure(answer, "give a token"), _retry_after(answer))
        try:
            data = json.loads(answer.data)
            token: str = data.get("token") or data["access_token"]
        except (ValueError, KeyError, AttributeError):
            raise self._failure(answer, "give a token") from None
        return token

    def _with_retries(self, action: Callable[[], Result]) -> Result:
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return action()
            except _Passing as passing:
                if attempt == self._patience.attempts:
                    raise passing.error from passing.__cause__
                wait = self._patience.backoff * 2 ** (attempt - 1) * (1 + random.random())  # noqa: S311
                time.sleep(min(max(wait, passing.wait), _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _expect(self, answer: urllib3.BaseHTTPResponse, good: set[int], action: str) -> None:
        if answer.status not in good:
            raise self._failure(answer, action)

    def _failure(self, answer: urllib3.BaseHTTPResponse, action: str) -> RegistryError:
        """An error with the registry's own words; these never hold what we sent."""
        detail = ""
        codes: tuple[str, ...] = ()
        try:
            errors = json.loads(answer.data)["errors"]
            codes = tuple(str(item.get("code", "")) for item in errors)
            detail = "; ".join(
                f"{item.get('code', '')} {item.get('message', '')}".strip() for item in errors
            )
        except (ValueError, KeyError, TypeError, AttributeError, HTTPError):
            pass
        known = "with" if self._credentials else "without"
        hint = {
            401: f"The request was made {known} credentials. Log in, for example with "
            "`podman login`, or point DOCKER_CONFIG or REGISTRY_AUTH_FILE to a login file.",
            403: f"The request was made {known} credentials. Ask for the right to do this.",
            404: "Check the repository's name and tag; some registries want it created first.",
            405: "The registry does not take uploads: it is read-only or a mere mirror.",
            429: "The registry limits requests: wait, or log in to get a higher limit.",
        }.get(answer.status, "Try again later, or look at the registry's own log.")
        return RegistryError(
            f"The registry {self.reference.host} would not {action}: HTTP {answer.status}"
            + (f" ({detail})." if detail else "."),
            hint=hint,
            codes=codes,
        )


class _Passing(Exception):
    """A failure that may pass: what to say if it does not, and how long to wait (seconds)."""

    def __init__(self, error: ImageError, wait: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


def is_loopback(host: str) -> bool:
    """Whether a host (with or without port) is this machine, where plain http is used."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _pool(base: str, patience: Patience) -> urllib3.PoolManager:
    # create_default_context reads SSL_CERT_FILE and SSL_CERT_DIR.
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=patience.connect, read=patience.read),
        "ssl_context": ssl.create_default_context(),
        "blocksize": CHUNK,
    }
    address = urllib.parse.urlsplit(base)
    proxy = urllib.request.getproxies().get(address.scheme)
    if not proxy or is_loopback(address.netloc) or urllib.request.proxy_bypass(address.netloc):
        return urllib3.PoolManager(**options)
    return urllib3.ProxyManager(proxy, **options)


def _describe(content: bytes, media_type: str) -> Descriptor:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Descriptor(media_type.partition(";")[0].strip(), digest, len(content))


def _chunks(answer: urllib3.BaseHTTPResponse, reference: Reference) -> Iterator[bytes]:
    try:
        yield from answer.stream(CHUNK)
    except HTTPError as error:
        raise RegistryError(
            f"The download from {reference.name} broke off.", hint="Run this again."
        ) from error


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _unreachable(host: str, error: HTTPError) -> RegistryError:
    reason = str(error).rpartition(": ")[2] or type(error).__name__
    return RegistryError(
        f"The registry {host} cannot be reached: {reason}.",
        hint="Check the host name, the network and, for your own certificates, SSL_CERT_FILE.",
    )
