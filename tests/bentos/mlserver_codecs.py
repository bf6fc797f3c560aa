"""MLServer's own codecs, in an environment of its own: what it sends, and what it reads.

`python mlserver_codecs.py` writes requests by name; with answers by name on standard input it
writes what it decodes otherwise than the model answered.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from answer_kinds import answers
from mlserver.codecs import (
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
)
from mlserver.codecs.base import find_input_codec
from mlserver.codecs.json import encode_to_json_bytes
from mlserver.types import InferenceRequest, InferenceResponse, Parameters

READ_OTHERWISE = {
    "scalar": np.array([7]),
    "list": np.array([1, 2.5]),
    "missing": pd.DataFrame({"long": [7.0, np.nan], "truth": pd.Series([None, True])}),
    "gap in bytes": pd.DataFrame({"raw": pd.Series(["/w==", None], dtype=object)}),
}
"""Answers that have no form of their own as tensors, and what is read instead."""
MOMENTS = [datetime(2024, 5, 6, 7, 8, 9), datetime(2024, 5, 6, 7, 8, 10, 500)]


def of(*inputs: Any, content: str = "") -> InferenceRequest:
    return InferenceRequest(
        inputs=list(inputs), parameters=Parameters(content_type=content) if content else None
    )


def requests() -> dict[str, InferenceRequest]:
    """Give a request of each codec, for the models of the test."""
    frame = pd.DataFrame(
        {
            "a b": [1.5, np.nan],
            "n": [7, 2**53 + 1],
            "s": pd.Series(["x", "ü"], dtype=object),
            "b": [True, False],
            "many": [[1, 2], [3]],
        }
    )
    whole = PandasCodec.encode_request(frame)
    more = [
        Base64Codec.encode_input("bin", [b"\xff\x00", b"hi"]),
        DatetimeCodec.encode_input("at", MOMENTS),
    ]
    each = [
        NumpyCodec.encode_input("a b", np.array([1.5, np.nan])),
        NumpyCodec.encode_input("n", np.array([7, 2**53 + 1])),
        StringCodec.encode_input("s", ["x", "ü"]),
        NumpyCodec.encode_input("b", np.array([True, False])),
    ]
    pair = np.array([[1.5, 2], [np.nan, 4]], dtype="float32")
    return {
        "frame": whole,
        "frame and more": of(*whole.inputs, *more, content="pd"),
        "each": of(*each, *more),
        "one column": NumpyRequestCodec.encode_request(np.array([[1.5], [2]])),
        "one column, flat": NumpyRequestCodec.encode_request(np.array([1.5, 2])),
        "columns at once": NumpyRequestCodec.encode_request(np.array([[1.5, 2], [3, 4]])),
        "matrix": NumpyRequestCodec.encode_request(pair),
        "vector": NumpyRequestCodec.encode_request(np.array([1, 2], dtype="int16")),
        "texts": StringRequestCodec.encode_request(["a", "ü"]),
        "named": of(
            NumpyCodec.encode_input("pair", pair),
            NumpyCodec.encode_input("text", np.array(["a", "ü"])),
            Base64Codec.encode_input("raw", [b"\xff\x00", b"hi"]),
        ),
        "raw array": of(NumpyCodec.encode_input("raw", np.array([b"ab", b"hi"]))),
    }


def decoded(answer: dict[str, Any], right: Any) -> Any:
    """Decode an answer with the codec that a client takes for its type."""
    response = InferenceResponse.model_validate(answer)
    if isinstance(right, pd.DataFrame):
        frame = PandasCodec.decode_response(response)  # bytes and datetimes are left as texts
        typed = {
            name: pd.Series(value, dtype=object)
            for name, value in by_content_type(response).items()
            if isinstance(value, list)
        }
        return frame.assign(**typed)
    if isinstance(right, dict):
        return by_content_type(response)
    kind = type(right[0]) if isinstance(right, list) else None
    if kind is bytes:
        return Base64Codec.decode_output(response.outputs[0])
    return (StringRequestCodec if kind is str else NumpyRequestCodec).decode_response(response)


def by_content_type(response: InferenceResponse) -> dict[str, Any]:
    """Decode the outputs for whose content type there is a codec."""
    codecs = {one.name: find_input_codec(one.parameters.content_type) for one in response.outputs}
    return {
        one.name: codecs[one.name].decode_output(one)
        for one in response.outputs
        if codecs[one.name] is not None
    }


def plain(value: Any) -> Any:
    """Give values that can be compared; what is missing is missing, however it is written."""
    if isinstance(value, pd.DataFrame):
        return {str(name): plain(list(value[name])) for name in value.columns}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        dtype = "text" if value.dtype.kind == "U" else str(value.dtype)
        column = value.ndim == 2 and value.shape[1] == 1
        return dtype, plain(value[:, 0].tolist() if column else value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, (datetime, pd.Timestamp)):
        return pd.Timestamp(value).isoformat()
    return value.item() if isinstance(value, np.generic) else value


def differences(given: dict[str, Any]) -> dict[str, Any]:
    """Give what MLServer reads and what the model said, where these are not the same."""
    found = {}
    for name, right in answers().items():
        try:
            read = plain(decoded(given[name], right))
        except Exception as error:
            read = f"{type(error).__name__}: {error}"
        told = plain(READ_OTHERWISE.get(name, right))
        if repr(read) != repr(told):
            found[name] = [repr(read), repr(told)]
    return found


def main() -> None:
    if sys.argv[1:] == ["read"]:
        print(json.dumps(differences(json.load(sys.stdin))))
        return
    bodies = {
        name: encode_to_json_bytes(one.model_dump(exclude_none=True)).decode()
        for name, one in requests().items()
    }
    print(json.dumps(bodies))


if __name__ == "__main__":
    main()
