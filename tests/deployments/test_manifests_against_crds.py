"""Everything that is rendered passes a strict check: by the real CRDs, and by our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from crd_schemas import GENERATIONS, needs_crds, schema_problems, served_schemas
from releases import render_bento_deployment
from sample_bentos import make_bento
from sample_renderings import every_rendering

from kfp_bento.runtime.deployments.kube.shapes import Fields, Items, Pairs, Shape, Value
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    crd_subset,
    manifest_problems,
    portable,
)
from kfp_bento.runtime.errors import DeploymentError


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
@pytest.mark.parametrize("kind", crd_subset(), ids=lambda kind: kind[1])
def test_every_field_that_our_check_allows_exists_in_every_generation(
    generation: str, kind: tuple[str, str]
) -> None:
    spec = served_schemas(generation)[kind]["properties"]["spec"]
    for shape in (crd_subset()[kind], crd_subset(generation)[kind]):
        assert list(disagreements(shape.fields["spec"], spec, "spec")) == []


def disagreements(shape: Shape, schema: dict[str, Any], path: str) -> Iterator[str]:
    names = {str: "string", int: "integer", bool: "boolean"}
    if isinstance(shape, Value):
        types = shape.type if isinstance(shape.type, tuple) else (shape.type,)
        text_or_number = schema.get("x-kubernetes-int-or-string") and bool not in types
        if not text_or_number and [schema.get("type")] != [names[one] for one in types]:
            yield f"{path}: {schema.get('type')} is not {types}"
    elif isinstance(shape, Pairs):
        free = schema.get("additionalProperties") or {}
        if free != {"type": "string"} and not free.get("x-kubernetes-int-or-string"):
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


def test_what_some_generation_would_drop_is_never_rendered() -> None:
    manifests = render_bento_deployment("r/w@sha256:" + "a1" * 32, make_bento())
    assert list(portable(*manifests)) == manifests
    manifests[1]["spec"]["replicas"] = 2
    with pytest.raises(DeploymentError, match=r"\.spec\.replicas"):
        portable(*manifests)
