"""Everything that is rendered passes a strict check: by the real CRDs, and by our own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from sample_bentos import make_bento
from sample_renderings import every_rendering

from kfp_bento.runtime.deployments import manifest_problems, render_bento_deployment
from kfp_bento.runtime.deployments.portable_subset import (
    PORTABLE_SUBSET,
    Fields,
    Items,
    Pairs,
    Shape,
    Value,
)

CRDS = Path(__file__).resolve().parents[3] / "shared" / "crds"
BENTO, DEPLOYMENT = "resources.yatai.ai_bentoes.yaml", "serving.yatai.ai_bentodeployments.yaml"
GENERATIONS = {
    "1.1.4 and 1.1.3": (f"image-builder-v1.1.3/{BENTO}", f"deployment-v1.1.4/{DEPLOYMENT}"),
    "1.1.21 and 1.2.28": (f"image-builder-v1.2.28/{BENTO}", DEPLOYMENT),
    "newest": (BENTO, DEPLOYMENT),
}
needs_crds = pytest.mark.skipif(
    not (CRDS / BENTO).is_file(), reason="the CRDs are not in ../shared/crds; own check only"
)


@cache
def served_schemas(generation: str) -> dict[tuple[str, str], Any]:
    schemas = {}
    for path in GENERATIONS[generation]:
        crd = yaml.load((CRDS / path).read_text(), Loader=yaml.CSafeLoader)["spec"]
        for version in crd["versions"]:
            api_version = f"{crd['group']}/{version['name']}"
            schema = version["schema"]["openAPIV3Schema"]
            schemas[(api_version, crd["names"]["kind"])] = schema
    return schemas


def schema_problems(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Walk a value by a structural schema, refusing what the API server would prune."""
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: {value!r} is neither integer nor string"
        elif "pattern" in schema and not re.match(schema["pattern"], str(value)):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        return
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    wanted = types[schema["type"]]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {schema['type']}"
    elif wanted is list:
        for index, item in enumerate(value):
            yield from schema_problems(item, schema["items"], f"{path}[{index}]")
    elif wanted is dict:
        yield from object_problems(value, schema, path)
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"


def object_problems(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
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
        else:
            yield f"{path}.{key} is unknown"


@needs_crds
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("image", "bento", "options"), list(every_rendering()))
def test_every_generation_of_the_crds_accepts_what_is_rendered(
    generation: str, image: str, bento: Any, options: Any
) -> None:
    for manifest in render_bento_deployment(image, bento, **options):
        schema = served_schemas(generation)[(manifest["apiVersion"], manifest["kind"])]
        assert list(schema_problems(manifest, schema)) == []


@pytest.mark.parametrize(("image", "bento", "options"), list(every_rendering()))
def test_our_own_check_accepts_what_is_rendered(image: str, bento: Any, options: Any) -> None:
    assert manifest_problems(render_bento_deployment(image, bento, **options)) == []


@needs_crds
def test_the_walk_by_the_crds_refuses_unknown_fields_and_wrong_types() -> None:
    _, deployment = render_bento_deployment("r/w@sha256:" + "a1" * 32, make_bento())
    deployment["spec"]["replicas"] = 2
    deployment["spec"]["resources"]["limits"]["cpu"] = 1
    schema = served_schemas("newest")[(deployment["apiVersion"], deployment["kind"])]
    assert sorted(schema_problems(deployment, schema)) == [
        ".spec.replicas is unknown",
        ".spec.resources.limits.cpu: 1 is no string",
    ]


@needs_crds
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("kind", PORTABLE_SUBSET, ids=lambda kind: kind[1])
def test_every_field_that_our_check_allows_exists_in_every_generation(
    generation: str, kind: tuple[str, str]
) -> None:
    schema = served_schemas(generation)[kind]
    shape = PORTABLE_SUBSET[kind]
    assert list(disagreements(shape.fields["spec"], schema["properties"]["spec"], "spec")) == []


def disagreements(shape: Shape, schema: dict[str, Any], path: str) -> Iterator[str]:
    names = {str: "string", int: "integer", bool: "boolean"}
    if isinstance(shape, Value):
        text_or_number = schema.get("x-kubernetes-int-or-string") and shape.type in (str, int)
        if not text_or_number and schema.get("type") != names[shape.type]:
            yield f"{path}: {schema.get('type')} is not {names[shape.type]}"
    elif isinstance(shape, Pairs):
        if schema.get("additionalProperties") != {"type": "string"}:
            yield f"{path} has no free keys with strings"
    elif isinstance(shape, Items):
        yield from disagreements(shape.item, schema["items"], f"{path}[]")
    else:
        yield from field_disagreements(shape, schema, path)


def field_disagreements(shape: Fields, schema: dict[str, Any], path: str) -> Iterator[str]:
    for key in set(schema.get("required", ())) - shape.required:
        yield f"{path}.{key} is required there and optional here"
    for key, inner in shape.fields.items():
        if key in schema.get("properties", {}):
            yield from disagreements(inner, schema["properties"][key], f"{path}.{key}")
        else:
            yield f"{path}.{key} does not exist there"


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("spec.replicas", 2, ".spec.replicas is no field"),
        ("spec.resources.limits.cpu", 1, ".spec.resources.limits.cpu is int 1, not str"),
        ("spec.autoscaling.minReplicas", 1.0, "minReplicas is float 1.0, not int"),
        ("spec.autoscaling.minReplicas", True, "minReplicas is bool True, not int"),
        ("spec.ingress.enabled", "false", "enabled is str 'false', not bool"),
        ("spec.bento", None, ".spec.bento is NoneType None, not str"),
        ("metadata.name", "Wine", ".metadata.name 'Wine' is no DNS-1035 label"),
        ("metadata.labels", {"team": "a b"}, ".metadata.labels[team] 'a b' is no label value"),
        ("metadata.annotations", {"a/b/c": "x"}, ".metadata.annotations[a/b/c] has a prefix"),
        ("metadata.finalizers", [], ".metadata.finalizers is no field"),
        ("apiVersion", "serving.yatai.ai/v1alpha3", "is no kind that we render"),
    ],
)
def test_our_own_check_names_the_path(place: str, value: Any, problem: str) -> None:
    image = "r/w@sha256:" + "a1" * 32
    manifests = render_bento_deployment(image, make_bento(), autoscaling={"maxReplicas": 2})
    _, deployment = json.loads(json.dumps(manifests))
    *parents, last = place.split(".")
    inner = deployment
    for key in parents:
        inner = inner[key]
    inner[last] = value
    (told,) = manifest_problems([deployment])
    assert problem in told


def test_a_missing_field_is_a_problem() -> None:
    bento, _ = render_bento_deployment("r/w@sha256:" + "a1" * 32, make_bento())
    del bento["spec"]["image"]
    assert manifest_problems([bento]) == ["Bento wine--0123456789e12345: .spec.image is missing"]
