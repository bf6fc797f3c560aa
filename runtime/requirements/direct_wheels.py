"""Wheels at addresses: fetched here, so that the installer never follows an address itself.

uv takes what the metadata of such a wheel says as seriously as what the user says: it would fetch
addresses from there, clone repositories and put variables of the environment into them. So a
wheel's own requirements must be names, and uv gets a file.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import urllib.parse
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import urllib3

from kfp_bento.runtime.pools import ConnectionPools
from kfp_bento.runtime.programs import account_for
from kfp_bento.runtime.proxies import proxy_trouble
from kfp_bento.runtime.requirements.addresses import Address, Repository

if TYPE_CHECKING:
    from kfp_bento.runtime.errors import KfpBentoError

_PIECE = 1 << 20
_LARGEST = 16 << 30
_REDIRECTIONS = 6
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA", re.I)
_METADATA_LIMIT = 16 << 20
_REQUIRES = re.compile(rb"requires-dist[^\n]*(?:\n[ \t][^\n]*)*", re.I)
_SECONDS = 60.0


@dataclass(frozen=True)
class DirectWheel:
    """A wheel that was fetched or built, or came along.

    Attributes:
        place: Where from: an address, or the repository that it was built of; None for one that
            came along.
        file: Where it lies.
        sha256: Of its content, in hexadecimal.
    """

    place: Address | Repository | None
    file: Path
    sha256: str


def fetch_wheel(address: Address, folder: Path, error: type[KfpBentoError]) -> DirectWheel:
    """Fetch a wheel into a folder, and see that it asks for nothing but names.

    An account is sent where the netrc file has an entry for the very host.

    Raises:
        error: It cannot be had, or its metadata names addresses.
    """
    file = folder / address.path[-1]
    digest = hashlib.sha256()
    try:
        with connection_pool(_SECONDS) as pool, file.open("xb") as target:
            answer = _answer(pool, address, error)
            for piece in answer.stream(_PIECE):
                digest.update(piece)
                if target.write(piece) and target.tell() > _LARGEST:
                    raise error(f"{address.text} is larger than {_LARGEST} bytes.")
    except (urllib3.exceptions.HTTPError, OSError) as failure:
        if trouble := proxy_trouble(failure, address.text):
            raise error(trouble.message, hint=trouble.hint) from None
        reason = failure.strerror if isinstance(failure, OSError) else type(failure).__name__
        raise error(
            f"{address.text} cannot be fetched: {reason}.",
            hint="Try again once the server can be reached; SSL_CERT_FILE names certificates.",
        ) from None
    check_metadata(file, address.text, error)
    return DirectWheel(address, file, digest.hexdigest())


def _answer(
    pool: urllib3.PoolManager, address: Address, error: type[KfpBentoError]
) -> urllib3.BaseHTTPResponse:
    """Follow redirections, but never from https to anything else; an account stays at its host."""
    here, account = address, account_for(address.host)
    for _ in range(_REDIRECTIONS):
        own = account and (here.host, here.port) == (address.host, address.port)
        headers = urllib3.make_headers(basic_auth=":".join(account)) if account and own else {}
        answer = pool.request(
            "GET", here.text, headers=headers, preload_content=False, redirect=False
        )
        location = answer.get_redirect_location()
        if not location:
            break
        answer.close()
        following = urllib.parse.urljoin(here.text, location)
        if not following.startswith("https://" if address.scheme == "https" else "http"):
            raise error(f"{address.text} leads to an address that is not https.")
        host = urllib.parse.urlsplit(following).hostname or ""
        here = Address("", host, 0, (), following)
    if answer.status != 200:
        raise error(
            f"{address.text} answers with status {answer.status}.",
            hint="Correct the address, or require the package by name.",
        )
    return answer


def connection_pool(seconds: float, *, maxsize: int = 1) -> urllib3.PoolManager:
    """Give connections to servers of packages, through the environment's proxy.

    Args:
        seconds: Time limit for a connection, and for every wait on it.
        maxsize: How many connections to one host are kept.
    """
    return ConnectionPools(
        timeout=urllib3.Timeout(seconds),
        retries=urllib3.Retry(3, backoff_factor=0.2),
        maxsize=maxsize,
        ssl_context=ssl.create_default_context(),  # reads SSL_CERT_FILE and SSL_CERT_DIR
    )


def check_metadata(file: Path, place: str, error: type[KfpBentoError]) -> None:
    """See that a wheel asks for nothing but names.

    Args:
        file: The wheel.
        place: Where it is from, for errors.
        error: What to raise.

    Raises:
        error: It is no wheel, or its metadata names addresses.
    """
    hint = "Ask its authors for a wheel that requires packages by name, or build one."
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if _METADATA.fullmatch(info.filename)]
            if len(infos) != 1 or infos[0].file_size > _METADATA_LIMIT:
                raise error(f"{place} is no wheel with metadata.", hint=hint)
            with archive.open(infos[0]) as member:
                metadata = member.read(_METADATA_LIMIT)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError):
        raise error(f"{place} is no wheel that can be read.", hint=hint) from None
    if any(b"@" in asked[0] for asked in _REQUIRES.finditer(metadata.replace(b"\r", b"\n"))):
        raise error(f"{place} requires a package by address, which is not followed.", hint=hint)
