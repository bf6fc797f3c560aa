"""Tensors of the Open Inference Protocol as bytes: its extension for binary tensor data.

This file lies beside the service in every bento that kfp-bento generates. Behind the JSON of a
request or an answer, whose length `Inference-Header-Content-Length` tells, stand the elements of
those tensors that have `binary_data_size` instead of `data`: numbers and booleans little-endian in
row-major order, an element of BYTES behind its length in four bytes. Such an element is the text
that would stand in JSON, so that a content type means the same either way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bentoml
from pyfunc_endpoints import Refused  # type: ignore[import-not-found]
from pyfunc_guard import LIMITS  # type: ignore[import-not-found]
from pyfunc_lean import Asked  # type: ignore[import-not-found]

with bentoml.importing():
    import numpy as np

EXTENSION = "binary_tensor_data"
OCTETS = b"application/octet-stream"
LENGTH = b"inference-header-content-length"
"""The header that tells where the JSON ends."""

DTYPES = {
    **{"BOOL": "bool", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}
_LENGTH_OF = struct.Struct("<I")


class Blobs:
    """The bytes behind the JSON of a request, which its tensors take one after the other."""

    def __init__(self, data: memoryview | bytes = b"") -> None:
        """Takes them all."""
        self._left, self._values = memoryview(data), 0

    def take(self, parameters: Mapping[str, Any], datatype: str, number: int, place: str) -> Any:
        """Gives the elements of a tensor: an array of numbers or booleans, or a list of texts.

        Args:
            parameters: Those of the tensor.
            datatype: The protocol's name of its type.
            number: How many elements its shape has.
            place: Where it stands, for what is told.

        Raises:
            Refused: They are not as many, or none of that type.
        """
        size, place = parameters["binary_data_size"], f"{place}.parameters.binary_data_size"
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Refused(400, f"{place}: a number of bytes is missing")
        if size > len(self._left):
            raise Refused(400, f"{place}: {size} bytes, where {len(self._left)} are left")
        self._values += number
        if self._values > LIMITS.max_values:
            raise Refused(400, f"inputs: more than {LIMITS.max_values} values")
        blob, self._left = self._left[:size], self._left[size:]
        if datatype == "BYTES":
            return _texts(bytes(blob), number, place)
        return _numbers(blob, datatype, number, place)

    def finish(self) -> None:
        """Refuses what no tensor took.

        Raises:
            Refused: There is something.
        """
        if self._left:
            raise Refused(400, f"inputs: {len(self._left)} bytes follow the last tensor")


def parts_of(asked: Asked) -> tuple[bytes, Blobs]:
    """Gives the JSON of a request, and what stands behind it.

    Raises:
        Refused: It does not say where the one ends.
    """
    given = asked.headers.get(LENGTH)
    if given is None:
        if asked.media == OCTETS:
            raise Refused(400, "Inference-Header-Content-Length is missing: where the JSON ends")
        return asked.body, Blobs()
    if not given.isdigit() or len(given) > 15 or int(given) > len(asked.body):
        raise Refused(400, "Inference-Header-Content-Length is no length within the body")
    return asked.body[: int(given)], Blobs(memoryview(asked.body)[int(given) :])


def _numbers(blob: memoryview, datatype: str, number: int, place: str) -> np.ndarray:
    dtype = np.dtype(DTYPES[datatype])
    if len(blob) != number * dtype.itemsize:
        raise Refused(400, f"{place}: {len(blob)} bytes for {number} elements of {datatype}")
    if dtype.kind == "b" and np.any(np.frombuffer(blob, "u1") > 1):
        raise Refused(400, f"{place}: a boolean is neither 0 nor 1")
    return np.frombuffer(blob, dtype)


def _texts(blob: bytes, number: int, place: str) -> list[str]:
    texts, at = list[str](), 0
    try:
        for _ in range(number):
            start = at + _LENGTH_OF.size
            at = start + _LENGTH_OF.unpack_from(blob, at)[0]
            if at > len(blob):
                raise struct.error
            texts.append(blob[start:at].decode())
    except (struct.error, UnicodeDecodeError) as error:
        told = "ends within an element" if isinstance(error, struct.error) else "is not UTF-8"
        raise Refused(400, f"{place}: element {len(texts)} {told}") from None
    if at != len(blob):
        raise Refused(400, f"{place}: {len(blob)} bytes, and its elements have {at}")
    return texts


# --- answers -------------------------------------------------------------------------------------


def wanted_in_binary(request: Mapping[str, Any]) -> Callable[[str], bool]:
    """Gives what says whether a request wants an output as bytes, by its name."""
    parameters, outputs = request.get("parameters"), request.get("outputs")
    all_of_them = _is_true(parameters, "binary_data_output")
    named = {
        str(one.get("name")): _is_true(one.get("parameters"), "binary_data", all_of_them)
        for one in (outputs if isinstance(outputs, list) else ())
        if isinstance(one, dict)
    }
    return lambda name: named.get(name, all_of_them)


def _is_true(parameters: Any, name: str, default: bool = False) -> bool:
    return parameters.get(name, default) is True if isinstance(parameters, dict) else default


def blob_of(datatype: str, values: np.ndarray | Sequence[Any]) -> bytes | None:
    """Gives elements as bytes; None where not all of them have such a form.

    Args:
        datatype: The protocol's name of their type.
        values: An array of numbers or booleans, or a list.
    """
    if isinstance(values, np.ndarray):
        return _finite(values).astype(DTYPES[datatype], order="C", copy=False).tobytes()
    kinds = set(map(type, values))
    if datatype == "BYTES" and kinds <= {str}:
        texts = map(str.encode, values)
        return b"".join(part for text in texts for part in (_LENGTH_OF.pack(len(text)), text))
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        return np.array(values, DTYPES[datatype]).tobytes()
    return None


def _finite(array: np.ndarray) -> np.ndarray:
    """Gives an array where infinity is missing, as it is in JSON."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array
    return np.where(np.isfinite(array), array, array.dtype.type(np.nan))
