"""Files of requests, wherever they are, with the files that they name beside them."""

from __future__ import annotations

import base64
import mimetypes
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import (
    parse_json_value,
    parse_yaml,
    read_small_file,
    reading,
    scratch_inside,
)
from kfp_bento.runtime.proof.content import Content
from kfp_bento.runtime.storage import local_path, open_place

LARGEST_REQUESTS = 64 << 20
"""Bytes of a file of requests, and of all that it names."""

HOW = (
    "Give a list of objects with path, and body (JSON), text, multipart or base64 with media_type, "
    "or file; method, headers, label, expect (model or service), answer and compare as need be."
)
_BESIDE = "Name files beside the file of requests, such as `file: pictures/cat.png`."
# Not what this machine knows: the same file has the same media type everywhere.
_TYPES = mimetypes.MimeTypes(filenames=())


def given_requests(requests: Sequence[object]) -> list[Any]:
    """Give requests, those of files that are named among them as well.

    Args:
        requests: Requests, and paths or addresses of files with a list of them.

    Raises:
        InvalidInput: A file cannot be read, holds no list, or names what is not beside it.
        StorageError: The same, of an object in a bucket or on the web.
    """
    found: list[Any] = []
    for one in requests:
        found += read_requests(one) if isinstance(one, str) else [one]
    return found


def read_requests(address: str | Path) -> list[Any]:
    """Read a file of requests: a list in JSON or YAML, at a path or an address.

    Files that it names (`file:`, of a request or of a part of multipart) are brought in, as text,
    JSON or base64; they lie in its folder or below.

    Raises:
        InvalidInput: It cannot be read, holds no list, or names what is not beside it.
        StorageError: The same, of an object in a bucket or on the web.
    """
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-requests-") as scratch:
        source = _Source(str(address), scratch)
        text = source.read()
        with reading(f"The requests in {source.shown} cannot be read", InvalidInput, hint=HOW):
            is_json = source.shown.lower().endswith(".json")
            found = parse_json_value(text) if is_json else parse_yaml(text)
            if not isinstance(found, list):
                raise ValueError("it holds no list")
        return [_whole(one, source) for one in found]


class _Source:
    """A file of requests and what lies beside it, read within limits.

    Args:
        address: The file's path or address.
        scratch: A directory of ours.
    """

    def __init__(self, address: str, scratch: Path) -> None:
        self._address, self._scratch = address, scratch
        self._left = LARGEST_REQUESTS
        path = local_path(address)
        self._root = path.parent.resolve() if path else None
        self.shown = str(path) if path else address.partition("?")[0]

    def read(self) -> bytes:
        """Give the file of requests itself."""
        path = local_path(self._address)
        return self._content(path or self._fetched(self._address), self.shown)

    def beside(self, name: str) -> bytes:
        """Give a file in its folder, or below.

        Raises:
            InvalidInput: There is none, or it would lead out.
        """
        if any(part in ("", ".", "..") for part in name.split("/")) or "?" in name:
            raise InvalidInput(f"{self.shown} names {name}, which is not beside it.", hint=_BESIDE)
        if self._root is None:
            folder, signed = self._address.rpartition("/")[0], urlsplit(self._address).query
            if signed and self._address.startswith("http"):
                raise InvalidInput(
                    f"{self.shown} names {name}, and its address is signed for itself alone.",
                    hint="Put the content into the requests, as base64, or use a bucket.",
                )
            return self._content(self._fetched(f"{folder}/{name}"), name)
        file = (self._root / name).resolve()
        if not file.is_relative_to(self._root):
            raise InvalidInput(f"{self.shown} names {name}, which is not beside it.", hint=_BESIDE)
        return self._content(file, name)

    def _content(self, file: Path, name: str) -> bytes:
        with reading(f"{name} cannot be read as requests", InvalidInput, hint=_BESIDE):
            content = read_small_file(file, self._left)
        self._left -= len(content)
        return content

    def _fetched(self, address: str) -> Path:
        place = open_place(address)
        if place.stat().size > self._left:
            raise InvalidInput(
                f"{self.shown} and what it names are larger than {LARGEST_REQUESTS} bytes.",
                hint="A few requests prove as much as many.",
            )
        file = self._scratch / "fetched"
        place.read(file)
        return file


def _whole(request: Any, source: _Source) -> Any:
    """Give a request with the files that it names."""
    if not isinstance(request, Mapping):
        return request
    facts = _with_content(request, source) if "file" in request else dict(request)
    fields = facts.get("multipart")
    if isinstance(fields, Mapping):
        facts["multipart"] = {
            name: [_whole_part(one, source) for one in (part if isinstance(part, list) else [part])]
            for name, part in fields.items()
        }
    return facts


def _whole_part(part: Any, source: _Source) -> Any:
    if not isinstance(part, Mapping) or "file" not in part:
        return part
    named = {"filename": str(part["file"]).rpartition("/")[2]}
    return named | _with_content(part, source, as_bytes=True)


def _with_content(
    facts: Mapping[str, Any], source: _Source, *, as_bytes: bool = False
) -> dict[str, Any]:
    """Give facts with the content of a file in its place."""
    name = str(facts["file"])
    others = {key: value for key, value in facts.items() if key != "file"}
    guessed = _TYPES.guess_type(name)[0] or "application/octet-stream"
    media_type = str(others.get("media_type", guessed))
    content = source.beside(name)
    if as_bytes:
        body = {"base64": base64.b64encode(content).decode(), "media_type": media_type}
    else:
        body = Content.of(content, media_type).to_dict()
    return {**others, **body}
