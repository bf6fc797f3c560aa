"""The service under test: its address, its token, and what it answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.http import HttpAnswer, ask

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import GoldenRequest

# An answer to one golden request; more is a service gone wrong.
LARGEST_ANSWER = 64 * 2**20
TOKEN_VARIABLE = "KFP_BENTO_API_TOKEN"  # noqa: S105 - a name
_LARGEST_TOKENS = 64 * 2**10


def service_root(url: str) -> str:
    """Give the root URL of a service without a slash at its end.

    Raises:
        CheckError: There is none, since the release was only rendered, or it is no http URL.
    """
    if not url:
        raise CheckError(
            "There is nothing to check: the release was only rendered and has no URL.",
            hint="Deploy it with mode 'apply' or 'local', or give the URL of a running service.",
        )
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise CheckError(
            f"{url!r} is no address of a service.", hint="Write http://HOST:PORT, without a query."
        )
    return url.rstrip("/")


def send(root: str, request: GoldenRequest, seconds: float) -> HttpAnswer:
    """Send a request, with the service's token where this step has one; see `ask`."""
    token, content = service_token(), request.content
    headers = dict(request.headers)
    if content is not None and content.media_type:
        headers["Content-Type"] = content.media_type
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return ask(
        request.method,
        f"{root}{request.path}",
        seconds=seconds,
        largest=LARGEST_ANSWER,
        body=None if content is None else content.to_bytes(),
        headers=headers,
    )


def service_token() -> str:
    """Give the token that a service asks for, "" where this step has none.

    It is the first word of `KFP_BENTO_API_TOKEN`, or of the file that `KFP_BENTO_API_TOKEN_FILE`
    names, as the service itself reads them.

    Raises:
        CheckError: A variable is set, but gives no token that can be sent.
    """
    text = os.environ.get(TOKEN_VARIABLE)
    file = os.environ.get(f"{TOKEN_VARIABLE}_FILE")
    if text is None and file is None:
        return ""
    source = TOKEN_VARIABLE if text is not None else f"{TOKEN_VARIABLE}_FILE"
    try:
        if text is None:
            text = read_small_file(Path(file or ""), _LARGEST_TOKENS).decode("ascii")
        token = text.split()[0]
        usable = token.isascii() and token.isprintable()
    except (OSError, ValueError, IndexError):
        usable = False
    if not usable:
        raise CheckError(
            f"{source} is set, but holds no token that could be sent to the service.",
            hint="Give the step the Secret that the service has, or neither of them any.",
        )
    return token
