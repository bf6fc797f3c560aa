"""How an InferenceService is seen while KServe works on it, and what goes wrong there.

`status.observedGeneration` is no help: KServe copies the generation of the Deployment or of the
Knative service into it (`inferenceservice_status.go`: PropagateRawStatus, PropagateStatus). So
the Deployments are judged, which carry our mark of the new revision in their pod templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Required

from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.kube.live_shapes import ConditionStatus, Live, LiveContainer
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.options.names import deployment_name_problem, split_url
from kfp_bento.runtime.deployments.targets.readiness import (
    Observation,
    Problem,
    Snapshot,
    Watched,
    WatchedDeployment,
    conditions_of,
    pod_revision_of,
)
from kfp_bento.runtime.deployments.targets.target import first_of_kind
from kfp_bento.runtime.errors import InvalidInput

CONTAINER = "kserve-container"
MODE = "serving.kserve.io/deploymentMode"
# Names since KServe 0.16, and those before it.
STANDARD_MODES = ("Standard", "RawDeployment")
KNATIVE_MODES = ("Knative", "Serverless")

_KNATIVE_REVISION = "serving.knative.dev/revision"
_COMPONENTS = ("predictor", "transformer", "explainer")
_FAILED_LOADS = ("BlockedByFailedLoad", "InvalidSpec")


class _Part(TypedDict, total=False):
    name: str
    minReplicas: int
    annotations: dict[str, str] | None
    containers: list[LiveContainer] | None


class _Canary(TypedDict):
    predictor: _Part


class _Spec(TypedDict, total=False):
    predictor: Required[_Part]
    transformer: _Part | None
    explainer: _Part | None
    canary: list[_Canary] | None


class _Revisions(TypedDict, total=False):
    latestReadyRevision: str


class _Components(TypedDict, total=False):
    predictor: _Revisions | None
    transformer: _Revisions | None
    explainer: _Revisions | None


class _Failure(TypedDict, total=False):
    reason: str
    message: str


class _ModelStatus(TypedDict, total=False):
    transitionStatus: str
    lastFailureInfo: _Failure | None


class _Address(TypedDict, total=False):
    url: str


class _Status(ConditionStatus, total=False):
    url: str
    address: _Address | None
    deploymentMode: str
    components: _Components | None
    modelStatus: _ModelStatus | None


class _InferenceService(Live):
    spec: _Spec
    status: _Status | None = None


LIVE_SHAPES: Mapping[str, type[Live]] = {"InferenceService": _InferenceService}
"""What is read of a live InferenceService."""

# Seconds that a problem must last which may be gone at the next look.
_FLICKER = 2.0
# What KServe says may still be about the revision before.
_RECONCILING = 5.0


def inference_service_url(
    manifests: Sequence[Mapping[str, Any]], live: Mapping[str, Any] | None = None
) -> str:
    """Give the URL inside the cluster: what KServe wrote into the status, else what it will be.

    KServe's Services are headless by default since 0.15, and then do not move port 80 to the
    container's; only the status of the live object is sure. It is requested later, with the
    inputs of models, so it has to name a Service of this very release.
    """
    service = _service_of(manifests)
    status = (live or {}).get("status") or {}
    for told in ((status.get("address") or {}).get("url"), status.get("url")):
        if told and (root := _root_inside(told, ObjectRef.of(service))):
            return root
    metadata, spec = service["metadata"], service["spec"]
    first = "transformer" if "transformer" in spec else "predictor"
    part = str(spec[first].get("name") or "")
    # A live object may say anything there.
    middle = f"-{part}" if part and not deployment_name_problem(part) else ""
    return f"http://{metadata['name']}{middle}-{first}.{metadata['namespace']}.svc"


def _root_inside(url: str, service: ObjectRef) -> str:
    """Give the root of a URL of the release's Services; empty where it is of somebody else."""
    try:
        parts = split_url("status", url)
    except InvalidInput:
        return ""
    first, _, rest = (parts.hostname or "").partition(".")
    names = (service.name, *(f"{service.name}-{part}" for part in _COMPONENTS))
    own = first in names or re.fullmatch(rf"{re.escape(service.name)}-[a-z0-9-]+-predictor", first)
    inside = re.fullmatch(rf"{re.escape(service.namespace)}\.svc(\.[a-z0-9.-]+)?", rest)
    plain = parts.scheme in ("http", "https") and not (parts.username or parts.password)
    return f"{parts.scheme}://{parts.netloc}" if own and inside and plain else ""


