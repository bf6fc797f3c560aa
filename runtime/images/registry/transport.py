"""Requests to one registry: retries, redirects and authorisation."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import TypeVar

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.oci.reference import DOCKER_HUB
from kfp_bento.runtime.images.oci.tar import CHUNK
from kfp_bento.runtime.images.registry.answers import Answer, TransientError
from kfp_bento.runtime.images.registry.connections import (
    INSECURE_VARIABLE,
    STORAGE_VARIABLE,
    RetryPolicy,
    is_allowed_storage,
    is_loopback,
    is_plain,
    is_private,
    pool_manager,
    unreachable,
)
from kfp_bento.runtime.images.registry.login import Login, Scopes, signed
from kfp_bento.runtime.pools import ConnectionPools
from kfp_bento.runtime.programs import cleaned
from kfp_bento.runtime.proxies import proxy_for, proxy_trouble, refused_by_proxy

# Answers longer than this are read only as streams; no manifest may be larger.
CONTENT_LIMIT = 4 << 20

_HUB_ENDPOINT = "registry-1.docker.io"
_PASSING = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING = frozenset({307, 308})
_REDIRECT_LIMIT = 5
_LONGEST_WAIT = 60.0
# What Go's servers and nginx answer to plain HTTP where they speak TLS.
_WANTS_TLS = re.compile(rb"HTTPS (?:server|port)")

Result = TypeVar("Result")
Body = bytes | Iterator[bytes] | None


class Transport:
    """Requests to the registry of one repository; may be used by several threads.

    Args:
        host: The registry as the user wrote it.
        repository: The path below it.
        patience: Time limits and retries.

    Attributes:
        name: Host and path, for people.
    """

    def __init__(self, host: str, repository: str, patience: RetryPolicy) -> None:
        self.host = host
        self.repository = repository
        self.name = f"{host}/{repository}"
        self.patience = patience
        self._plain = is_plain(host)
        endpoint = _HUB_ENDPOINT if host == DOCKER_HUB else host
        self.base = f"{'http' if self._plain else 'https'}://{endpoint}"
        self._login = Login(self)

    def request(
        self,
        method: str,
        path: str,
        good: Collection[int],
        action: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        also: Scopes = (),
        stream: bool = False,
    ) -> Answer:
        """Make a request that may be repeated, with retries for what is known to pass.

        Args:
            method: The HTTP method.
            path: A path below the repository, or a whole address at this registry.
            good: The statuses to be had.
            action: What it is for, in errors.
            body: What to send.
            headers: Headers besides those of every request.
            also: Repositories that the token must be good for as well, for reading.
            stream: Whether the content of a good answer is left to be read in chunks.

        Raises:
            RegistryError: The answer has another status.
        """
        url = path if "://" in path else f"{self.base}/v2/{self.repository}/{path}"

        def send() -> Answer:
            return self.once(method, url, body, headers, also=also, stream=stream)

        answer = self.retrying(send)
        self.expect(answer, good, action)
        return answer

    def expect(self, answer: Answer, good: Collection[int], action: str) -> None:
        """See that an answer has one of these statuses.

        Raises:
            RegistryError: It has not.
        """
        if answer.status not in good:
            answer.close()
            raise self.failure(answer, action)

    def check_echo(self, answer: Answer, digest: str, what: str) -> bool:
        """Say whether the registry says what it stored.

        Raises:
            RegistryError: It is not the right thing.
        """
        echoed = answer.headers.get("Docker-Content-Digest", "")
        if echoed and echoed != digest:
            raise RegistryError(
                f"{self.host} stored the {what} as {echoed}, not as {digest}.",
                hint="Do not use this registry until its administrator has looked at it.",
            )
        return bool(echoed)

    def once(
        self,
        method: str,
        url: str,
        body: Body = None,
        headers: dict[str, str] | None = None,
        *,
        also: Scopes = (),
        stream: bool = False,
    ) -> Answer:
        """One request with authorisation, which is asked for when the registry says 401.

        Raises:
            TransientError: It may work when tried again; a body that is an iterator is used up.
        """
        scopes = self._scopes(method, also)
        # An upload may go on where a redirect led to: our login does not go there.
        ours = _origin(url) == _origin(self.base)
        authorization = self._login.header(scopes) if ours else None
        answer = self._follow(method, url, body, headers, authorization, stream)
        asked = self._login.challenge(answer, authorization)
        if asked and self._login.renew(scopes, authorization, asked):
            if not isinstance(body, bytes | None):
                raise TransientError(self.failure(answer, "take a blob"), at_once=True)
            authorization = self._login.header(scopes)
            answer = self._follow(method, url, body, headers, authorization, stream)
        self.check_passing(answer, f"answer {method}")
        return answer

    def abandon(self, url: str) -> None:
        """Cancel an upload; whether the registry listens does not matter."""
        with contextlib.suppress(TransientError, RegistryError):
            ours = _origin(url) == _origin(self.base)
            authorization = self._login.header(self._scopes("DELETE", ())) if ours else None
            timeout = urllib3.Timeout(connect=min(5.0, self.patience.connect), read=5.0)
            self.send("DELETE", url, None, signed({}, authorization), timeout=timeout)

    def retrying(self, action: Callable[[], Result]) -> Result:
        """Do it until it works, fails for good or was tried often enough."""
        for attempt in itertools.count(1):
            try:
                return action()
            except TransientError as passing:
                self.pause(attempt, passing)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, passing: TransientError) -> None:
        """Wait before the next attempt, or raises the error if this was the last one."""
        if attempt >= self.patience.attempts:
            raise passing.error from passing.__cause__
        if not passing.at_once:
            wait = self.patience.backoff * 2 ** (attempt - 1) * (1 + random.random())  # noqa: S311
            time.sleep(min(max(wait, passing.wait), _LONGEST_WAIT))

    def check_passing(self, answer: Answer, action: str) -> None:
        """Raise TransientError for an answer that is known to pass."""
        # A full disk stays full, and each attempt would send gigabytes.
        if answer.status in _PASSING and not answer.is_full:
            raise TransientError(self.failure(answer, action), answer.retry_after)

    def location(self, answer: Answer, default: str = "") -> str:
        """Where to go on with an upload: at whoever answered, and never another host's."""
        given = answer.headers.get("Location") or default
        if not given:
            # As when the connection broke in the middle of the answer's headers.
            raise TransientError(
                RegistryError(
                    f"{self.host} wanted to send the upload to nowhere: it gave no Location.",
                    hint="Run this again, or look at what stands between here and the registry.",
                )
            )
        place = urllib.parse.urlsplit(self.joined(answer.url, given))
        # Whom a redirect of the upload led to may still know itself by the registry's name.
        here = urllib.parse.urlsplit(answer.url if answer.stranger else self.base)
        if place.hostname not in {here.hostname, urllib.parse.urlsplit(self.base).hostname}:
            raise RegistryError(
                f"{self.host} wanted to send the upload to '{place.hostname}'.",
                hint="Set the registry's external URL right, or push to that host directly.",
            )
        # Registries behind a proxy name the wrong scheme or port: ours is the one that works.
        query = f"?{place.query}" if place.query else ""
        return f"{here.scheme}://{here.netloc}{place.path}{query}"

    def broken(self, error: HTTPError, host: str = "") -> TransientError:
        """Give what to raise for a connection that failed.

        Raises:
            RegistryError: It fails for good: the registry's certificate or lack of TLS.
        """
        failure, permanent = unreachable(host or self.host, error)
        if permanent:
            raise failure from error
        return TransientError(failure)

    def failure(self, answer: Answer, action: str) -> RegistryError:
        """Give an error with the registry's own words."""
        known = self._login.credentials
        said = f"HTTP {answer.status}" + (f" ({answer.detail})" if answer.detail else "")
        if answer.stranger:
            return RegistryError(
                f"The registry {self.host} would not {action}: it sends us to "
                f"{_shown_host(answer.url)}, which answers {said}.",
                hint="Logins are for the registry itself and never go along with a redirect: its "
                "administrator has to look at where it keeps its content.",
            )
        # A HEAD is answered without words.
        wordless = not answer.content and not is_loopback(self.host)
        if self._plain and answer.status == 400 and (wordless or _WANTS_TLS.search(answer.content)):
            return RegistryError(
                f"The registry {self.host} seems to have TLS, and is asked without: {said}.",
                hint=f"Take '{self.host}' out of {INSECURE_VARIABLE}.",
            )
        if answer.status in _REDIRECTS:
            there = _shown_host(answer.headers.get("Location", ""))
            return RegistryError(
                f"The registry {self.host} would not {action}: {said}, a redirect to '{there}'.",
                hint="It is not followed here. Name that host itself, where it is your registry.",
            )
        return RegistryError(
            f"The registry {self.host} would not {action}: {said}.",
            hint=answer.hint(known.told if known else ""),
            codes=tuple(sorted(answer.codes)),
            status=answer.status,
        )

    def check_address(self, url: str, action: str, *, storage: bool = False) -> None:
        """Refuse addresses that a registry has no business to send us to.

        Args:
            url: Where it sends us.
            action: What it does, in errors.
            storage: Whether content may be kept there, so that `STORAGE_VARIABLE` counts.

        Raises:
            RegistryError: It has no TLS though nobody allowed that, or is an address in our own
                network though the registry is a public one.
        """
        target = urllib.parse.urlsplit(url)
        allowed = target.scheme == "https" or (self._plain and is_plain(target.netloc))
        if target.scheme not in {"http", "https"} or not allowed:
            raise RegistryError(f"{self.host} {action} at '{_shown_host(url)}' without TLS.")
        if is_loopback(target.netloc) and not is_loopback(self.host):
            raise RegistryError(f"{self.host} {action} at this machine.")
        ours = urllib.parse.urlsplit(self.base).hostname or ""
        known = target.hostname == ours or (storage and is_allowed_storage(url))
        if not known and is_private(target.hostname or "") and not is_private(ours):
            listing = f"If its content is kept there, set {STORAGE_VARIABLE}={_shown_host(url)}. "
            raise RegistryError(
                f"{self.host} {action} at '{_shown_host(url)}', an address in the own network.",
                hint=f"{listing if storage else ''}Do not use this registry until its "
                "administrator has looked at it.",
            )

    def joined(self, url: str, location: str) -> str:
        """Give the address that a registry gave, if it is one that everybody reads alike.

        What is checked here is sent by urllib3, which ends a host at a backslash where others read
        on to an `@`.
        """
        try:
            joined = urllib.parse.urljoin(url, location)
            target = urllib.parse.urlsplit(joined)
            there, sent = (target.hostname, target.port), parse_url(joined)
            if target.scheme and there != (_bare(sent.host), sent.port):
                raise ValueError("read differently")
        except (ValueError, HTTPError):
            raise RegistryError(f"{self.host} names an address that is none.") from None
        if "@" in target.netloc:
            raise RegistryError(
                f"{self.host} names an address with a user at '{_shown_host(joined)}'.",
                hint="A registry sends nobody about with a user's name: have its administrator "
                "look at it.",
            )
        return joined

    def _follow(
        self,
        method: str,
        url: str,
        body: Body,
        headers: dict[str, str] | None,
        authorization: str | None,
        stream: bool,
    ) -> Answer:
        """Send a request and go after redirects; to others without authorisation.

        Of writes, 307 and 308 only (RFC 9110, 15.4): the same request at another place. A body
        that comes in a stream is not sent twice: an upload is opened before, where it can be.
        """
        for _ in range(_REDIRECT_LIMIT + 1):
            answer = self.send(method, url, body, signed(headers, authorization), stream=stream)
            answer.stranger = _origin(url) != _origin(self.base)
            reads = method in {"GET", "HEAD"}
            again = isinstance(body, bytes | None)
            if answer.status not in (_REDIRECTS if reads else _KEEPING) or not again:
                return answer
            target = self.joined(url, answer.headers.get("Location", ""))
            self.check_address(target, "redirects to an address", storage=True)
            if _origin(target) != _origin(url):
                authorization = None
            url = target
        raise RegistryError(f"{self.host} redirects in a circle.")

    def send(
        self,
        method: str,
        url: str,
        body: Body,
        headers: dict[str, str],
        *,
        stream: bool = False,
        timeout: urllib3.Timeout | None = None,
    ) -> Answer:
        """Send one request as it is, without authorisation, redirects or retries.

        Raises:
            TransientError: There was no answer.
        """
        more = {"timeout": timeout} if timeout else {}
        try:
            raw = self._pools.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                chunked=not isinstance(body, bytes | None) and "Content-Length" not in headers,
                **more,
            )
            good = 200 <= raw.status < 300
            content = b"" if stream and good else _content(raw)
        except HTTPError as error:
            raise self._unanswered(error, url) from error
        if raw.status == 407 and (proxy := proxy_for(url)):
            trouble = refused_by_proxy(proxy, url, f"407 {raw.reason or ''}".strip())
            raise RegistryError(trouble.message, hint=trouble.hint)
        return Answer(raw, url, content)

    def _unanswered(self, error: HTTPError, url: str) -> TransientError:
        """Give what to raise where no answer came: the proxy's doing, or the registry's.

        Raises:
            RegistryError: Trying again changes nothing.
        """
        trouble = proxy_trouble(error, url)
        if trouble is None:
            return self.broken(error, urllib.parse.urlsplit(url).netloc)
        failure = RegistryError(trouble.message, hint=trouble.hint)
        if trouble.lasting:
            raise failure from error
        return TransientError(failure)

    @cached_property
    def _pools(self) -> ConnectionPools:
        return pool_manager(self.patience)

    def _scopes(self, method: str, also: Scopes) -> Scopes:
        own = f"repository:{self.repository}:"
        # One token that can push serves the reads too, once we have it.
        reads = method in {"GET", "HEAD"} and not self._login.has((f"{own}pull,push",))
        return (
            f"{own}{'pull' if reads else 'pull,push'}",
            *(f"repository:{name}:pull" for name in also),
        )


def _content(raw: urllib3.BaseHTTPResponse) -> bytes:
    """All of an answer, or a little more than the limit. A single read would hide a short one."""
    content = bytearray()
    for chunk in raw.stream(CHUNK, decode_content=False):
        content += chunk
        if len(content) > CONTENT_LIMIT:
            raw.close()
            break
    return bytes(content)


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def _bare(host: str | None) -> str | None:
    """Give a host as `urlsplit` gives it: lower case, an IPv6 address without its brackets."""
    return host.strip("[]").lower() if host else None


def _shown_host(url: str) -> str:
    """Host and port of an address for people, without any user."""
    return cleaned(urllib.parse.urlsplit(url).netloc.rpartition("@")[2])[:260]
