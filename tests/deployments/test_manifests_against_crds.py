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

from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    NEWER_FIELDS,
    PORTABLE_SUBSET,
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
@pytest.mark.parametrize("kind", PORTABLE_SUBSET, ids=lambda kind: kind[1])
def test_every_field_that_our_check_allows_exists_in_every_generation(
    generation: str, kind: tuple[str, str]
) -> None:
    crd = served_schemas(generation)[kind]["properties"]["spec"]
    ours = PORTABLE_SUBSET[kind].model_json_schema()
    lacking = NEWER_FIELDS.get(kind[1], ()) if generation == "kubeflow-1.7" else ()
    found = disagreements(ours["$defs"], ours["properties"]["spec"], crd, "spec")
    assert sorted(found) == sorted(f"{field} does not exist there" for field in lacking)


def disagreements(
    defined: dict[str, Any], ours: dict[str, Any], crd: dict[str, Any], path: str
) -> Iterator[str]:
    """Walk our JSON schema, and say where a CRD has no such field or another type."""
    ours = defined[ours["$ref"].rpartition("/")[2]] if "$ref" in ours else ours
    if "anyOf" in ours:
        kinds = {defined.get(one.get("$ref", "")[8:], one)["type"] for one in ours["anyOf"]}
        if not crd.get("x-kubernetes-int-or-string") and kinds != {crd.get("type")}:
            yield f"{path}: {crd.get('type')} is not {kinds}"
    elif "properties" in ours:
        for key in set(crd.get("required", ())) - set(ours.get("required", ())):
            yield f"{path}.{key} is required there and optional here"
        for key, inner in ours["properties"].items():
            if key in crd.get("properties", {}):
                yield from disagreements(defined, inner, crd["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key} does not exist there"
    elif ours["type"] == "array":
        yield from disagreements(defined, ours["items"], crd["items"], path)
    elif ours["type"] == "object":
        free = crd.get("additionalProperties") or {}
        if free != {"type": "string"} and not free.get("x-kubernetes-int-or-string"):
            yield f"{path} has no free keys with strings"
    elif not crd.get("x-kubernetes-int-or-string") and ours["type"] != crd.get("type"):
        yield f"{path}: {crd.get('type')} is not {ours['type']}"


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("spec.replicas", 2, ".spec.replicas is no field"),
        ("spec.resources.limits.cpu", 1, ".spec.resources.limits.cpu: 1 is no text"),
        ("spec.autoscaling.minReplicas", 1.0, "minReplicas: 1.0 is no integer"),
        ("spec.autoscaling.minReplicas", True, "minReplicas: True is no integer"),
        ("spec.ingress.enabled", "false", "enabled: 'false' is neither true nor false"),
        ("spec.bento", None, ".spec.bento: None is no text"),
        ("metadata.name", "w" * 51, ".metadata.name: 'wwww"),
        ("spec.monitorExporter", {"output": "x", "mounts": []}, "Exporter.mounts is no field"),
        ("metadata.name", "Wine", ".metadata.name: 'Wine' is no DNS-1123 name"),
        ("metadata.labels", {"team": "a b"}, ".metadata.labels[team]: 'a b' is no label value"),
        (
            "metadata.annotations",
            {"a/b/c": "x"},
            ".metadata.annotations[a/b/c]: 'a/b/c' has",
        ),
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
