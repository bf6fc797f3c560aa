"""One request as it came over the wire, in the form in which golden requests are written."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.policy import HTTP
from typing import Any

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.proof import Content

LARGEST_BODY = 32 << 20

_NAME = re.compile(r"[^A-Za-z0-9._-]+")
# Not what this machine knows: the same recording is the same everywhere.
_TYPES = mimetypes.MimeTypes(filenames=())


@dataclass(frozen=True)
class KeptFile:
    """A file beside the requests; `name` is relative to them."""

    name: str
    content: bytes


@dataclass(frozen=True)
class _Part:
    name: str
    filename: str
    media_type: str
    content: bytes


def recorded_request(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
    folder: str,
    number: int,
) -> tuple[dict[str, Any], list[KeptFile]]:
    """Give a request as it is written down, and the files that it names.

    Args:
        method: HTTP method.
        path: With the query.
        headers: What came with it; the content type counts.
        body: None for none.
        folder: Where files go, with a slash at its end.
        number: How many requests there were before: part of the names of files.
    """
    usual = "GET" if body is None else "POST"
    request: dict[str, Any] = {"path": path} | ({} if method == usual else {"method": method})
    if body is None:
        return request, []
    kind = _content_type(headers)
    media_type = kind.get_content_type() if kind["Content-Type"] else ""
    boundary = kind.get_boundary() or ""
    if media_type == "multipart/form-data" and boundary:
        fields, files = _fields(body, boundary, f"{folder}{number}-")
        return {**request, "multipart": fields}, files
    content = Content.of(body, media_type)
    if content.form == "json":
        return {**request, "body": content.value}, []
    if content.form == "text":
        return {**request, "text": content.value, "media_type": media_type}, []
    kept = KeptFile(f"{folder}{number}-body{_TYPES.guess_extension(media_type) or '.bin'}", body)
    named = {"media_type": media_type} if media_type else {}
    return {**request, "file": kept.name, **named}, [kept]


def _fields(body: bytes, boundary: str, prefix: str) -> tuple[dict[str, Any], list[KeptFile]]:
    """Give the fields of a form (RFC 7578): plain ones as text, others as files beside."""
    fields: dict[str, list[Any]] = {}
    files = []
    for number, part in enumerate(_parts(body, boundary)):
        text = None if part.filename else _plain(part)
        if text is not None:
            fields.setdefault(part.name, []).append(text)
            continue
        safe = _NAME.sub("-", part.filename).strip("-.")[-80:] or "file"
        kept = KeptFile(f"{prefix}{number}-{safe}", part.content)
        files.append(kept)
        named = {"filename": part.filename} if part.filename else {}
        fact = {"file": kept.name, **named, "media_type": part.media_type}
        fields.setdefault(part.name, []).append(fact)
    return {name: one[0] if len(one) == 1 else one for name, one in fields.items()}, files


def _plain(part: _Part) -> str | dict[str, str] | None:
    """Give a field without a file as text; None where it is none."""
    try:
        text = part.content.decode()
    except ValueError:
        return None
    if part.media_type in ("", "text/plain"):
        return text
    return {"text": text, "media_type": part.media_type}


def _parts(body: bytes, boundary: str) -> Iterator[_Part]:
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return
        head, blank, content = piece.partition(b"\r\n\r\n")
        headers = BytesHeaderParser(policy=HTTP).parsebytes(head.lstrip(b"\r\n") + b"\r\n\r\n")
        said = headers["Content-Disposition"]
        name = str(said.params.get("name", "")) if said is not None else ""
        if not blank or not name:
            raise InvalidInput("A form came that is none (RFC 7578).", hint="Send it anew.")
        media_type = headers.get_content_type() if headers["Content-Type"] else ""
        filename = str(said.params.get("filename", ""))
        yield _Part(name, filename, media_type, content)


def _content_type(headers: Mapping[str, str]) -> Any:
    found = next((text for name, text in headers.items() if name.lower() == "content-type"), "")
    line = f"Content-Type: {found}\r\n" if found else ""
    return BytesHeaderParser(policy=HTTP).parsebytes(f"{line}\r\n".encode("latin-1", "replace"))
