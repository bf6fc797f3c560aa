"""What a request carries and an answer brings, of any media type, as JSON values."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.files import parse_json_value
from kfp_bento.runtime.proof.multipart import encoded, media_type_of, read_parts

JSON = "application/json"
FORMS = ("json", "text", "base64", "multipart")
_TEXTUAL = ("text/", "application/xml", "application/yaml", "application/x-ndjson")


@dataclass(frozen=True)
class Content:
    """The body of a request or an answer.

    Attributes:
        media_type: Without parameters but the boundary of multipart; "" where none was named.
        form: How `value` stands for the bytes: one of `FORMS`.
        value: A JSON value, a text, base64, or what `read_parts` gives.
    """

    media_type: str
    form: str
    value: Any

    @classmethod
    def of(cls, body: bytes, media_type: str) -> Content:
        """Read the body of an answer; what is not what its media type says is kept as bytes."""
        kind = media_type.lower()
        try:
            if kind == JSON or kind.endswith("+json"):
                return cls(media_type, "json", without_nan(parse_json_value(body, nan=True)))
            if kind.startswith(_TEXTUAL):
                return cls(media_type, "text", body.decode())
        except ValueError:
            pass
        return cls(media_type, "base64", base64.b64encode(body).decode("ascii"))

    @classmethod
    def json(cls, value: Any) -> Content:
        """Give a JSON body."""
        return cls(JSON, "json", value)

    def to_bytes(self) -> bytes:
        """Give the body as it is sent."""
        if self.form == "json":
            return json.dumps(self.value, allow_nan=False).encode()
        if self.form == "text":
            return str(self.value).encode()
        if self.form == "multipart":
            return encoded(self.value)
        return base64.b64decode(self.value)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {"media_type": self.media_type, self.form: self.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Content:
        """Read what `to_dict` gave, or what a user wrote.

        Raises:
            ValueError: It is no such thing; the field is named.
        """
        forms = [form for form in FORMS if form in data]
        if len(forms) != 1:
            raise ValueError(f"a body is one of {', '.join(FORMS)}")
        value, media_type = data[forms[0]], data.get("media_type", JSON if "json" in data else "")
        if not isinstance(media_type, str) or not media_type.isprintable():
            raise ValueError("media_type is no text")
        if forms[0] == "multipart":
            parts = read_parts(value)
            return cls(media_type_of(parts), "multipart", parts)
        if forms[0] != "json" and not isinstance(value, str):
            raise ValueError(f"{forms[0]} is no text")
        if forms[0] == "base64":
            try:
                base64.b64decode(value, validate=True)
            except binascii.Error:
                raise ValueError("base64 is none") from None
        return cls(media_type, forms[0], without_nan(value) if forms[0] == "json" else value)


def without_nan(value: Any) -> Any:
    """Give JSON values with null for what JSON has no number for, as services answer it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return value
