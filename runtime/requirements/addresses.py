"""Addresses of packages and indexes, and which of them somebody other than the user may name.

An address is compared in parts, never as text, and only in the one spelling that every parser
reads alike: what URL libraries disagree about (backslashes, encoded slashes, dots, other
alphabets) is no address here.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kfp_bento.runtime.errors import InvalidInput

_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?:(?P<account>[^/?#@\\\s]*)@)?"
    r"(?P<host>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)(?P<fragment>#[A-Za-z0-9=&._-]*)?"
)
_REPOSITORY = re.compile(
    r"git\+(?P<address>https?://[^#\s]+)@(?P<revision>[^/@#\s]+)(?:#(?P<rest>\S*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,9}")
_PORTS = {"http": 80, "https": 443}
_LONGEST = 2000
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})?")


@dataclass(frozen=True)
class Address:
    """Where a wheel, a page or an index is.

    Attributes:
        scheme: `http` or `https`; `git+http` or `git+https` for repositories.
        host: In lower case, as it was written otherwise.
        port: The scheme's own if none was written.
        path: Its segments, decoded; none is empty, `.` or `..`.
        text: The address without account and fragment.
        fragment: What follows `#`, such as `sha256=…`.
        has_account: Whether a user or a password was in it.
    """

    scheme: str
    host: str
    port: int
    path: tuple[str, ...]
    text: str = field(compare=False)
    fragment: str = field(default="", compare=False)
    has_account: bool = field(default=False, compare=False)


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: It is none, or one that can be read in more than one way. The text of the
            error quotes nothing of it.
    """
    if len(text) > _LONGEST:
        raise ValueError("it is too long")
    head, separator, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    match = _ADDRESS.fullmatch(f"{head.lower()}{separator}{_lower_host(host)}{slash}{path}")
    if match is None:
        raise ValueError("it is no plain http or https address")
    port = int(match["port"] or _PORTS[match["scheme"]])
    path = match["path"].removesuffix("/")
    segments = tuple(_decoded(segment) for segment in path.split("/")[1:])
    if any(segment in ("", ".", "..") for segment in segments) or not 0 < port < 65536:
        raise ValueError("it is no plain http or https address")
    place = match["host"] + (f":{match['port']}" if match["port"] else "")
    return Address(
        scheme=match["scheme"],
        host=match["host"],
        port=port,
        path=segments,
        text=f"{match['scheme']}://{place}{match['path']}",
        fragment=(match["fragment"] or "").removeprefix("#"),
        has_account=match["account"] is not None,
    )


def _of_git(address: Address) -> Address:
    """Give the address of a repository that is reached by this one."""
    return replace(address, scheme=f"git+{address.scheme}", text=f"git+{address.text}")


def _lower_host(host: str) -> str:
    account, at, place = host.rpartition("@")
    # `str.lower` makes ASCII of some other letters (the Kelvin sign), which is not the same host.
    return f"{account}{at}{place.lower() if place.isascii() else place}"


def _decoded(segment: str) -> str:
    """Decode what wheels' names need, such as `%2B`; nothing that changes the address's parts."""
    for match in _ENCODED.finditer(segment):
        letter = chr(int(match[1] or "0", 16))
        if letter not in "!$&'()*+,;=:@~ ":
            raise ValueError("it is encoded in a way that can be read differently")
    return urllib.parse.unquote(segment)


@dataclass(frozen=True)
class Repository:
    """A git repository at one commit, as a requirement names it.

    Attributes:
        address: Where it is; the scheme is `git+https` or `git+http`.
        commit: 40 hexadecimal digits.
        folder: Where the project is in it; "" for its top.
    """

    address: Address
    commit: str
    folder: str = ""

    @property
    def text(self) -> str:
        """The address and the commit, as PEP 508 writes them."""
        return f"{self.address.text}@{self.commit}"


def parse_repository(url: str) -> Repository:
    """Read the address of a repository at a commit.

    Raises:
        ValueError: It is none, or names a branch or tag, which can be moved.
    """
    match = _REPOSITORY.fullmatch(url)
    if match is None:
        raise ValueError("it is no git+https address with a commit")
    if not _COMMIT.fullmatch(match["revision"]):
        raise ValueError("it names no full commit, so it could become another one")
    address = parse_address(match["address"])
    options = urllib.parse.parse_qs(match["rest"] or "", keep_blank_values=True)
    folder = options.pop("subdirectory", [""])[0].strip("/")
    if options.keys() - {"egg"} or (folder and not _FOLDER.fullmatch(folder)):
        raise ValueError("it has a fragment that is not understood")
    return Repository(_of_git(address), match["revision"], folder)


@dataclass(frozen=True)
class AllowedSources:
    """What may be named besides names and versions.

    Attributes:
        prefixes: Beginnings of addresses that may be asked; whole segments of the path count.
        wheels: Schemes of addresses at which any wheel may be named: where users wrote the line.
        indexes: Whether any index may be named, likewise.
        repositories: Whether any repository may be named: where lines have been judged already.
    """

    prefixes: tuple[Address, ...] = ()
    wheels: tuple[str, ...] = ()
    indexes: bool = False
    repositories: bool = False

    def allows(self, address: Address) -> bool:
        """Say whether an address begins with one of the prefixes."""
        return any(
            (address.scheme, address.host, address.port)
            == (prefix.scheme, prefix.host, prefix.port)
            and address.path[: len(prefix.path)] == prefix.path
            for prefix in self.prefixes
        )


NAMES_ONLY = AllowedSources()
"""Names and versions, from the index that the user configured."""


def allowed_sources(prefixes: Iterable[str]) -> AllowedSources:
    """Read what the user of a build allows models to name.

    Args:
        prefixes: Beginnings of addresses, such as `https://download.example.com/whl/`, or
            `git+https://git.example.com/team/` for repositories, whose code is run to build
            wheels of them.

    Raises:
        InvalidInput: One is no plain http or https address.
    """
    found = []
    for text in prefixes:
        try:
            address = parse_address(str(text).removeprefix("git+"))
            if str(text).startswith("git+"):
                address = _of_git(address)
            if address.has_account or address.fragment:
                raise ValueError("it has an account or a fragment")
        except ValueError as reason:
            raise InvalidInput(
                f"An allowed source cannot be used: {reason}.",
                hint="Write the beginning of an address, such as https://host/path/ or "
                "git+https://host/path/; accounts belong into a netrc file or UV_INDEX.",
            ) from None
        found.append(address)
    return AllowedSources(tuple(found))
