"""The fields that every published generation of Yatai's CRDs has, and a strict check by them.

Yatai's API server prunes what it does not know, so a field that only one generation has
would vanish without a word on another. The description below is therefore the
intersection of yatai-deployment 1.1.4 and 1.1.21 and yatai-image-builder 1.1.3, 1.2.28 and
3.0.42, reduced to the fields that the controllers really read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .names import (
    deployment_name_problem,
    image_problem,
    label_value_problem,
    metadata_key_problem,
    namespace_problem,
    resource_name_problem,
)


@dataclass(frozen=True)
class Value:
    """A single value: its JSON type and, where Kubernetes cares, what it may say."""

    type: type
    problem: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Pairs:
    """A mapping with free keys and string values."""

    key_problem: Callable[[str], str] | None = None
    value_problem: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Items:
    """A list of equal things."""

    item: Shape


@dataclass(frozen=True)
class Fields:
    """An object with exactly these fields, some of them required."""

    fields: Mapping[str, Shape]
    required: frozenset[str] = field(default_factory=frozenset)


Shape = Value | Pairs | Items | Fields

_TEXT = Value(str)
_COUNT = Value(int)
_SIDE = Fields({"cpu": _TEXT, "memory": _TEXT, "gpu": _TEXT, "custom": Pairs()})
_RESOURCES = Fields({"requests": _SIDE, "limits": _SIDE}, frozenset({"requests", "limits"}))
_METRIC = Fields(
    {
        "type": _TEXT,
        "resource": Fields(
            {
                "name": _TEXT,
                "target": Fields(
                    {"type": _TEXT, "averageUtilization": _COUNT, "averageValue": _TEXT},
                    frozenset({"type"}),
                ),
            },
            frozenset({"name", "target"}),
        ),
    },
    frozenset({"type", "resource"}),
)
_AUTOSCALING = Fields(
    {"minReplicas": _COUNT, "maxReplicas": _COUNT, "metrics": Items(_METRIC)},
    frozenset({"minReplicas", "maxReplicas"}),
)
_ENVS = Items(Fields({"name": _TEXT, "value": _TEXT}, frozenset({"name", "value"})))
_LABELS = Pairs(metadata_key_problem, label_value_problem)
_ANNOTATIONS = Pairs(metadata_key_problem)
_POD_METADATA = Fields({"labels": _LABELS, "annotations": _ANNOTATIONS})
_POD_SPEC = Fields({"serviceAccountName": Value(str, resource_name_problem)})


def _resource(
    api_version: str, kind: str, name_problem: Callable[[str], str], spec: Shape
) -> Fields:
    metadata = Fields(
        {
            "name": Value(str, name_problem),
            "namespace": Value(str, namespace_problem),
            "labels": _LABELS,
            "annotations": _ANNOTATIONS,
        },
        frozenset({"name", "namespace"}),
    )
    shape: dict[str, Shape] = {
        "apiVersion": Value(
            str, lambda text: "" if text == api_version else f"is not {api_version}"
        ),
        "kind": Value(str, lambda text: "" if text == kind else f"is not {kind}"),
        "metadata": metadata,
        "spec": spec,
    }
    return Fields(shape, frozenset(shape))


PORTABLE_SUBSET: Mapping[tuple[str, str], Fields] = {
    ("resources.yatai.ai/v1alpha1", "Bento"): _resource(
        "resources.yatai.ai/v1alpha1",
        "Bento",
        resource_name_problem,
        Fields(
            {
                "tag": _TEXT,
                "image": Value(str, image_problem),
                "context": Fields({"bentomlVersion": _TEXT}),
                "runners": Items(
                    Fields(
                        {
                            "name": Value(str, label_value_problem),
                            "runnableType": _TEXT,
                            "modelTags": Items(_TEXT),
                        },
                        frozenset({"name"}),
                    )
                ),
                "imagePullSecrets": Items(
                    Fields({"name": Value(str, resource_name_problem)}, frozenset({"name"}))
                ),
            },
            frozenset({"tag", "image"}),
        ),
    ),
    ("serving.yatai.ai/v2alpha1", "BentoDeployment"): _resource(
        "serving.yatai.ai/v2alpha1",
        "BentoDeployment",
        deployment_name_problem,
        Fields(
            {
                "bento": Value(str, resource_name_problem),
                "resources": _RESOURCES,
                "autoscaling": _AUTOSCALING,
                "envs": _ENVS,
                "annotations": _ANNOTATIONS,
                "ingress": Fields({"enabled": Value(bool)}, frozenset({"enabled"})),
                "extraPodMetadata": _POD_METADATA,
                "extraPodSpec": _POD_SPEC,
                "runners": Items(
                    Fields(
                        {
                            "name": _TEXT,
                            "resources": _RESOURCES,
                            "autoscaling": _AUTOSCALING,
                            "envs": _ENVS,
                        },
                        frozenset({"name", "resources"}),
                    )
                ),
            },
            frozenset({"bento", "resources", "ingress"}),
        ),
    ),
}


def manifest_problems(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check manifests against the portable subset; unknown fields are problems.

    Returns:
        One sentence per problem, each beginning with kind, name and path. Empty: all is well.
    """
    found = []
    for manifest in manifests:
        kind = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        shape = PORTABLE_SUBSET.get(kind)
        if shape is None:
            found.append(f"{kind[1]} {name}: {kind[0]} {kind[1]} is no kind that we render")
            continue
        found += [f"{kind[1]} {name}: {problem}" for problem in _problems(manifest, shape, "")]
    return found


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if isinstance(shape, Value):
        yield from _value_problems(value, shape, path)
    elif isinstance(shape, Items):
        if not isinstance(value, list):
            yield f"{path} is {type(value).__name__}, not a list"
            return
        for index, item in enumerate(value):
            yield from _problems(item, shape.item, f"{path}[{index}]")
    elif not isinstance(value, Mapping):
        yield f"{path or 'the manifest'} is {type(value).__name__}, not a mapping"
    elif isinstance(shape, Pairs):
        yield from _pair_problems(value, shape, path)
    else:
        for key in sorted(shape.required - value.keys()):
            yield f"{path}.{key} is missing"
        for key, item in value.items():
            if key in shape.fields:
                yield from _problems(item, shape.fields[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is no field that every generation of the CRDs has"


def _value_problems(value: Any, shape: Value, path: str) -> Iterator[str]:
    # bool is an int in Python and is none in JSON.
    if type(value) is not shape.type:
        yield f"{path} is {type(value).__name__} {value!r}, not {shape.type.__name__}"
    elif shape.problem and (problem := shape.problem(str(value))):
        yield f"{path} {value!r} {problem}"


def _pair_problems(value: Mapping[Any, Any], shape: Pairs, path: str) -> Iterator[str]:
    for key, item in value.items():
        place = f"{path}[{key}]"
        if not isinstance(key, str) or not isinstance(item, str):
            yield f"{place} is {type(item).__name__} {item!r}, not str"
            continue
        if shape.key_problem and (problem := shape.key_problem(key)):
            yield f"{place} {problem}"
        if shape.value_problem and (problem := shape.value_problem(item)):
            yield f"{place} {item!r} {problem}"
