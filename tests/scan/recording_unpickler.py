"""Asks pickle itself which names pickles import, and gives it dummies instead of them.

Run as a program: hexadecimal pickles on standard input, one a line; for each one a line of JSON
with what the unpickler in C, the one in Python and joblib's asked for.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from joblib import numpy_pickle

warnings.simplefilter("ignore")


class Dummy:
    """Takes every call, state, item and attribute."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Dummy:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any) -> None: ...

    def __call__(self, *arguments: Any, **keywords: Any) -> Dummy:
        return Dummy()

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def add(self, item: Any) -> None: ...

    def update(self, *items: Any) -> None: ...

    def __hash__(self) -> int:
        return 1


# What joblib's has to be given, or it reads no array at all.
TRUE = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): numpy_pickle.NumpyArrayWrapper,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def asked_of(unpickler: Any, data: bytes, true: Mapping[tuple[str, str], Any]) -> list[list[str]]:
    asked: list[list[str]] = []

    class Recording(unpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            asked.append([module, name])
            return true.get((module, name), Dummy)

        def persistent_load(self, pid: Any) -> Any:
            return Dummy()

    try:
        file = io.BytesIO(data)
        more = ("", file, True) if unpickler is numpy_pickle.NumpyUnpickler else (file,)
        Recording(*more).load()
    except Exception as failure:  # whatever it raises, what it asked for before counts
        _ = failure
    return asked


if __name__ == "__main__":
    # A spoiled pickle may ask for any amount of memory; it shall be refused, not granted.
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    for line in sys.stdin:
        data = bytes.fromhex(line)
        found = [asked_of(kind, data, {}) for kind in (pickle.Unpickler, pickle._Unpickler)]
        found.append(asked_of(numpy_pickle.NumpyUnpickler, data, TRUE))
        print(json.dumps(found), flush=True)
