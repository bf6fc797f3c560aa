"""The real CRDs, where they are at hand, and a walk by them as strict as the API server's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = Path(__file__).resolve().parents[3] / "shared" / "crds"
BENTO, DEPLOYMENT = "resources.yatai.ai_bentoes.yaml", "serving.yatai.ai_bentodeployments.yaml"
REQUEST = "resources.yatai.ai_bentorequests.yaml"
GENERATIONS = {
    "kubeflow-1.7": (
        f"image-builder-v1.1.3/{BENTO}",
        f"image-builder-v1.1.3/{REQUEST}",
        f"deployment-v1.1.4/{DEPLOYMENT}",
    ),
    "kubeflow-1.9": (
        f"image-builder-v1.2.28/{BENTO}",
        f"image-builder-v1.2.28/{REQUEST}",
        DEPLOYMENT,
    ),
    "newest": (BENTO, REQUEST, DEPLOYMENT),
}
OTHERS = (
    "kserve/serving.kserve.io_inferenceservices.yaml",
    "gateway-api/gateway.networking.k8s.io_httproutes.yaml",
)
needs_crds = pytest.mark.skipif(
    not (CRDS / BENTO).is_file(), reason="the CRDs are not in ../shared/crds; own check only"
)

_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


@cache
def served_schemas(generation: str) -> dict[tuple[str, str], Any]:
    return {
        kind: schema for path in GENERATIONS[generation] for kind, schema in _schemas(path).items()
    }


@cache
def other_schemas() -> dict[tuple[str, str], Any]:
    return {kind: schema for path in OTHERS for kind, schema in _schemas(path).items()}


@cache
def _schemas(path: str) -> dict[tuple[str, str], Any]:
    crd = yaml.load((CRDS / path).read_text(), Loader=yaml.CSafeLoader)["spec"]
    return {
        (f"{crd['group']}/{version['name']}", crd["names"]["kind"]): version["schema"][
            "openAPIV3Schema"
        ]
        for version in crd["versions"]
    }


def schema_problems(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Walk a value by a structural schema, refusing what the API server would prune."""
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: {value!r} is neither integer nor string"
        elif "pattern" in schema and not re.match(schema["pattern"], str(value)):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        return
    wanted = schema["type"]
    number = wanted in ("integer", "number")
    if not isinstance(value, _TYPES[wanted]) or (number and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {wanted}"
    elif wanted == "array":
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: more than {schema['maxItems']} items"
        for index, item in enumerate(value):
            yield from schema_problems(item, schema["items"], f"{path}[{index}]")
    elif wanted == "object":
        yield from _object_problems(value, schema, path)
    else:
        yield from _scalar_problems(value, schema, path)


def _scalar_problems(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield f"{path}: longer than {schema['maxLength']}"
    if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value!r} is out of bounds"


def _object_problems(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    yield from (
        f"{path}.{key} is missing" for key in schema.get("required", ()) if key not in value
    )
    for key, item in value.items():
        if key in schema.get("properties", {}):
            if path == "" and key == "metadata":  # its schema is the API server's own
                continue
            yield from schema_problems(item, schema["properties"][key], f"{path}.{key}")
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from schema_problems(item, schema["additionalProperties"], f"{path}.{key}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{key} is unknown"
