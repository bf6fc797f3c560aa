"""Requests to one registry: retries, redirects and authorisation."""

from __future__ import annotations

import contextlib
import email.utils
import itertools
import math
import random
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.reference import DOCKER_HUB
from kfp_bento.runtime.images.oci.tar import CHUNK
from kfp_bento.runtime.images.registry.connections import (
    RetryPolicy,
    is_loopback,
    is_plain,
    is_private,
    pool_manager,
    unreachable,
)
from kfp_bento.runtime.images.registry.credentials import Credentials, find_credentials
from kfp_bento.runtime.programs import cleaned

# Answers longer than this are read only as streams; no manifest may be larger.
CONTENT_LIMIT = 4 << 20

_HUB_ENDPOINT = "registry-1.docker.io"
_PASSING = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 5
_LONGEST_WAIT = 60.0
# What the token specification has clients assume where `expires_in` is missing.
_TOKEN_LIFE = 60.0
_KINDS = re.compile(r"(?:^|,)\s*(bearer|basic)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
# What may stand in an Authorization header (RFC 6750, 2.1), and nothing that would end it.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_LONGEST_DETAIL = 1000

Result = TypeVar("Result")
Body = bytes | Iterator[bytes] | None
Scopes = tuple[str, ...]


class TransientError(Exception):
    """A failure that may pass.

    Attributes:
        error: What to say if it does not.
        wait: Seconds that the registry asked us to wait.
        at_once: Whether waiting would not help, as with a token that has just been renewed.
    """

    def __init__(self, error: RegistryError, wait: float = 0.0, *, at_once: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait = wait
        self.at_once = at_once


class Answer:
    """An answer; its content is at hand unless a stream was asked for.

    Attributes:
        stranger: Whether somebody gave it whom the registry had sent us to.
    """

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, content: bytes) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self.content = content
        self.stranger = False
        self._raw = raw

    def chunks(self) -> Iterator[bytes]:
        """The content of a streamed answer; may raise urllib3's HTTPError."""
        return self._raw.stream(CHUNK, decode_content=False)

    def close(self) -> None:
        """Gives up what was not read."""
        self._raw.close()

    @property
    def length(self) -> int | None:
        """The length that the registry gives, where it gives one."""
        return whole_number(self.headers.get("Content-Length", ""))

    @property
    def codes(self) -> set[str]:
        """The error codes of the distribution specification in it."""
        return {str(item.get("code", "")) for item in self._errors()}

    @property
    def detail(self) -> str:
        """The registry's own words, without control characters; they never hold what we sent."""
        said = (f"{item.get('code', '')} {item.get('message', '')}" for item in self._errors())
        text = " ".join(cleaned("; ".join(text.strip() for text in said)).split())
        return text[:_LONGEST_DETAIL]

    def _errors(self) -> list[dict[str, Any]]:
        try:
            errors = parse_json(self.content).get("errors")
        except ValueError:
            return []
        listed = errors if isinstance(errors, list) else []
        return [item for item in listed if isinstance(item, dict)]


class Transport:
    """Requests to the registry of one repository; may be used by several threads.

    Args:
        host: The registry as the user wrote it.
        repository: The path below it, for the scopes of tokens.
        patience: Time limits and retries.
    """

    def __init__(self, host: str, repository: str, patience: RetryPolicy) -> None:
        self.host = host
        self.patience = patience
        self._repository = repository
        self._plain = is_plain(host)
        endpoint = _HUB_ENDPOINT if host == DOCKER_HUB else host
        self.base = f"{'http' if self._plain else 'https'}://{endpoint}"
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._login = _Login(self)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        also: Scopes = (),
        stream: bool = False,
    ) -> Answer:
        """A request that may be repeated, with retries for what is known to pass.

        Args:
            method: The HTTP method.
            url: An address at this registry.
            body: What to send.
            headers: Headers besides those of every request.
            also: Repositories that the token must be good for as well, for reading.
            stream: Whether the content of a good answer is left to be read in chunks.
        """

        def send() -> Answer:
            return self.once(method, url, body, headers, also=also, stream=stream)

        return self.retrying(send)

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
        authorization = self._login.header(scopes)
        answer = self._follow(method, url, body, headers, authorization, stream)
        # What a redirect led to has no say in where our login goes: it would name its own realm.
        asked = answer.status == 401 and not answer.stranger
        if asked and self._login.renew(scopes, authorization, answer):
            if not isinstance(body, bytes | None):
                raise TransientError(self.failure(answer, "take a blob"), at_once=True)
            authorization = self._login.header(scopes)
            answer = self._follow(method, url, body, headers, authorization, stream)
        self.check_passing(answer, f"answer {method}")
        return answer

    def abandon(self, url: str) -> None:
        """Cancels an upload; whether the registry listens does not matter."""
        with contextlib.suppress(TransientError, RegistryError):
            authorization = self._login.header(self._scopes("DELETE", ()))
            timeout = urllib3.Timeout(connect=min(5.0, self.patience.connect), read=5.0)
            self._send("DELETE", url, None, _signed({}, authorization), timeout=timeout)

    def retrying(self, action: Callable[[], Result]) -> Result:
        """Does it until it works, fails for good or was tried often enough."""
        for attempt in itertools.count(1):
            try:
                return action()
            except TransientError as passing:
                self.pause(attempt, passing)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, passing: TransientError) -> None:
        """Waits before the next attempt, or raises the error if this was the last one."""
        if attempt >= self.patience.attempts:
            raise passing.error from passing.__cause__
        if not passing.at_once:
            wait = self.patience.backoff * 2 ** (attempt - 1) * (1 + random.random())  # noqa: S311
            time.sleep(min(max(wait, passing.wait), _LONGEST_WAIT))

    def check_passing(self, answer: Answer, action: str) -> None:
        """Raises TransientError for an answer that is known to pass."""
        # A full disk stays full, and each attempt would send gigabytes.
        if answer.status in _PASSING and not _is_full(answer):
            raise TransientError(self.failure(answer, action), _retry_after(answer))

    def location(self, answer: Answer, default: str = "") -> str:
        """Where to go on with an upload; never another host, since it carries our authorisation."""
        given = answer.headers.get("Location") or default
        if not given:
            # As when the connection broke in the middle of the answer's headers.
            raise TransientError(
                RegistryError(
                    f"{self.host} wanted to send the upload to nowhere: it gave no Location.",
                    hint="Run this again, or look at what stands between here and the registry.",
                )
            )
        place = urllib.parse.urlsplit(self._joined(answer.url, given))
        if place.hostname != urllib.parse.urlsplit(self.base).hostname:
            raise RegistryError(
                f"{self.host} wanted to send the upload to '{place.hostname}'.",
                hint="Set the registry's external URL right, or push to that host directly.",
            )
        # Registries behind a proxy name the wrong scheme or port: ours is the one that works.
        return f"{self.base}{place.path}" + (f"?{place.query}" if place.query else "")

    def broken(self, error: HTTPError, host: str = "") -> TransientError:
        """What to raise for a connection that failed.

        Raises:
            RegistryError: It fails for good: the registry's certificate or lack of TLS.
        """
        failure, permanent = unreachable(host or self.host, error)
        if permanent:
            raise failure from error
        return TransientError(failure)

    def failure(self, answer: Answer, action: str) -> RegistryError:
        """An error with the registry's own words."""
        said = f"HTTP {answer.status}" + (f" ({answer.detail})" if answer.detail else "")
        if answer.stranger:
            return RegistryError(
                f"The registry {self.host} would not {action}: it sends us to "
                f"{_shown_host(answer.url)}, which answers {said}.",
                hint="Logins are for the registry itself and never go along with a redirect: its "
                "administrator has to look at where it keeps its content.",
            )
        return RegistryError(
            f"The registry {self.host} would not {action}: {said}.",
            hint=_hint(answer, "with" if self._login.credentials else "without"),
            codes=tuple(sorted(answer.codes)),
        )

    def check_address(self, url: str, action: str) -> None:
        """Refuses addresses that a registry has no business to send us to.

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
        if target.hostname != ours and is_private(target.hostname or "") and not is_private(ours):
            raise RegistryError(
                f"{self.host} {action} at '{_shown_host(url)}', an address in the own network.",
                hint="Do not use this registry until its administrator has looked at it.",
            )

    def _joined(self, url: str, location: str) -> str:
        """The address that a registry gave, if it is one that everybody reads alike.

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
        """Sends a request and goes after redirects of reads; to others without authorisation."""
        for _ in range(_REDIRECT_LIMIT + 1):
            signed = _signed(headers, authorization)
            answer = self._send(method, url, body, signed, stream=stream)
            answer.stranger = _origin(url) != _origin(self.base)
            if answer.status not in _REDIRECTS or method not in {"GET", "HEAD"}:
                return answer
            target = self._joined(url, answer.headers.get("Location", ""))
            self.check_address(target, "redirects to an address")
            if _origin(target) != _origin(url):
                authorization = None
            url = target
        raise RegistryError(f"{self.host} redirects in a circle.")

    def _send(
        self,
        method: str,
        url: str,
        body: Body,
        headers: dict[str, str],
        *,
        stream: bool = False,
        timeout: urllib3.Timeout | None = None,
    ) -> Answer:
        more = {"timeout": timeout} if timeout else {}
        try:
            raw = self._manager(url).urlopen(
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
            raise self.broken(error, urllib.parse.urlsplit(url).netloc) from error
        return Answer(raw, url, content)

    def token(self, challenge: dict[str, str], scopes: Scopes) -> tuple[str, float]:
        """Gets a token from the place that the registry names; with the seconds it lives."""
        realm = self._joined("", challenge.get("realm", ""))
        self.check_address(realm, "asks for a login")
        fields = [("service", challenge["service"])] if challenge.get("service") else []
        wanted = scopes + _further(challenge.get("scope", ""), scopes)
        known = self._login.credentials
        headers = {"User-Agent": "kfp-bento"}
        if known and known.identity_token:
            fields += [("scope", " ".join(wanted)), ("grant_type", "refresh_token")]
            fields += [("refresh_token", known.identity_token), ("client_id", "kfp-bento")]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = self._send("POST", realm, urllib.parse.urlencode(fields).encode(), headers)
        else:
            fields += [("scope", scope) for scope in wanted]
            url = urllib.parse.urlsplit(realm)
            query = "&".join(filter(None, (url.query, urllib.parse.urlencode(fields))))
            signed = _signed(headers, known.basic if known else None)
            answer = self._send("GET", url._replace(query=query).geturl(), None, signed)
        self.check_passing(answer, "give a token")
        try:
            data = parse_json(answer.content)
            token = str(data.get("token") or data["access_token"])
            life = float(data.get("expires_in") or _TOKEN_LIFE)
            if not _TOKEN.fullmatch(token) or not math.isfinite(life):
                raise ValueError("no token")
        except (ValueError, KeyError, TypeError, OverflowError):
            # The cause is left out on purpose: its text can hold the token.
            raise self.failure(answer, "give a token") from None
        return token, life

    def _scopes(self, method: str, also: Scopes) -> Scopes:
        own = f"repository:{self._repository}:"
        # One token that can push serves the reads too, once we have it.
        reads = method in {"GET", "HEAD"} and not self._login.has((f"{own}pull,push",))
        return (
            f"{own}{'pull' if reads else 'pull,push'}",
            *(f"repository:{name}:pull" for name in also),
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        address = urllib.parse.urlsplit(url)
        proxy = urllib.request.getproxies().get(address.scheme, "")
        if is_loopback(address.netloc) or urllib.request.proxy_bypass(address.netloc):
            proxy = ""
        if proxy not in self._managers:
            self._managers[proxy] = pool_manager(proxy, self.patience)
        return self._managers[proxy]


class _Login:
    """Credentials and tokens for one repository; one thread asks, the others wait for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._challenge: dict[str, str] = {}
        self._basic: str | None = None
        self._tokens: dict[Scopes, tuple[str, float]] = {}
        self.credentials: Credentials | None = None

    def has(self, scopes: Scopes) -> bool:
        return scopes in self._tokens

    def header(self, scopes: Scopes) -> str | None:
        """What to send as Authorization; a token that will soon expire is renewed first."""
        with self._lock:
            if not self._challenge:
                return self._basic
            header, expires = self._tokens.get(scopes, ("", 0.0))
            return header if time.monotonic() < expires else self._fetch(scopes)

    def renew(self, scopes: Scopes, used: str | None, answer: Answer) -> bool:
        """Gets what a 401 asks for; says whether there is now something else to try than `used`."""
        with self._lock:
            current = self._tokens.get(scopes, ("",))[0] if self._challenge else self._basic
            if current and current != used:
                return True  # another thread was faster
            kinds = _challenges(answer)
            # Looked up anew each time: a mounted Secret may have been renewed meanwhile.
            host = self._transport.host
            known = find_credentials(host, self._transport._repository)
            self.credentials = known
            if "bearer" in kinds:
                self._challenge = kinds["bearer"]
                self._fetch(scopes)
                return True
            if "basic" in kinds and known and known.password and known.basic != used:
                self._challenge, self._basic = {}, known.basic
                return True
            return False

    def _fetch(self, scopes: Scopes) -> str:
        self._tokens.pop(scopes, None)
        asked = time.monotonic()
        token, life = self._transport.retrying(
            lambda: self._transport.token(self._challenge, scopes)
        )
        # Ahead of time: the clocks differ, and a large body takes a while to arrive.
        self._tokens[scopes] = (f"Bearer {token}", asked + 0.8 * life)
        return f"Bearer {token}"


def whole_number(text: str) -> int | None:
    """What a header counts; None for what is no number, or for one that nothing here can have."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def _content(raw: urllib3.BaseHTTPResponse) -> bytes:
    """All of an answer, or a little more than the limit. A single read would hide a short one."""
    content = bytearray()
    for chunk in raw.stream(CHUNK, decode_content=False):
        content += chunk
        if len(content) > CONTENT_LIMIT:
            raw.close()
            break
    return bytes(content)


def _signed(headers: dict[str, str] | None, authorization: str | None) -> dict[str, str]:
    signed = {**(headers or {}), "User-Agent": "kfp-bento"}
    return {**signed, "Authorization": authorization} if authorization else signed


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def _bare(host: str | None) -> str | None:
    """A host as `urlsplit` gives it: lower case, an IPv6 address without its brackets."""
    return host.strip("[]").lower() if host else None


def _shown_host(url: str) -> str:
    """Host and port of an address for people, without any user."""
    return cleaned(urllib.parse.urlsplit(url).netloc.rpartition("@")[2])[:260]


def _challenges(answer: Answer) -> dict[str, dict[str, str]]:
    """The ways to log in that a 401 offers: ``bearer``, ``basic`` and their parameters."""
    offered: dict[str, dict[str, str]] = {}
    for header in answer.headers.getlist("WWW-Authenticate"):
        parts = _KINDS.split(header)
        for kind, rest in zip(parts[1::2], parts[2::2], strict=True):
            parameters = {name.lower(): a or b for name, a, b in _PARAMETER.findall(rest)}
            offered.setdefault(kind.lower(), parameters)
    return offered


def _further(challenged: str, scopes: Scopes) -> Scopes:
    """Scopes of a challenge for other repositories than ours: a mirror may know them otherwise."""
    ours = {scope.rpartition(":")[0] for scope in scopes}
    return tuple(item for item in challenged.split() if item.rpartition(":")[0] not in ours)


def _retry_after(answer: Answer) -> float:
    """The seconds that an answer asks to wait for, given as such or as a date."""
    text = answer.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0


def _is_full(answer: Answer) -> bool:
    # docker-registry gives the error of the system call as its number.
    text = answer.content[:CHUNK].lower()
    return answer.status >= 500 and (
        b"no space" in text or re.search(rb'"err":28\b', text) is not None
    )


def _hint(answer: Answer, known: str) -> str:
    if _is_full(answer) or answer.status == 507:
        return "The registry's storage is full: its administrator has to make room."
    if "quota" in answer.detail.lower():
        return "The registry's quota is used up: remove images, or ask for more."
    if "DENIED" in answer.codes:
        return f"The request was made {known} credentials. Ask for the right to do this."
    return {
        401: f"The request was made {known} credentials. Log in, for example with "
        "`podman login`, or point DOCKER_CONFIG or REGISTRY_AUTH_FILE to a login file.",
        403: f"The request was made {known} credentials. Ask for the right to do this.",
        404: "Check the repository's name and tag; some registries want it created first.",
        405: "The registry does not take uploads: it is read-only or a mere mirror.",
        413: "A proxy before the registry limits the size of requests: have the limit lifted.",
        429: "The registry limits requests: wait, or log in to get a higher limit.",
    }.get(answer.status, "Try again later, or look at the registry's own log.")
