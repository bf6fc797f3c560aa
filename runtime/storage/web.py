"""Files on the web, to be read: presigned URLs, releases, anything with ranges or without."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.proxies import proxy_trouble
from kfp_bento.runtime.storage.place import SUM, BrokenTransferError, NotThereError, StoredObject
from kfp_bento.runtime.storage.ranges import fetch
from kfp_bento.runtime.storage.settings import plain_http_allowed

if TYPE_CHECKING:
    from kfp_bento.runtime.storage.place import Progress
    from kfp_bento.runtime.storage.uri import StorageUri

CHUNK = 1 << 20
_META = "x-amz-meta-"
_MOST_REDIRECTS = 5
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class WebPlace:
    """One file at a URL; see `Place`. Nothing is ever sent but the request for it.

    Args:
        uri: The address.
        ca_bundle: A file with the certificates to trust, or "" for the system's.

    Raises:
        InvalidInput: It is plain HTTP, and nobody allowed that.
    """

    def __init__(self, uri: StorageUri, ca_bundle: str) -> None:
        self.address = uri.text
        self._url = uri.key
        self._ca_bundle = ca_bundle
        _require_safe(uri.scheme, uri.text)

    def list(self) -> Iterator[StoredObject]:
        """Refuse: the web cannot be listed."""
        raise InvalidInput(
            f"{self.address} cannot be listed: the web gives one file for one address.",
            hint="Give a folder on this machine, or the bucket as s3://bucket/folder/ or "
            "minio://bucket/folder/.",
        )

    def stat(self, name: str = "") -> StoredObject:
        """Describe the file by asking for its first byte: a presigned URL allows no other look."""
        if name:
            raise InvalidInput(f"{self.address} is one file and has nothing below it.")
        with self._asked({"Range": "bytes=0-0"}) as answer:
            headers = answer.headers
            if answer.status == 200:  # no ranges here, so that every part would be the whole
                size, etag = int(headers.get("Content-Length", -1)), ""
            else:
                said = _RANGE.fullmatch(headers.get("Content-Range", ""))
                if said is None or said[2] == "*":
                    raise StorageError(f"{self.address} does not say how large it is.")
                size, etag = int(said[2]), headers.get("ETag", "")
        facts = {
            key.lower().removeprefix(_META): value
            for key, value in headers.items()
            if key.lower().startswith(_META)
        }
        strong = "" if etag.startswith("W/") else etag
        return StoredObject("", size, sha256=facts.get(SUM, ""), etag=strong, facts=facts)

    def read(
        self, to: Path, name: str = "", *, sha256: str = "", progress: Progress | None = None
    ) -> StoredObject:
        """Copy the file, in parallel ranges where the server gives them."""
        found = self.stat(name)
        # Without ranges or an ETag the parts could be those of different files.
        whole = found if found.etag else replace(found, size=-1)
        wanted = sha256 or found.sha256
        got = fetch(self, whole, self.address, to, sha256=wanted, progress=progress)
        arrived = to.stat().st_size
        if found.size not in (-1, arrived):
            to.unlink()
            raise StorageError(
                f"{self.address} ended after {arrived} of {found.size} bytes.", hint="Try again."
            )
        return replace(found, size=arrived, sha256=got)

    def write(
        self,
        file: Path,
        name: str = "",
        *,
        facts: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> StoredObject:
        """Refuse: the web is read."""
        raise InvalidInput(
            f"{self.address} can be read only.", hint="Write to file://, s3:// or minio://."
        )

    def delete(self, name: str = "") -> None:
        """Refuse: the web is read."""
        raise InvalidInput(f"{self.address} can be read only.")

    def presigned(self, name: str = "", *, seconds: int) -> str:
        """Refuse: who gave the URL signs it."""
        raise InvalidInput(
            f"{self.address} is an address of the web already.", hint="Give it as it is."
        )

    def chunks(self, found: StoredObject, start: int, end: int) -> Iterator[bytes]:
        """Give a part of the file, of the very file that was described."""
        if start == end:
            return
        wanted = {"Range": f"bytes={start}-{end - 1}", "If-Match": found.etag} if end >= 0 else {}
        with self._asked(wanted) as answer:
            if end >= 0:
                said = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                if answer.status != 206 or said is None or said[1] != str(start):
                    raise StorageError(f"{self.address} answers with another part than asked for.")
                if answer.headers.get("ETag", found.etag) != found.etag:
                    raise self._changed()
            while piece := answer.read(CHUNK):
                yield piece

    def _changed(self) -> StorageError:
        return StorageError(
            f"{self.address} changed while it was being read.", hint="Run the same command again."
        )

    @cached_property
    def _pool(self) -> Any:
        import urllib3

        from kfp_bento.runtime.pools import ConnectionPools

        return ConnectionPools(
            timeout=urllib3.Timeout(connect=10, read=60),
            maxsize=16,
            cert_reqs="CERT_REQUIRED",
            ca_certs=self._ca_bundle or None,
            retries=urllib3.Retry(total=3, backoff_factor=0.2, redirect=0, status=0),
        )

    @contextmanager
    def _asked(self, headers: Mapping[str, str]) -> Iterator[Any]:
        import urllib3

        try:
            answer = self._followed({"Accept-Encoding": "identity", **headers})
            try:
                self._require_content(answer)
                yield answer
            finally:
                answer.close()
                answer.release_conn()
        except urllib3.exceptions.HTTPError as failure:
            if trouble := proxy_trouble(failure, self._url):
                raise StorageError(trouble.message, hint=trouble.hint) from failure
            if "CERTIFICATE_VERIFY_FAILED" in str(failure):
                raise StorageError(
                    f"The certificate of {self.address} is not trusted.",
                    hint="Name the file of your authority in AWS_CA_BUNDLE.",
                ) from failure
            raise BrokenTransferError(
                f"{self.address}: the connection broke ({type(failure).__name__})."
            ) from failure

    def _followed(self, headers: Mapping[str, str]) -> Any:
        """Follow redirects, but never from HTTPS to anything else."""
        url = self._url
        for _ in range(_MOST_REDIRECTS):
            answer = self._pool.request(
                "GET", url, headers=headers, preload_content=False, redirect=False
            )
            target = answer.headers.get("Location", "") if 300 <= answer.status < 400 else ""
            if not target:
                return answer
            answer.close()
            before, url = urlsplit(url).scheme, urljoin(url, target)
            after = urlsplit(url).scheme
            if after != "https" and after != before:
                raise StorageError(f"{self.address} leads to an address that is not https://.")
            _require_safe(after, self.address)
        raise StorageError(f"{self.address} is redirected without end.")

    def _require_content(self, answer: Any) -> None:
        status = answer.status
        if status in (200, 206) or (status == 416 and "Content-Range" in answer.headers):
            return
        if status in (404, 410):
            raise NotThereError(f"There is nothing at {self.address} ({status}).")
        if status == 412:
            raise self._changed()
        if status in (401, 403):
            raise StorageError(
                f"{self.address} may not be read ({status}).",
                hint="A presigned URL ends after its time: make a new one.",
            )
        if status == 429 or status >= 500:
            raise BrokenTransferError(f"{self.address} fails or is too busy ({status}).")
        raise StorageError(f"{self.address} answers with status {status}.")


def _require_safe(scheme: str, shown: str) -> None:
    if scheme == "https" or (scheme == "http" and plain_http_allowed()):
        return
    raise InvalidInput(
        f"{shown} is plain HTTP, where anybody on the way can change what arrives.",
        hint="Use https://, or set KFP_BENTO_PLAIN_HTTP=true where that is meant.",
    )
