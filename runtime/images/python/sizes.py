"""Sizes of wheels that an index does not give (PEP 700), asked from the servers that have them."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import urllib3

from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.programs import account_for
from kfp_bento.runtime.requirements import connection_pool

# Servers of packages hold back clients that open more at once.
_CONNECTIONS = 8
_SECONDS = 10.0


def sizes_of(addresses: Sequence[str], lock: Lock) -> list[int]:
    """Ask for the sizes of files in bytes; 0 where a server does not say it, or uv is offline.

    Args:
        addresses: Where the files are.
        lock: Its indexes' accounts are sent to their own hosts, as uv does.
    """
    offline = os.environ.get("UV_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    if offline or not addresses:
        return [0 for _ in addresses]
    pool, accounts = connection_pool(_SECONDS, maxsize=_CONNECTIONS), _accounts(lock)
    with ThreadPoolExecutor(min(_CONNECTIONS, len(addresses))) as executor:
        return list(executor.map(lambda one: _content_length(pool, one, accounts), addresses))


def _content_length(
    pool: urllib3.PoolManager, address: str, accounts: Mapping[str, tuple[str, str]]
) -> int:
    """Give the size of a file on a server, or 0: it decides about layers, not about content."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in {"http", "https"}:
        return 0
    headers = {}
    if account := accounts.get(_origin(parts)) or account_for(parts.hostname or ""):
        headers = urllib3.make_headers(basic_auth=":".join(account))
    try:
        answer = pool.request("HEAD", parts._replace(fragment="").geturl(), headers=headers)
        length = answer.headers.get("Content-Length", "")
    except urllib3.exceptions.HTTPError:
        return 0
    return int(length) if answer.status == 200 and length.isdigit() else 0


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