def watched_inference_service(manifests: Sequence[Mapping[str, Any]]) -> Watched:
    """Describe the Deployments that KServe or Knative will make, and how they are recognised."""
    service = _service_of(manifests)
    ref, spec = ObjectRef.of(service), service["spec"]
    annotations = service["metadata"].get("annotations") or {}
    standard = annotations.get(MODE, STANDARD_MODES[0]) in STANDARD_MODES
    kinds = [kind for kind in _COMPONENTS if spec.get(kind)]
    parts = [(kind, spec[kind]) for kind in kinds]
    canaries = [("predictor", one["predictor"]) for one in spec.get("canary") or ()]
    # KServe takes a canary's pods out of the stable predictor's.
    shared = bool(canaries)
    parts += canaries
    return Watched(
        ref,
        deployments=tuple(
            _deployment(ref.name, kind, part, standard=standard, shared=shared)
            for kind, part in parts
        ),
        pods=f"serving.kserve.io/inferenceservice={ref.name}",
        conditions=(*(f"{kind.capitalize()}Ready" for kind in kinds), "Ready"),
        problems=_problems,
        behind=_behind,
    )


def _behind(wanted: WatchedDeployment, live: Manifest, snapshot: Snapshot) -> str:
    """Say that Knative still sends requests to the revision before."""
    if wanted.name:
        return ""
    status = (snapshot.primary or {}).get("status") or {}
    told = (status.get("components") or {}).get(wanted.component) or {}
    ready = told.get("latestReadyRevision")
    revision = (live["metadata"].get("labels") or {}).get(_KNATIVE_REVISION)
    return (
        "" if revision == ready else f"revision {revision} is not ready; {ready or 'none'} serves"
    )


def _deployment(
    name: str, kind: str, part: Mapping[str, Any], *, standard: bool, shared: bool
) -> WatchedDeployment:
    lowest = int(part.get("minReplicas", 1))
    middle = f"-{part['name']}" if part.get("name") else ""
    # A model format leaves the image to the serving runtime.
    container = (part.get("containers") or [{}])[0]
    return WatchedDeployment(
        f"{name}{middle}-{kind}" if standard else "",
        image=str(container.get("image") or ""),
        container=str(container.get("name") or CONTAINER),
        template=pod_revision_of(part),
        minimum=min(lowest, 1) if shared and kind == "predictor" else lowest,
        component=kind,
    )


def _problems(watched: Watched, look: Observation) -> Iterator[Problem]:
    ref, live = watched.primary, look.snapshot.primary or {}
    status = live.get("status") or {}
    if not status:
        yield Problem(
            "NotWatched",
            f"KServe has written nothing about {ref}: it does not run, or failed at once. A mode "
            "that it cannot do or does not know by that name (they have others before 0.16) is in "
            "the events",
            look.unwatched_seconds,
        )
    # KServe takes its default for a mode whose name it does not know, and says nothing.
    asked = str((live["metadata"].get("annotations") or {}).get(MODE) or "")
    made = str(status.get("deploymentMode") or "")
    if asked and made and (asked in STANDARD_MODES) != (made in STANDARD_MODES):
        yield Problem(
            "OtherDeploymentMode",
            f"KServe deployed {ref} in mode {made}, not in {asked}; before 0.16 the modes have "
            "other names",
            _FLICKER,
        )
    patience = _FLICKER if look.arrived else _RECONCILING
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in _FAILED_LOADS:
        info = model.get("lastFailureInfo") or {}
        reason = str(info.get("reason") or model["transitionStatus"])
        told = info.get("message") or reason
        yield Problem(reason, f"{ref} cannot load its model: {told}", patience)
    for name in ("Ready", *watched.conditions):
        told = conditions_of(live).get(name) or {}
        if told.get("status") == "False" and told.get("reason") in ("InvalidSpec", "Stopped"):
            message = told.get("message") or told["reason"]
            yield Problem(str(told["reason"]), f"{ref}: {message}", patience)


def stale_components(
    manifests: Sequence[Mapping[str, Any]], owned: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Find what KServe has made in Standard mode for components that are gone from the spec.

    It removes Deployments and Services of canaries, and nothing of a transformer or explainer.

    Args:
        manifests: The release.
        owned: Live objects that its InferenceService owns.
    """
    wanted = {wanted.name for wanted in watched_inference_service(manifests).deployments}
    if "" in wanted:
        return []  # Knative's, which are named by revision
    return [
        live
        for live in owned
        if (live["metadata"].get("labels") or {}).get("component") in _COMPONENTS
        and live["metadata"]["name"].rpartition("-")[2] in _COMPONENTS
        and live["metadata"]["name"] not in wanted
    ]


def _service_of(manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    found = first_of_kind(manifests, "InferenceService")
    assert found is not None  # noqa: S101 - the target renders one
    return found
