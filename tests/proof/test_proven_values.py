"""Models with values that JSON has no types for are proven whole, by examples of MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import Schema, TensorSpec
from small_models import requirements

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.proof import golden_answers
from kfp_bento.runtime.proof.golden import MODEL

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import mlflow, numpy as np, pandas as pd

class Model(mlflow.pyfunc.{base}):
    def predict(self, {arguments}):
{body}

mlflow.models.set_model(Model())
"""


def source(body: str, base: str = "PythonModel", arguments: str = "context, data") -> str:
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return HEAD.format(base=base, arguments=arguments, body=lines)


MOMENTS = pd.DataFrame(
    {
        "at": pd.to_datetime(["2024-01-01T10:00:00.123456789", None]).astype("datetime64[ns]"),
        "photo": [b"\xff\x00", b"\xfe"],
    }
)
TABLE = source(
    'late = data["at"] + pd.Timedelta("1ns")\n'
    'return pd.DataFrame({"late": late, "first": [p[:1] for p in data["photo"]]})'
)
DAYS = {"day": np.array(["2024-05-06", "2024-05-08"], dtype="datetime64[D]")}
LENGTHS = source('return data["day"] - np.datetime64("2024-05-06")')
NUMBERS = {"x": np.array([0.5, 2.0])}
MISSING = source('return {"x": np.where(data["x"] < 1, np.inf, np.nan), "raw": [b"\\xff", b""]}')
CHAT = source(
    "from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage\n"
    'content = f"{messages[0].content} {params.temperature}"\n'
    'message = ChatMessage(role="assistant", content=content)\n'
    "choices = [ChatChoice(index=0, message=message)]\n"
    'return ChatCompletionResponse(choices=choices, created=1, id="x", model="m")',
    "ChatModel",
    "context, messages, params",
)
DAY_SIGNATURE = ModelSignature(Schema([TensorSpec(np.dtype("datetime64[D]"), (-1,), "day")]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "options", "answer"),
    [
        (
            TABLE,
            {"signature": infer_signature(MOMENTS), "input_example": MOMENTS},
            [
                {"late": "2024-01-01T10:00:00.123456790", "first": "/w=="},
                {"late": None, "first": "/g=="},
            ],
        ),
        (LENGTHS, {"signature": DAY_SIGNATURE, "input_example": DAYS}, [0.0, 172800.0]),
        (
            MISSING,
            {"signature": infer_signature(NUMBERS), "input_example": NUMBERS},
            {"x": [None, None], "raw": ["/w==", ""]},
        ),
        (CHAT, {}, None),
    ],
    ids=["columns", "days", "missing", "ChatModel"],
)
def test_a_bento_answers_what_its_model_does_whatever_the_types(
    code: str, options: dict[str, Any], answer: Any, tmp_path: Path
) -> None:
    (tmp_path / "code.py").write_text(code)
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(tmp_path / "code.py"),
        pip_requirements=requirements(),
        **options,
    )
    model = load_model(tmp_path / "model")
    golden = golden_answers(build_bento([model], tmp_path / "bento"), [model])
    answers = [one.answer for one in golden.requests]
    assert {one and (one.status, one.source) for one in answers} == {(200, MODEL)}
    whole = answers[0] and answers[0].content.value
    if answer is None:
        assert whole["choices"][0]["message"]["content"] == "Hello! 1.0"
    else:
        assert whole == answer
