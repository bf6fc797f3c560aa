"""Tiny real models, one a flavor, trained and saved by MLflow.

`python tiny_models.py FLAVOR DIRECTORY` runs in an environment that has MLflow and the flavor's own
packages, and nothing of ours.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature

if TYPE_CHECKING:
    from collections.abc import Callable

GENERATOR = np.random.default_rng(7)


def numbers(rows: int = 60) -> tuple[pd.DataFrame, pd.Series]:
    """Give three columns of doubles, and which rows have a large sum."""
    data = pd.DataFrame(GENERATOR.normal(size=(rows, 3)), columns=["width", "height", "weight"])
    return data, (data.sum(axis=1) > 0).astype(int)


def known(path: Path, flavor: Any, model: Any, data: Any, answers: Any, **more: Any) -> None:
    """Save a model with the signature of its data and its first rows as example."""
    flavor.save_model(
        model,
        path,
        signature=infer_signature(data, answers),
        input_example=data[:4],
        **more,
    )


def sklearn(path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    data, kinds = numbers()
    model = LogisticRegression().fit(data, kinds)
    known(path, mlflow.sklearn, model, data, model.predict(data))


def xgboost(path: Path) -> None:
    import xgboost

    data, kinds = numbers()
    model = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(data, kinds)
    known(path, mlflow.xgboost, model, data, model.predict(data))


def lightgbm(path: Path) -> None:
    import lightgbm

    data, kinds = numbers()
    model = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=2, verbose=-1)
    model.fit(data, kinds)
    known(path, mlflow.lightgbm, model, data, model.predict(data))


def catboost(path: Path) -> None:
    import catboost

    data, kinds = numbers()
    data["town"] = np.where(data["width"] > 0, "north", "south")
    with tempfile.TemporaryDirectory() as folder:
        model = catboost.CatBoostClassifier(
            iterations=4, cat_features=["town"], verbose=False, train_dir=folder
        )
        model.fit(data, kinds)
    known(path, mlflow.catboost, model, data, model.predict(data))


def onnx(path: Path) -> None:
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 1], [1.0, 2.0, 3.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = GENERATOR.normal(size=(5, 3)).astype("float32")
    known(path, mlflow.onnx, model, data, {"y": np.zeros((5, 1), dtype="float32")})


def statsmodels(path: Path) -> None:
    from statsmodels.api import OLS

    data, _ = numbers()
    model = OLS(data["width"] * 2 + data["height"], data).fit()
    known(path, mlflow.statsmodels, model, data, model.predict(data))


def spacy(path: Path) -> None:
    import spacy
    from spacy.training import Example

    pipeline = spacy.blank("en")
    kinds = pipeline.add_pipe("textcat")
    kinds.add_label("good")
    kinds.add_label("bad")
    texts = [("fine and good", 1.0), ("awful and bad", 0.0)] * 8
    samples = [
        Example.from_dict(pipeline.make_doc(text), {"cats": {"good": good, "bad": 1 - good}})
        for text, good in texts
    ]
    pipeline.initialize(lambda: samples)
    data = pd.DataFrame({"text": [text for text, _ in texts]})
    answers = pd.DataFrame({"predictions": [pipeline(text).cats for text in data["text"]]})
    known(path, mlflow.spacy, pipeline, data, answers)


def prophet(path: Path) -> None:
    from prophet import Prophet

    days = pd.date_range("2024-01-01", periods=60, freq="D")
    model = Prophet(weekly_seasonality=True, yearly_seasonality=False, uncertainty_samples=0)
    model.fit(pd.DataFrame({"ds": days, "y": np.arange(60) % 7.0}))
    data = pd.DataFrame({"ds": days[:5]})
    known(path, mlflow.prophet, model, data, model.predict(data))


def tensorflow(path: Path) -> None:
    import keras

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    data = GENERATOR.normal(size=(5, 3)).astype("float32")
    known(path, mlflow.tensorflow, model, data, model.predict(data, verbose=0))


def pytorch(path: Path) -> None:
    import torch

    model = torch.nn.Linear(3, 1)
    data = GENERATOR.normal(size=(5, 3)).astype("float32")
    known(path, mlflow.pytorch, model, data, model(torch.from_numpy(data)).detach().numpy())


def _tiny_bert(folder: Path) -> tuple[Any, Any]:
    """Give the configuration and the tokenizer of a language model that fits on a page."""
    from transformers import BertConfig, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "not"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    return config, BertTokenizer(str(vocabulary))


def transformers(path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification, pipeline

    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as folder:
        config, tokenizer = _tiny_bert(Path(folder))
        kinds = pipeline(
            "text-classification", model=BertForSequenceClassification(config), tokenizer=tokenizer
        )
        texts = ["very good", "not good"]
        mlflow.transformers.save_model(
            kinds,
            path,
            signature=infer_signature(texts, pd.DataFrame(kinds(texts))),
            input_example=texts,
        )


def sentence_transformers(path: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertModel

    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as folder:
        config, tokenizer = _tiny_bert(Path(folder))
        BertModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        words = models.Transformer(folder)
        model = SentenceTransformer(
            modules=[words, models.Pooling(words.get_word_embedding_dimension())], device="cpu"
        )
    texts = ["very good", "not good"]
    known(path, mlflow.sentence_transformers, model, texts, model.encode(texts))


def pyfunc_with_code(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "shop_features"
        package.mkdir()
        (package / "__init__.py").write_text(
            "FACTOR = 3\n\ndef scaled(x):\n    return x * FACTOR\n"
        )
        sys.path.insert(0, folder)
        from shop_features import scaled  # type: ignore[import-not-found]

        class Scaling(mlflow.pyfunc.PythonModel):
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return scaled(model_input["x"]) + (params or {}).get("offset", 0.0)

        data = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
        mlflow.pyfunc.save_model(
            path,
            python_model=Scaling(),
            code_paths=[str(package)],
            signature=infer_signature(data, data["x"], params={"offset": 0.5}),
            input_example=data,
        )


FROM_CODE = """
import mlflow


