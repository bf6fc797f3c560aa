"""Logging in to a registry: credentials, and the tokens that are had for them."""

from __future__ import annotations

import math
import re
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING

from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.registry.answers import Answer
from kfp_bento.runtime.images.registry.credentials import (
    Credentials,
    find_credentials,
    has_logins,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.images.registry.transport import Transport

# What the token specification has clients assume where `expires_in` is missing.
_TOKEN_LIFE = 60.0
_KINDS = re.compile(r"(?:^|,)\s*(bearer|basic)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
# What may stand in an Authorization header (RFC 6750, 2.1), and nothing that would end it.
_TOKEN = re.compile(r"[\x21-\x7e]+")

Scopes = tuple[str, ...]


class Login:
    """Credentials and tokens for one repository; one thread asks, the others wait for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._challenge: dict[str, str] = {}
        self._basic: str | None = None
        self._tokens: dict[Scopes, tuple[str, float]] = {}
        self._root: Answer | None = None
        self._hidden = False
        self.credentials: Credentials | None = None

    def has(self, scopes: Scopes) -> bool:
        """Say whether there is a token for these scopes."""
        return scopes in self._tokens

    def header(self, scopes: Scopes) -> str | None:
        """Give what to send as Authorization; a token that will soon expire is renewed first."""
        with self._lock:
            if not self._challenge:
                return self._basic
            header, expires = self._tokens.get(scopes, ("", 0.0))
            return header if time.monotonic() < expires else self._fetch(scopes)

    def challenge(self, answer: Answer, used: str | None) -> Answer | None:
        """Give the answer that says how to log in; None where nobody asks for a login.

        What a redirect led to has no say in it: it would name its own realm. A registry that
        hides from strangers what it has answers 403 or 404; where there is a login, its root is
        asked once, which answers 401 (distribution specification, "Determining Support").

        Args:
            answer: What the registry said.
            used: The authorisation that the request had.
        """
        if answer.stranger or answer.status == 401:
            return None if answer.stranger else answer
        if answer.status not in {403, 404} or used is not None or not has_logins():
            return None
        with self._lock:
            if self._root is None:
                self._root = self._transport.send(
                    "GET", f"{self._transport.base}/v2/", None, signed({}, None)
                )
                if self._root.status == 401:
                    where = self._transport.host, self._transport.repository
                    self.credentials = find_credentials(*where)
                self._hidden = self.credentials is not None
            return self._root if self._hidden else None

    def renew(self, scopes: Scopes, used: str | None, answer: Answer) -> bool:
        """Get what a 401 asks for; say whether there is now something else to try than `used`."""
        with self._lock:
            current = self._tokens.get(scopes, ("",))[0] if self._challenge else self._basic
            if current and current != used:
                return True  # another thread was faster
            kinds = _challenges(answer)
            # Looked up anew each time: a mounted Secret may have been renewed meanwhile.
            known = find_credentials(self._transport.host, self._transport.repository)
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
        token, life = self._transport.retrying(lambda: self._token(scopes))
        # Ahead of time: the clocks differ, and a large body takes a while to arrive.
        self._tokens[scopes] = (f"Bearer {token}", asked + 0.8 * life)
        return f"Bearer {token}"

    def _token(self, scopes: Scopes) -> tuple[str, float]:
        """Get a token from the place that the registry names; with the seconds it lives."""
        transport, challenge, known = self._transport, self._challenge, self.credentials
        realm = transport.joined("", challenge.get("realm", ""))
        transport.check_address(realm, "asks for a login")
        fields = [("service", challenge["service"])] if challenge.get("service") else []
        wanted = scopes + _further(challenge.get("scope", ""), scopes)
        if known and known.identity_token:
            fields += [("scope", " ".join(wanted)), ("grant_type", "refresh_token")]
            fields += [("refresh_token", known.identity_token), ("client_id", "kfp-bento")]
            headers = signed({"Content-Type": "application/x-www-form-urlencoded"}, None)
            body = urllib.parse.urlencode(fields).encode()
            answer = transport.send("POST", realm, body, headers)
        else:
            fields += [("scope", scope) for scope in wanted]
            url = urllib.parse.urlsplit(realm)
            query = "&".join(filter(None, (url.query, urllib.parse.urlencode(fields))))
            headers = signed({}, known.basic if known else None)
            answer = transport.send("GET", url._replace(query=query).geturl(), None, headers)
        transport.check_passing(answer, "give a token")
        try:
            data = parse_json(answer.content)
            token = str(data.get("token") or data["access_token"])
            life = float(data.get("expires_in") or _TOKEN_LIFE)
            if not _TOKEN.fullmatch(token) or not math.isfinite(life):
                raise ValueError("no token")
        except (ValueError, KeyError, TypeError, OverflowError):
            # The cause is left out on purpose: its text can hold the token.
            raise transport.failure(answer, "give a token") from None
        return token, life


def _challenges(answer: Answer) -> dict[str, dict[str, str]]:
    """Give the ways to log in that a 401 offers: `bearer`, `basic` and their parameters."""
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


def signed(headers: dict[str, str] | None, authorization: str | None) -> dict[str, str]:
    """Give the headers of a request."""
    named = {**(headers or {}), "User-Agent": "kfp-bento"}
    return {**named, "Authorization": authorization} if authorization else named
