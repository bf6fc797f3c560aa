"""What of a request or an answer may be written down: its values, but for the redacted fields.

This file lies beside the service in every bento that kfp-bento generates. A field is a name: that
of a column, a tensor, a parameter, or a key at any depth. Its value is replaced in all forms in
which it may come: records, columns, MLflow's `dataframe_split`, tables in CSV, tensors of the Open
Inference Protocol, and JSON in a text. Where inputs have names, values that come without one are
replaced as well, since nobody can tell whose they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from typing import Any

REDACTED = "[redacted]"
WITH_ROWS = ("inputs", "instances", "dataframe_records")


class Redaction:
    """Replaces the values of some fields."""

    def __init__(self, fields: Collection[str], known: Collection[str] = ()) -> None:
        """Replaces nothing where no field is named.

        Args:
            fields: Names of the fields.
            known: Names of the models' inputs; none where they have none.
        """
        self._fields, self._known = frozenset(fields), frozenset(known)

    @property
    def is_empty(self) -> bool:
        """Whether everything stays."""
        return not self._fields

    def request(self, body: Any, of_tensors: bool) -> Any:
        """Gives the body of a request as it may be written down.

        Args:
            body: JSON values.
            of_tensors: Whether it is one of the Open Inference Protocol.
        """
        if self.is_empty:
            return body
        if self._known and isinstance(body, dict):
            nameless = self._nameless_tensor if of_tensors else self._nameless_row
            body = {
                key: nameless(value) if key in WITH_ROWS else value for key, value in body.items()
            }
        return self.answer(body)

    def answer(self, value: Any) -> Any:
        """Gives an answer, or a part of anything, as it may be written down."""
        if self.is_empty:
            return value
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            return [self.answer(item) for item in value]
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            return self._text(value)
        return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        found = {
            key: REDACTED if key in self._fields else self.answer(item)
            for key, item in value.items()
        }
        if "data" in self._fields or "data" not in value:
            return found
        if "columns" in value:
            found["data"] = self._rows(value["columns"], value["data"])
            if self._known and "index" in value:
                found["index"] = REDACTED
        elif str(value.get("name")) in self._fields:
            found["data"] = REDACTED
        return found

    def _rows(self, columns: Any, data: Any) -> Any:
        """Gives rows below their columns; nothing of what is not surely below which."""
        if not isinstance(columns, list) or not isinstance(data, list):
            return REDACTED
        shown = [str(name) not in self._fields for name in columns]
        return [
            [self.answer(item) if one else REDACTED for item, one in zip(row, shown, strict=True)]
            if isinstance(row, list) and len(row) == len(shown)
            else REDACTED
            for row in data
        ]

    def _text(self, text: str) -> str:
        """Gives a text that may be JSON, written anew: a key may be in it twice."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return json.dumps(self.answer(value))

    def _nameless_row(self, rows: Any) -> Any:
        if isinstance(rows, dict):
            return rows
        if isinstance(rows, list):
            return [row if isinstance(row, dict) else REDACTED for row in rows]
        return REDACTED

    def _nameless_tensor(self, tensors: Any) -> Any:
        if not isinstance(tensors, list):
            return REDACTED
        return [
            tensor
            if isinstance(tensor, dict) and tensor.get("name") in self._known
            else {"data": REDACTED}
            for tensor in tensors
        ]


def read_table(raw: bytes) -> dict[str, Any]:
    """Gives CSV in the form of MLflow's `dataframe_split`, its columns those that pandas sees.

    Raises:
        ValueError: It is no CSV, or a row has not as many values as there are columns: pandas
            takes the first for an index then, and moves the others.
    """
    try:
        lines = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        columns, *data = [line for line in lines if line]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if any(len(row) != len(columns) for row in data):
        raise ValueError("rows of other lengths than the header")
    return {"columns": columns, "data": data}


def read_plain(raw: bytes) -> Any:
    """Gives JSON values; what is no number in JSON is null.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(raw.decode(), parse_constant=_none)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _none(_: str) -> None:
    return None
