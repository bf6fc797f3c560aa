"""What a model may answer, by a name: its code, and what decoded answers are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def answers() -> dict[str, Any]:
    """Give answers of every kind that has a form as tensors."""
    frame = pd.DataFrame(
        {
            "double": [1.5, np.nan],
            "long": [2**53 + 1, -7],
            "truth": [True, False],
            "text": pd.Series(["a", "ü"], dtype=object),
            "gap": pd.Series(["a", None], dtype=object),
            "many": [[1, 2], [3]],
            "object": [{"a": 1.5}, {"a": None}],
        }
    )
    missing = pd.DataFrame(
        {
            "long": pd.array([7, None], dtype="Int64"),
            "truth": pd.array([None, True], dtype="boolean"),
        }
    )
    return {
        "doubles": np.array([1.5, np.nan]),
        "matrix": np.array([[1, 2, 3], [4, 5, 6]], dtype="float32"),
        "integers": np.array([1, 2], dtype="int32"),
        "cube": np.arange(4, dtype="uint8").reshape(2, 1, 2),
        "largest": np.array([2**64 - 1, 0], dtype="uint64"),
        "halves": np.array([0.5, -2], dtype="float16"),
        "truths": np.array([True, False]),
        "scalar": 7,
        "list": [1, 2.5],
        "texts": ["a", "ü"],
        "text matrix": np.array([["a", "bc"], ["ü", ""]]),
        "raw": [b"\xff\x00", b"a"],
        "raw column": pd.DataFrame({"raw": [b"\xff\x00", b"a"]}),
        "moments": pd.DataFrame(
            {"at": pd.to_datetime(["2024-05-06 07:08:09", "2024-05-07 00:00:01"])}
        ),
        "late": pd.DataFrame({"at": pd.to_datetime(["2024-05-06T07:08:09", None])}),
        "frame": frame,
        "missing": missing,
        "gap in bytes": pd.DataFrame({"raw": pd.Series([b"\xff", None], dtype=object)}),
        "named": {"a": np.array([[1.0, 2.0]]), "b": ["x"]},
    }