class Doubling(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(context.artifacts["factor"]) as file:
            self.factor = float(file.read())

    def predict(self, context, model_input: list[float]) -> list[float]:
        return [value * self.factor for value in model_input]


mlflow.models.set_model(Doubling())
"""


def models_from_code(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, factor = Path(folder) / "doubling.py", Path(folder) / "factor.txt"
        source.write_text(FROM_CODE)
        factor.write_text("2.0")
        mlflow.pyfunc.save_model(
            path,
            python_model=str(source),
            artifacts={"factor": str(factor)},
            input_example=[1.0, 2.5],
        )


CHAT = """
import mlflow
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage


class Parrot(mlflow.pyfunc.ChatModel):
    def predict(self, context, messages, params):
        text = f"{messages[-1].content} at {params.temperature}"
        return ChatCompletionResponse(
            id="chat-1",
            created=0,
            model="parrot",
            choices=[ChatChoice(index=0, message=ChatMessage(role="assistant", content=text))],
        )


mlflow.models.set_model(Parrot())
"""

AGENT = """
import mlflow
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse


class Parrot(ResponsesAgent):
    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        told = request.input[-1].content
        item = self.create_text_output_item(text=f"You said: {told}", id="msg-1")
        return ResponsesAgentResponse(output=[item])


mlflow.models.set_model(Parrot())
"""


def _from_code(path: Path, code: str, **more: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "parrot.py"
        source.write_text(code)
        mlflow.pyfunc.save_model(path, python_model=str(source), **more)


def chat_model(path: Path) -> None:
    _from_code(path, CHAT, input_example={"messages": [{"role": "user", "content": "hello"}]})


def responses_agent(path: Path) -> None:
    _from_code(path, AGENT, input_example={"input": [{"role": "user", "content": "hello"}]})


FLAVORS: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        *(sklearn, xgboost, lightgbm, catboost, onnx, statsmodels, spacy, prophet),
        *(tensorflow, pytorch, transformers, sentence_transformers),
        *(pyfunc_with_code, models_from_code, chat_model, responses_agent),
    )
}

if __name__ == "__main__":
    FLAVORS[sys.argv[1]](Path(sys.argv[2]))
