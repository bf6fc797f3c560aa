"""The OpenAPI of the protocols that a generated service speaks besides its own JSON.

This file lies beside the service in every bento that kfp-bento generates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bentoml._internal.service.openapi.specification import PathItem

_ANY: dict[str, Any] = {}
_TEXT = {"type": "string"}
_OBJECT: dict[str, Any] = {"type": "object"}
_LIST: dict[str, Any] = {"type": "array", "items": {}}

_DATATYPES = [
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES"),
]

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": _TEXT,
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": _DATATYPES},
        "parameters": _OBJECT,
        "data": _LIST,
    },
}

_INFERENCE = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": _TEXT,
        "parameters": _OBJECT,
        "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
        },
    },
}

_INFERRED = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        **{"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "parameters": _OBJECT},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}

_BINARY = {
    "application/octet-stream": {
        "schema": {
            **{"type": "string", "format": "binary"},
            "description": "JSON, and behind it tensors: the binary tensor data extension.",
        }
    }
}

_SPLIT = {
    "type": "object",
    "required": ["columns", "data"],
    "properties": {"columns": _LIST, "index": _LIST, "data": {"type": "array", "items": _LIST}},
}

_INVOCATION = {
    "type": "object",
    "description": "One of dataframe_split, dataframe_records, instances and inputs; and params.",
    "properties": {
        "dataframe_split": _SPLIT,
        "dataframe_records": {"type": "array", "items": _OBJECT},
        **{"instances": _LIST, "inputs": _ANY, "params": _OBJECT},
    },
}

_V1 = {
    "type": "object",
    "description": "Either instances or inputs.",
    "properties": {"instances": _LIST, "inputs": _ANY, "parameters": _OBJECT},
}

_PREDICTIONS = {"type": "object", "properties": {"predictions": _ANY}}


def described(spec: Any, served: Sequence[Any], protocols: Sequence[str]) -> Any:
    """Adds to BentoML's OpenAPI what else is spoken.

    Args:
        spec: BentoML's specification.
        served: The models.
        protocols: The protocols.
    """
    if "mlflow" in protocols and len({model.digest for model in served}) == 1:
        spec.paths.update(_mlflow())
    for protocol, paths in (("v2", _open_inference), ("v1", _v1)):
        if protocol in protocols:
            spec.paths.update(paths(served))
    return spec


def _mlflow() -> dict[str, PathItem]:
    csv = {"text/csv": {"schema": {"type": "string"}}}
    asked = "The predictions, as `mlflow models serve` gives them."
    return {
        "/ping": _get("MLflow", "Whether the service is alive."),
        "/health": _get("MLflow", "Whether the service is alive."),
        "/version": _get("MLflow", "The version of MLflow.", "text/plain"),
        "/invocations": _post("MLflow", asked, _INVOCATION, _PREDICTIONS, csv),
    }


def _open_inference(served: Sequence[Any]) -> dict[str, PathItem]:
    tag = "Open Inference Protocol"
    paths = {
        "/v2": _get(tag, "Name, version and extensions of the server."),
        "/v2/health/live": _get(tag, "Whether the server is alive."),
        "/v2/health/ready": _get(tag, "Whether the server is ready."),
    }
    for model in served:
        for path in (
            f"/v2/models/{model.name}",
            f"/v2/models/{model.name}/versions/{model.version}",
        ):
            paths[path] = _get(tag, "The model's inputs, outputs, version, digest and signature.")
            paths[f"{path}/ready"] = _get(tag, "Whether the model is ready.")
            asked = "The answer as tensors, in the content types of MLServer."
            paths[f"{path}/infer"] = _post(tag, asked, _INFERENCE, _INFERRED, _BINARY)
    return paths


def _v1(served: Sequence[Any]) -> dict[str, PathItem]:
    tag = "KServe V1"
    paths = {"/v1/models": _get(tag, "The names of the models.")}
    for model in served:
        paths[f"/v1/models/{model.name}"] = _get(tag, "Whether the model is ready.")
        asked = _post(tag, "The predictions.", _V1, _PREDICTIONS)
        paths[f"/v1/models/{model.name}:predict"] = asked
    return paths


def _get(tag: str, description: str, media: str = "application/json") -> PathItem:
    return PathItem(
        get={"tags": [tag], "description": description, "responses": _answers({}, media)}
    )


def _post(
    tag: str,
    description: str,
    asked: dict[str, Any],
    told: dict[str, Any],
    others: dict[str, Any] | None = None,
) -> PathItem:
    content = {"application/json": {"schema": asked}, **(others or {})}
    return PathItem(
        post={
            "tags": [tag],
            "description": description,
            "requestBody": {"required": True, "content": content},
            "responses": {
                **_answers(told, "application/json"),
                "400": {"description": "The request does not fit the model."},
                "500": {"description": "The model failed."},
            },
        }
    )


def _answers(schema: dict[str, Any], media: str) -> dict[str, Any]:
    return {"200": {"description": "OK", "content": {media: {"schema": schema}}}}
