"""Which proxy a request goes through: one rule for registries, indexes, storage and clusters.

The rule is that of Go's programs (golang.org/x/net/http/httpproxy), since kubectl, skopeo and
containerd follow it too, and clusters' lists are written for them.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from kfp_bento.runtime.errors import InvalidInput

_PORTS = {"http": 80, "https": 443}
_VARIABLES = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY"}
_ANY = "ALL_PROXY"
_THIS_MACHINE = "localhost", "127.0.0.0/8", "::1"
_FORBIDDEN = "407", "403"
_LONGEST = 200

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Proxy:
    """A proxy; its account never shows.

    Attributes:
        address: `http://host:port`, or https, without an account.
        named_by: The variable or setting that names it.
        account: `user:password`, or "".
    """

    address: str
    named_by: str
    account: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a request to the proxy itself says of who asks."""
        from urllib3.util import make_headers

        return dict(make_headers(proxy_basic_auth=self.account)) if self.account else {}


@dataclass(frozen=True)
class ProxyTrouble:
    """What keeps a proxy from letting a request through.

    Attributes:
        message: What it is, with the proxy's address.
        hint: What to do about it.
        lasting: Whether trying again changes nothing.
    """

    message: str
    hint: str
    lasting: bool


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Give the proxy for a URL; None where it is asked directly.

    `HTTPS_PROXY` or `HTTP_PROXY` by the URL's scheme, else `ALL_PROXY`, which is not Go's, but that
    of uv, curl and MLflow's client; without a scheme it is `http://`. Never for `localhost` and
    loopback addresses, nor for what `NO_PROXY` lists (see `is_exempt`). Each variable may be in
    small letters; capitals win.

    Args:
        url: An http or https address.
        environment: Variables by name; the process's own by default.

    Raises:
        InvalidInput: The variable holds no address, or one of another kind of proxy.
    """
    variables = os.environ if environment is None else environment
    parts = urlsplit(url)
    names = (_VARIABLES[parts.scheme], _ANY) if parts.scheme in _VARIABLES else ()
    name = next((one for one in names if _variable(variables, one)), "")
    if not name or is_exempt(parts, _variable(variables, "NO_PROXY")):
        return None
    return parsed_proxy(_variable(variables, name), name)


def parsed_proxy(given: str, named_by: str) -> Proxy:
    """Read a proxy's address; one without a scheme is `http://`.

    Raises:
        InvalidInput: It is none, or that of another kind of proxy.
    """
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if not host or any(letter.isspace() for letter in host):
        raise InvalidInput(
            f"{named_by} is no address of a proxy.", hint="Write it as http://host:port."
        )
    if parts.scheme not in _PORTS:
        raise InvalidInput(
            f"{named_by} names a proxy of the kind {parts.scheme}, which is not supported.",
            hint="Name an http:// or https:// proxy, or list what is asked directly in NO_PROXY.",
        )
    shown = f"[{host}]" if ":" in host else host
    address = f"{parts.scheme}://{shown}:{port or _PORTS[parts.scheme]}"
    return Proxy(address, named_by, unquote(parts.netloc.rpartition("@")[0]))


def is_exempt(parts: SplitResult, listed: str) -> bool:
    """Tell whether a URL is asked directly, whatever proxy there is.

    Args:
        parts: The URL.
        listed: Comma separated as in `NO_PROXY`: `*`; an address, with a port or not; a network
            (`10.0.0.0/8`); `example.com`, which stands for all below it too; `.example.com` and
            `*.example.com`, which stand for those below only. IPv6 addresses may have brackets.
    """
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS.get(parts.scheme, 0)
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = (entry.strip().lower() for entry in listed.split(","))
    return any(_covers(entry, host, port, address) for entry in entries if entry)


def for_other_programs(
    urls: Iterable[str], environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give the variables by which programs with rules of their own do as ours says.

    uv, git and the clients that MLflow is built on know no wildcards, ports, brackets or networks
    of IPv6 in `NO_PROXY`, and would ask for this machine itself by a proxy. apt reads small letters
    only, and no address without a scheme.

    Args:
        urls: What they will ask for, as far as it is known.
        environment: Variables by name; the process's own by default.

    Returns:
        Nothing where there is no proxy.
    """
    variables = os.environ if environment is None else environment
    given = {name: _variable(variables, name) for name in _VARIABLES.values()}
    given = {name: value or _variable(variables, _ANY) for name, value in given.items()}
    if not any(given.values()):
        return {}
    told = {name: _whole(value, name) for name, value in given.items() if value}
    told["NO_PROXY"] = _exempt_for_others(urls, variables)
    return {**told, **{name.lower(): value for name, value in told.items()}}


