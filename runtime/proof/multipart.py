"""Forms with files (RFC 7578): read as people write them, and written as browsers send them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

MOST_PARTS = 1000

Parts = Mapping[str, Sequence[Mapping[str, str]]]

_FORMS = ("text", "json", "base64")
_WORDS = ("filename", "media_type")


def read_parts(value: Any) -> dict[str, list[dict[str, str]]]:
    """Read the fields of a form.

    Args:
        value: By name a text, a number or a truth value; an object with one of text, json or
            base64, and filename and media_type as need be; or a list of these.

    Returns:
        By name, in the order of names, a list of objects with `text` or `base64`, and `filename`
        and `media_type`.

    Raises:
        ValueError: It is no such thing; the field is named.
    """
    if not isinstance(value, Mapping) or not value:
        raise ValueError("multipart is no object with fields")
    found = {
        _line(name, "the name of a field"): [
            _part(one, str(name)) for one in (given if isinstance(given, list) else [given])
        ]
        # Neither KFP nor a sealed record keeps the order of an object's fields.
        for name, given in sorted(value.items(), key=lambda item: str(item[0]))
    }
    if sum(map(len, found.values())) > MOST_PARTS:
        raise ValueError(f"multipart has more than {MOST_PARTS} fields")
    return found


def media_type_of(parts: Parts) -> str:
    """Give the media type, with the boundary."""
    return f"multipart/form-data; boundary={_boundary(parts)}"


def encoded(parts: Parts) -> bytes:
    """Give the body as it is sent: the same parts, the same bytes."""
    fields = [_field(name, part) for name, several in parts.items() for part in several]
    return encode_multipart_formdata(fields, _boundary(parts))[0]


def _boundary(parts: Parts) -> str:
    """Give a boundary that follows from the content, and is not in it."""
    text = json.dumps(parts, sort_keys=True)
    return f"kfp-bento-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _field(name: str, part: Mapping[str, str]) -> RequestField:
    content = part["text"].encode() if "text" in part else base64.b64decode(part["base64"])
    field = RequestField(name, content, part.get("filename"))
    field.make_multipart(content_type=part.get("media_type"))
    return field


def _part(given: Any, name: str) -> dict[str, str]:
    if not isinstance(given, Mapping):
        return {"text": _text(given, name)}
    forms = [form for form in _FORMS if form in given]
    unknown = [str(key) for key in given if key not in (*_FORMS, *_WORDS)]
    if len(forms) != 1 or unknown:
        raise ValueError(
            f"the field {name} is neither a plain value nor an object with one of file, "
            f"{', '.join(_FORMS)}, and {' and '.join(_WORDS)}"
        )
    words = {key: _line(given[key], f"{key} of {name}") for key in _WORDS if key in given}
    if forms[0] == "json":
        content = json.dumps(given["json"], allow_nan=False)
        return {"text": content, "media_type": "application/json", **words}
    content = given[forms[0]]
    if not isinstance(content, str):
        raise ValueError(f"{forms[0]} of the field {name} is no text")
    if forms[0] == "base64":
        try:
            base64.b64decode(content, validate=True)
        except binascii.Error:
            raise ValueError(f"base64 of the field {name} is none") from None
    return {forms[0]: content, **words}


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float):
        raise ValueError(f"the field {name} is no plain value; write {{json: ...}} for others")
    return json.dumps(value, allow_nan=False)


def _line(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"{what} is no line of text")
    return value
