"""Sizes of wheels that an index does not give (PEP 700), asked from the servers that have them.

They decide which wheels have layers of their own, and so about the image's digest: a size that
cannot be had is no size of 0, or the network would have a say in what the same bento becomes.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import urllib3

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.programs import account_for
from kfp_bento.runtime.proxies import proxy_trouble
from kfp_bento.runtime.requirements import connection_pool

# Servers of packages hold back clients that open more at once.
_CONNECTIONS = 8
_SECONDS = 10.0
_PIECE = 1 << 20
_LARGEST = 16 << 30
_EXTENT = re.compile(r"bytes 0-0/(\d{1,19})", re.ASCII)


def sizes_of(addresses: Sequence[str], lock: Lock) -> list[int]:
    """Ask for the sizes of files in bytes.

    Args:
        addresses: Where the files are.
        lock: Its indexes' accounts are sent to their own hosts, as uv does.

    Raises:
        ImageError: A server does not give a file, or uv is offline.
    """
    if not addresses:
        return []
    if os.environ.get("UV_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise ImageError(
            f"The size of {_filename(addresses[0])} is not known: the package index does not give "
            "it, and UV_OFFLINE keeps the file's server from being asked. It decides which wheels "
            "have layers of their own.",
            hint="Build once online with --cache, which remembers it; or use an index that gives "
            "sizes (PEP 700).",
        )
    pool, accounts = connection_pool(_SECONDS, maxsize=_CONNECTIONS), _accounts(lock)
    with ThreadPoolExecutor(min(_CONNECTIONS, len(addresses))) as executor:
        return list(executor.map(lambda one: _size(pool, one, accounts), addresses))


def _size(pool: urllib3.PoolManager, address: str, accounts: Mapping[str, tuple[str, str]]) -> int:
    """Give the size of a file on a server by asking for its first byte.

    Not by HEAD, which servers and signed addresses refuse that give the file.
    """
    parts = urllib.parse.urlsplit(address)
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    if account := accounts.get(_origin(parts)) or account_for(parts.hostname or ""):
        headers |= urllib3.make_headers(basic_auth=":".join(account))
    url = parts._replace(fragment="").geturl()
    try:
        answer = pool.request("GET", url, headers=headers, preload_content=False)
        try:
            return _told_size(answer, address)
        finally:
            answer.close()
    except urllib3.exceptions.HTTPError as error:
        if trouble := proxy_trouble(error, url):
            raise ImageError(trouble.message, hint=trouble.hint) from error
        raise _unknown(address, f"the server cannot be asked ({type(error).__name__})") from error


def _told_size(answer: urllib3.BaseHTTPResponse, address: str) -> int:
    """Give the size that an answer tells, or that it has."""
    if answer.status == 206 and (
        told := _EXTENT.fullmatch(answer.headers.get("Content-Range", ""))
    ):
        return int(told[1])
    if answer.status != 200:
        raise _unknown(address, f"the server answers with status {answer.status}")
    if (length := answer.headers.get("Content-Length", "")).isdecimal():
        return int(length)
    size = 0
    for piece in answer.stream(_PIECE):
        size += len(piece)
        if size > _LARGEST:
            raise _unknown(address, f"it is larger than {_LARGEST} bytes")
    return size


def _unknown(address: str, why: str) -> ImageError:
    host = urllib.parse.urlsplit(address).netloc.rpartition("@")[2]
    return ImageError(
        f"The size of {_filename(address)} on {host} is not known: {why}. It decides which wheels "
        "have layers of their own.",
        hint="Try again once the server can be reached. Its account is looked for in the index's "
        "address and in the netrc file, its certificate with SSL_CERT_FILE.",
    )


def _filename(address: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])


def _accounts(lock: Lock) -> dict[str, tuple[str, str]]:
    """User and password by origin, from the index addresses that uv is given."""
    variables = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    words = " ".join([*lock.options(), *(os.environ.get(name, "") for name in variables)]).split()
    accounts = {}
    for word in words:
        address = word[word.find("http") :] if "://" in word else ""
        parts = urllib.parse.urlsplit(address)
        if parts.username:
            unquoted = urllib.parse.unquote(parts.username)
            accounts[_origin(parts)] = unquoted, urllib.parse.unquote(parts.password or "")
    return accounts


def _origin(parts: urllib.parse.SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