def _whole(given: str, name: str) -> str:
    """Give a proxy's address with its scheme; one that is not for us as it stands."""
    with suppress(InvalidInput):
        proxy = parsed_proxy(given, name)
        account = given.rpartition("@")[0].rpartition("://")[2]
        scheme, _, host = proxy.address.partition("://")
        return f"{scheme}://{account}@{host}" if account else proxy.address
    return given


def _exempt_for_others(urls: Iterable[str], variables: Mapping[str, str]) -> str:
    listed = _variable(variables, "NO_PROXY")
    entries = [entry.strip() for entry in listed.split(",")]
    if "*" in entries:
        return "*"
    known = []
    for url in urls:
        with suppress(ValueError):
            if is_exempt(parts := urlsplit(url), listed):
                known.append(parts.hostname)
    told = [_for_others(entry) for entry in entries]
    names = dict.fromkeys([*entries, *told, *_THIS_MACHINE, *(name or "" for name in known)])
    return ",".join(filter(None, names))


@contextmanager
def told_to_others(urls: Iterable[str]) -> Iterator[None]:
    """Let libraries with rules of their own ask directly what our rule says, during a block.

    Process-wide, as they read it from the environment at every request.
    """
    told = for_other_programs(urls)
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _for_others(entry: str) -> str:
    """Give an entry as others know it; "" where nothing says the same to them."""
    if "/" in entry:
        return entry.replace("[", "").replace("]", "")
    named, port = _split_port(entry)
    return "" if port else named.removeprefix("*")


def proxy_trouble(
    error: BaseException, url: str, proxy: Proxy | None = None
) -> ProxyTrouble | None:
    """Say what a failed request has to do with the proxy; None where it is nothing.

    Args:
        error: What urllib3 raised.
        url: What was asked for.
        proxy: What it went through; what the environment names by default.
    """
    cause = _proxy_error(error)
    used = proxy or proxy_for(url)
    if cause is None or used is None:
        return None
    return refused_by_proxy(used, url, _reason(cause))


def refused_by_proxy(proxy: Proxy, url: str, reason: str) -> ProxyTrouble:
    """Say that a proxy lets nothing through to a URL's host.

    Args:
        proxy: Which.
        url: What was asked for.
        reason: The proxy's status and words, or why it does not answer.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    hint = (
        f"Check {proxy.named_by}, and that the proxy is up. A host that is asked directly "
        "belongs into NO_PROXY."
    )
    if reason.startswith("407"):
        hint = f"The proxy wants an account: {proxy.named_by}=http://USER:PASSWORD@HOST:PORT."
    elif reason.startswith("403"):
        hint = "Have the host allowed at the proxy, or list it in NO_PROXY to ask it directly."
    message = f"The proxy {proxy.address} does not lead to {host}: {reason}."
    return ProxyTrouble(message, hint, reason.startswith(_FORBIDDEN))


def _variable(variables: Mapping[str, str], name: str) -> str:
    return (variables.get(name) or variables.get(name.lower()) or "").strip()


def _covers(entry: str, host: str, port: int, address: _Address | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _in_network(entry, address)
    named, only = _split_port(entry)
    if only not in ("", str(port)):
        return False
    listed = _address(named)
    if listed is not None or address is not None:
        return listed is not None and listed == address
    name = named.removeprefix("*").rstrip(".")
    if name.startswith("."):
        return host.endswith(name)
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _in_network(entry: str, address: _Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str]:
    """Give host and port of an entry of the list; an IPv6 address has a port in brackets only."""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = entry.rpartition(":")
    return (host, port) if host and ":" not in host else (entry, "")


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _proxy_error(error: BaseException) -> Any:
    """Give urllib3's error about a proxy, however deep it is."""
    from urllib3.exceptions import MaxRetryError, ProxyError

    while isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    return error if isinstance(error, ProxyError) else None


def _reason(error: Any) -> str:
    """Give the innermost reason: the proxy's status and words, or the system's."""
    cause = error
    while cause.args and isinstance(cause.args[-1], Exception):
        cause = cause.args[-1]
    cause = cause.__cause__ or cause
    known = isinstance(cause, OSError) and cause.strerror
    said = str(known or str(cause).rpartition("failed: ")[2] or type(cause).__name__)
    return said.rpartition(": ")[2].rstrip(".")[:_LONGEST]
