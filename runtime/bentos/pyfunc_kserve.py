"""The protocols of KServe: the Open Inference Protocol (V2), and V1.

This file lies beside the service in every bento that kfp-bento generates. A request is turned into
the JSON of the model's own route and read as that, so that all limits and types are the same; where
its tensors are plain columns or arrays they are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio.to_thread
from pyfunc_answers import asked as asked_of  # type: ignore[import-not-found]
from pyfunc_binary import (  # type: ignore[import-not-found]
    EXTENSION,
    LENGTH,
    OCTETS,
    parts_of,
    wanted_in_binary,
)
from pyfunc_body import read_body, read_json  # type: ignore[import-not-found]
from pyfunc_endpoints import (  # type: ignore[import-not-found]
    SMALL,
    Problem,
    Refused,
    Served,
    as_json,
    fixed,
    handled,
)
from pyfunc_lean import Answer, Asked, Handler, Routes, encoded  # type: ignore[import-not-found]
from pyfunc_tensor_columns import read_tensors  # type: ignore[import-not-found]
from pyfunc_tensor_data import Form, outputs_of, tensors_of  # type: ignore[import-not-found]

OWN_PARAMETERS = {
    *("content_type", "headers", "binary_data_output", "binary_data_size", "priority", "timeout"),
    *("sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response"),
}
"""Parameters of a request that are the protocol's; the others are the model's."""


def open_inference_routes(served: Sequence[Served], name: str, version: str) -> Routes:
    """Gives what answers the paths of the Open Inference Protocol.

    Args:
        served: The models.
        name: The name of the service.
        version: Its version.
    """
    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/v2"): fixed({"name": name, "version": version, "extensions": [EXTENSION]}),
        ("GET", "/v2/health/live"): fixed({"live": True}),
        ("GET", "/v2/health/ready"): fixed({"ready": True}),
    }
    for model in served:
        for path in (
            f"/v2/models/{model.name}",
            f"/v2/models/{model.name}/versions/{model.version}",
        ):
            routes["GET", path] = handled(_metadata(model))
            routes["GET", f"{path}/ready"] = fixed({"name": model.name, "ready": True})
            routes["POST", f"{path}/infer"] = handled(_infer(model), _in_a_sentence)
    return routes


def v1_routes(served: Sequence[Served]) -> Routes:
    """Gives what answers the paths of KServe's V1 protocol."""
    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/v1/models"): fixed({"models": [model.name for model in served]})
    }
    for model in served:
        facts = {"name": model.name, "version": model.version, "digest": model.digest}
        routes["GET", f"/v1/models/{model.name}"] = fixed({**facts, "ready": True})
        routes["POST", f"/v1/models/{model.name}:predict"] = handled(_v1(model), _in_a_sentence)
    return routes


def _in_a_sentence(problem: Problem) -> dict[str, Any]:
    return {"error": problem.sentence}


def _metadata(model: Served) -> Handler:
    async def handler(_: Asked) -> Answer:
        metadata = model.model.metadata
        signature = metadata.signature
        told: dict[str, Any] = {
            "name": model.name,
            "versions": [model.version],
            "platform": "mlflow",
            "inputs": Form.of(metadata.get_input_schema()).metadata(),
            "outputs": Form.of(metadata.get_output_schema()).metadata(),
        }
        kind = Form.of(metadata.get_input_schema()).kind
        parameters: dict[str, Any] = {
            "content_type": "pd" if kind == "columns" else "np",
            "digest": model.digest,
            "mlflow_version": metadata.mlflow_version,
            "signature": {} if signature is None else _signature(signature),
        }
        return Answer(await as_json({**told, "parameters": parameters}))

    return handler


def _signature(signature: Any) -> dict[str, Any]:
    """Gives a signature as JSON; MLflow has each side as a text."""
    sides: Mapping[str, Any] = signature.to_dict()
    return {side: json.loads(text) for side, text in sides.items() if text}


# --- Open Inference Protocol ---------------------------------------------------------------------


def _infer(model: Served) -> Handler:
    async def handler(asked: Asked) -> Answer:
        if len(asked.body) <= SMALL:
            request, read = _read(model, asked)
        else:
            request, read = await anyio.to_thread.run_sync(_read, model, asked)
        outputs, content = await model.asked(read, partial(_tensors, wanted_in_binary(request)))
        outputs = _wanted(request, outputs)
        told = {
            "model_name": model.name,
            "model_version": model.version,
            **({"id": request["id"]} if isinstance(request.get("id"), str) else {}),
            "parameters": {"content_type": content},
            "outputs": [output for output, _ in outputs],
        }
        return _answer(await as_json(told), b"".join(blob for _, blob in outputs))

    return handler


def _answer(told: bytes, blobs: bytes) -> Answer:
    if not blobs:
        return Answer(told)
    return Answer(told + blobs, media=OCTETS, headers=((LENGTH, str(len(told)).encode()),))


def _read(model: Served, asked: Asked) -> tuple[dict[str, Any], Any]:
    """Gives a request, and what it asks in the form of the model's own route, checked."""
    raw, blobs = parts_of(asked)
    request = read_json(raw)
    tensors = tensors_of(request, blobs)
    parameters = request.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    params = {name: value for name, value in parameters.items() if name not in OWN_PARAMETERS}
    form = Form.of(model.model.metadata.get_input_schema())
    if len(asked.body) > SMALL or any(tensor.is_array for tensor in tensors):
        read = read_tensors(model.body, form, tensors, params)
        if read is not None:
            return request, read
    listed = [tensor.listed() for tensor in tensors]
    body = {"inputs": form.inputs(listed, str(parameters.get("content_type")))}
    if params:
        body["params"] = params
    return request, read_body(model.body, encoded(body).encode())


Told = tuple[dict[str, Any], bytes]
"""An output: its JSON, and the bytes behind it."""


def _wanted(request: dict[str, Any], outputs: list[Told]) -> list[Told]:
    """Gives the outputs that a request names; all where it names none."""
    asked = request.get("outputs")
    if not asked:
        return outputs
    names = [one.get("name") for one in asked if isinstance(one, dict)]
    found = {output["name"]: (output, blob) for output, blob in outputs}
    if not isinstance(asked, list) or len(names) < len(asked) or set(names) - set(found):
        raise Refused(400, f"outputs: the model has {', '.join(found)[:300]}")
    return [found[name] for name in names]


def _tensors(
    in_binary: Callable[[str], bool], model: Any, data: Any, params: Any
) -> tuple[list[Told], str]:
    """Asks a model and gives its answer as tensors, and the content type of the whole."""
    outputs, content = outputs_of(asked_of(model, data, params))
    return [output.told(in_binary(output.name)) for output in outputs], content


# --- V1 ------------------------------------------------------------------------------------------


def _v1(model: Served) -> Handler:
    async def handler(asked: Asked) -> Answer:
        if len(asked.body) <= SMALL:
            body = _of_v1(model, asked.body)
        else:
            body = await anyio.to_thread.run_sync(_of_v1, model, asked.body)
        found = await model.asked(await model.read(body))
        return Answer(await as_json({"predictions": found}))

    return handler


def _of_v1(model: Served, raw: bytes) -> bytes:
    """Gives the body of the model's own route that asks what a V1 request asks."""
    request = read_json(raw)
    given = [key for key in ("instances", "inputs") if isinstance(request, dict) and key in request]
    if len(given) != 1:
        raise Refused(400, "either 'instances' or 'inputs' is needed")
    inputs = request[given[0]]
    form = Form.of(model.model.metadata.get_input_schema())
    if form.kind == "tensors" and isinstance(inputs, list):
        inputs = _by_name(inputs)
    body = {**request, "inputs": inputs}
    body.pop("instances", None)
    if "parameters" in body:
        body["params"] = body.pop("parameters")
    text: str = encoded(body)
    return text.encode()


def _by_name(rows: list[Any]) -> dict[str, list[Any]]:
    """Gives rows of named tensors as tensors of rows."""
    if not all(isinstance(row, dict) for row in rows):
        raise Refused(400, "instances: each has to be an object with the model's tensors")
    names = sorted(set().union(*rows))
    if any(set(row) != set(names) for row in rows):
        raise Refused(400, "instances: all need the same tensors")
    return {name: [row[name] for row in rows] for name in names}
