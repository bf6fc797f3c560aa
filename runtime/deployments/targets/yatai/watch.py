"""How a BentoDeployment is seen while Yatai's operators work on it, and what goes wrong there.

Read in yatai-deployment 1.1.4 and 1.1.21 (`bentodeployment_controller.go`) and in
yatai-image-builder 1.1.3, 1.2.28 and 3.0.42 (`bentorequest_controller.go`), and seen at work. Each
of them has one worker, so that whatever blocks it keeps all other objects waiting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Required

from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.kube.live_shapes import ConditionStatus, Live, Marks
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef, applied_at
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
from kfp_bento.runtime.deployments.targets.yatai.kinds import BENTO
from kfp_bento.runtime.deployments.targets.yatai.names import bento_resource_name

PORT = 3000
BENTO_DEPLOYMENT, BENTO_REQUEST = "BentoDeployment", "BentoRequest"


class _Autoscaling(TypedDict, total=False):
    minReplicas: int


class _Pods(TypedDict, total=False):
    autoscaling: _Autoscaling | None
    extraPodMetadata: Marks | None


class _Runner(_Pods, total=False):
    name: Required[str]


class _Spec(_Pods, total=False):
    bento: Required[str]
    runners: list[_Runner] | None


class _BentoDeployment(Live):
    spec: _Spec
    status: ConditionStatus | None = None


class _Named(TypedDict):
    name: str


class _Built(TypedDict, total=False):
    tag: str
    bentoTag: str
    image: str
    downloadUrl: str
    imageBuildTimeout: int
    imageBuilderExtraPodMetadata: Marks | None
    runners: list[_Named] | None


class _Bento(Live):
    spec: _Built
    status: ConditionStatus | None = None


LIVE_SHAPES: Mapping[str, type[Live]] = {
    "BentoDeployment": _BentoDeployment,
    "Bento": _Bento,
    "BentoRequest": _Bento,
}
"""What is read of live objects of Yatai's kinds."""

# Seconds that a problem must last which may be gone at the next look.
_FLICKER = 2.0
_ERROR = 3.0
# yatai-deployment finishes its reconcile within a second unless it polls for an address.
_POLLING = 4.0
_SUFFIX = re.compile(r"domain.?suffix|ingress|load.?balancer|\bnetwork\b.*config", re.IGNORECASE)
_FAILED = re.compile(r"\bfailed\b", re.IGNORECASE)
_LATE = re.compile(r"image build timeout")
_OF_REQUEST = re.compile(r"BentoRequest .* is not available")
_FOR_EVER = math.inf
_NO_SUFFIX = (
    "So it looks when ConfigMap network in the operator's namespace has no domain-suffix: the "
    "operator then waits for an address up to 20 minutes, and does nothing else. Set any value, "
    "and start the operator anew"
)
_REBUILD = (
    "It is busy or away, or of a version that never looks at an available request again: delete "
    "the BentoRequest, and apply again"
)
_NOT_ENDED = "Its builder does not end it; applying again does"


def service_url(
    manifests: Sequence[Mapping[str, Any]], live: Mapping[str, Any] | None = None
) -> str:
    """Give the URL that the rendered BentoDeployment has inside the cluster."""
    del live
    metadata = bento_deployment_of(manifests)["metadata"]
    return f"http://{metadata['name']}.{metadata['namespace']}.svc:{PORT}"


def bento_deployment_of(manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Give the BentoDeployment among rendered manifests."""
    return next(manifest for manifest in manifests if manifest["kind"] == "BentoDeployment")


def watched_bento_deployment(manifests: Sequence[Mapping[str, Any]]) -> Watched:
    """Describe a BentoDeployment: `<bd>` and one `<bd>-runner-<i>` per runner, container `main`.

    Args:
        manifests: It and its Bento or BentoRequest, rendered or live.
    """
    primary = bento_deployment_of(manifests)
    ref, spec = ObjectRef.of(primary), primary["spec"]
    named = [one for one in manifests if one["metadata"]["name"] == spec["bento"]]
    bento = first_of_kind(named, "Bento")
    request = first_of_kind(named, "BentoRequest")
    made = (request or bento or {}).get("spec") or {}
    version = str(made.get("tag") or made.get("bentoTag") or "").partition(":")[2]
    settings = {one["name"]: one for one in spec.get("runners") or ()}
    parts = {ref.name: spec}
    # The operator counts the runners in the order of the Bento.
    for index, runner in enumerate(made.get("runners") or ()):
        # A runner without settings of its own inherits the API server's, but not how many.
        inherited = {key: one for key, one in spec.items() if key != "autoscaling"}
        parts[f"{ref.name}-runner-{index}"] = settings.get(runner["name"]) or inherited
    return Watched(
        ref,
        deployments=tuple(
            WatchedDeployment(
                name,
                # Where the request names none, the builder's settings do, and the Bento says it.
                image=str(made.get("image") or ""),
                container="main",
                labels=(("yatai.ai/bento-version", version),) if version else (),
                template=pod_revision_of(part.get("extraPodMetadata")),
                minimum=int((part.get("autoscaling") or {}).get("minReplicas", 1)),
            )
            for name, part in parts.items()
        ),
        pods=pods_label(ref.name),
        build=ObjectRef.of(request) if request else None,
        source=ObjectRef(BENTO.api_version, BENTO.name, ref.namespace, spec["bento"]),
        builders=_builders(request["metadata"]["name"]) if request else (),
        in_turn=True,
        url=service_url(manifests),
        problems=_problems,
        first=_unbuilt if request else _without_bento,
    )


def _builders(request: str) -> tuple[tuple[str, str, str], ...]:
    """Say what a builder makes for a request: a Job, or before 1.2 a pod without its name."""
    return (
        ("batch/v1", "Job", f"yatai.ai/bento-request={request}"),
        ("v1", "Pod", "yatai.ai/is-bento-image-builder=true"),
    )


def _unbuilt(snapshot: Snapshot) -> str:
    available = conditions_of(snapshot.build).get("BentoAvailable") or {}
    if available.get("status") != "True":
        told = available.get("message") or "no word from the builder yet"
        return f"the image is being built ({told})"
    return _without_bento(snapshot) or _not_rebuilt(snapshot)


def _without_bento(snapshot: Snapshot) -> str:
    if snapshot.source is None:
        name = ((snapshot.primary or {}).get("spec") or {}).get("bento")
        return f"there is no Bento {name}"
    return ""


def _not_rebuilt(snapshot: Snapshot) -> str:
    """Say that the Bento has another image than the request: Available may be about another."""
    asked = ((snapshot.build or {}).get("spec") or {}).get("image")
    has = ((snapshot.source or {}).get("spec") or {}).get("image")
    if not asked or snapshot.source is None or asked == has:
        return ""
    name = snapshot.source["metadata"]["name"]
    return f"the builder has Bento {name} at image {has} and not at {asked}"


def _problems(watched: Watched, look: Observation) -> Iterator[Problem]:
    if watched.build:
        yield from _build_problems(watched, watched.build, look)
    yield from _operator_problems(watched, look)


def _operator_problems(watched: Watched, look: Observation) -> Iterator[Problem]:
    """Judge the conditions of a BentoDeployment.

    `Available` says that its objects were written, nothing about pods. False or Unknown may
    last although the pods serve: without a `domain-suffix` the operator fails after all else
    is done.
    """
    ref, snapshot = watched.primary, look.snapshot
    conditions = conditions_of(snapshot.primary)
    if not conditions and not snapshot.deployments:
        yield _untouched(
            ref,
            f"No operator has touched {ref}: yatai-deployment does not run, or does not "
            f"watch namespace {ref.namespace} (BENTO_DEPLOYMENT_NAMESPACES)",
            look,
        )
    built = not watched.build or _status(snapshot.build, "BentoAvailable") == "True"
    missing = conditions.get("BentoFound") or {}
    if missing.get("status") == "False" and built:
        told = missing.get("message") or "no message"
        # A builder that writes its Bento again does so within a second.
        again = "; the builder does not write it again: delete the BentoRequest, and apply again"
        message = f"yatai-deployment finds no Bento: {told}{again if watched.build else ''}"
        yield Problem("BentoMissing", message, _ERROR)
    available = conditions.get("Available")
    if available is None or available.get("status") == "True":
        return
    message = str(available.get("message") or "")
    failed = available.get("status") == "False"
    if look.healthy and (not failed or _SUFFIX.search(message)):
        yield Problem(
            "DomainSuffix",
            f"All pods of {ref.name} are ready, but the operator does not finish "
            f"(Available={available.get('status')}: {message or 'no message'}). {_NO_SUFFIX}",
            _FLICKER if failed else _POLLING,
        )
    elif failed and built:
        # Nothing tells whether it is about this generation where it was there from the first look.
        generation = int((snapshot.primary or {})["metadata"].get("generation") or 0)
        may_be_old = generation > 1 and available == conditions_of(look.first).get("Available")
        may_be_old = may_be_old or bool(watched.build and _OF_REQUEST.search(message))
        patience = look.unwatched_seconds if may_be_old else _ERROR
        yield Problem("OperatorError", f"yatai-deployment failed: {message}", patience)


def _untouched(ref: ObjectRef, absent: str, look: Observation) -> Problem:
    """Say why a controller has not come to an object: it is not there, or busy with another."""
    others = [one for one in look.snapshot.queue if one["kind"] == ref.kind]
    for other in others:
        busy = f"{ObjectRef.of(other)} keeps the controller from {ref}, which comes after it"
        if other["kind"] == BENTO_DEPLOYMENT and _is_polling(other):
            return Problem("DomainSuffix", f"{busy}. {_NO_SUFFIX}", look.unwatched_seconds)
        if other["kind"] == BENTO_REQUEST and _is_asking(other):
            told = f"{busy}: it waits for the registry of that image"
            return Problem("Blocked", told, _FOR_EVER)
    absent += "; or it is kept by an object of another namespace, which nobody here can see"
    if any(conditions_of(other) for other in others):
        absent += ". It has worked in this namespace: it has stopped, or another keeps it waiting"
    return Problem("NotWatched", absent, look.unwatched_seconds)


def _is_polling(other: Manifest) -> bool:
    """Say whether the operator has everything for a BentoDeployment, and does not finish."""
    return (_status(other, "BentoFound"), _status(other, "Available")) == ("True", "Unknown")


def _is_asking(other: Manifest) -> bool:
    """Say whether the builder asks a registry about the image of a BentoRequest."""
    checked = _status(other, "ImageExistsChecked") or _status(other, "ImageExists")
    return checked == "Unknown"


def _status(live: Manifest | None, kind: str) -> str:
    return str((conditions_of(live).get(kind) or {}).get("status") or "")


def _build_problems(watched: Watched, request: ObjectRef, look: Observation) -> Iterator[Problem]:
    build = look.snapshot.build
    if build is None:
        yield Problem("Deleted", f"BentoRequest {request.name} is not there", _ERROR)
        return
    conditions = conditions_of(build)
    if not conditions:
        yield _untouched(
            request,
            f"No builder has touched BentoRequest {request.name}: yatai-image-builder does not "
            f"run, or does not watch namespace {watched.primary.namespace}",
            look,
        )
    building = conditions.get("ImageBuilding") or {}
    available = conditions.get("BentoAvailable") or {}
    # yatai-image-builder passes through Unknown at every reconcile, so what it says must last;
    # longer where it was said before the request was changed.
    patience = look.unwatched_seconds if _is_older(available, build) else _ERROR
    if available.get("status") == "True":
        if kept := _not_rebuilt(look.snapshot):
            yield Problem("NotRebuilt", f"{kept}. {_REBUILD}", look.unwatched_seconds)
    elif late := next(_lateness(look.snapshot), ""):
        yield Problem("BuildTimeout", f"The image was not built in time: {late}", patience)
    elif available.get("status") == "False":
        told = available.get("message") or "no message"
        yield Problem("BuildFailed", f"The image was not built: {told}", patience)
    elif _FAILED.search(str(building.get("message") or "")):
        # The newest builder makes BentoAvailable Unknown again in the same reconcile.
        yield Problem("BuildFailed", f"The image was not built: {building['message']}", patience)
    elif building.get("status") == "True" and (seconds := seconds_to_build(build)):
        message = (
            f"The image was not built within {seconds:g} s, and goes on: {building['message']}"
        )
        yield Problem("BuildTimeout", f"{message}. {_NOT_ENDED}", seconds)


def _is_older(condition: Mapping[str, Any], live: Manifest) -> bool:
    """Say whether a condition is from before our last change of its object."""
    told = str(condition.get("lastTransitionTime") or "")
    return bool(told) and told < applied_at(live)


def _lateness(snapshot: Snapshot) -> Iterator[str]:
    """Give what says that a build has taken too long; each generation has another word for it.

    1.1.3 fails with it, 3.0.42 has its Job ended, which alone says so, and 1.2.28 gives a reason
    that it overwrites: nothing else wakes it while the Job goes on.
    """
    conditions = conditions_of(snapshot.build)
    building = conditions.get("ImageBuilding") or {}
    told = str((conditions.get("BentoAvailable") or {}).get("message") or "")
    if building.get("reason") == "Timeout":
        yield str(building.get("message") or "no message")
    if _LATE.search(told):
        yield told
    for job in (one for one in snapshot.builders if one["kind"] == "Job"):
        # One that is being deleted is of the attempt before.
        if job["metadata"].get("deletionTimestamp"):
            continue
        failed = conditions_of(job).get("Failed") or {}
        if failed.get("reason") == "DeadlineExceeded":
            yield f"Job {job['metadata']['name']}: {failed.get('message') or 'no message'}"


def has_failed_to_build(request: Manifest) -> bool:
    """Say whether a builder has given a build up, for now or for good."""
    conditions = conditions_of(request)
    building = conditions.get("ImageBuilding") or {}
    available = (conditions.get("BentoAvailable") or {}).get("status")
    failed = bool(_FAILED.search(str(building.get("message") or "")))
    failed = failed or building.get("reason") == "Timeout"
    return available == "False" or (available != "True" and failed)


def seconds_to_build(build: Manifest) -> float:
    """Give how long a build may take; 0 where the builder's own default holds."""
    return float(build["spec"].get("imageBuildTimeout") or 0) / 10**9


def pods_label(name: str) -> str:
    """Give the selector of all pods that the operator makes of a BentoDeployment."""
    return f"yatai.ai/bento-deployment={name}"


def bento_of(primary: Mapping[str, Any]) -> str:
    """Give the name of the Bento of a BentoDeployment, which a builder writes without labels."""
    return str(primary["spec"]["bento"])


def names_of(release: str, live: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the name that an object of a release has: a Bento's is made from its tag."""
    field = {"Bento": "tag", "BentoRequest": "bentoTag"}.get(live["kind"])
    if field is None:
        return (release,)
    tag = (live.get("spec") or {}).get(field)
    return (bento_resource_name(tag),) if isinstance(tag, str) else ()


def stale_runners(
    manifests: Sequence[Mapping[str, Any]], owned: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Find runner objects that the bento no longer has.

    yatai-deployment prunes nothing: fewer runners leave `<bd>-runner-<i>` behind, and every
    version of a bento leaves one Service per runner.

    Args:
        manifests: The release.
        owned: Live objects that its BentoDeployment owns.
    """
    name = bento_deployment_of(manifests)["metadata"]["name"]
    made = first_of_kind(manifests, "BentoRequest") or first_of_kind(manifests, "Bento") or {}
    spec = made.get("spec") or {}
    version = str(spec.get("tag") or spec.get("bentoTag") or "").partition(":")[2]
    runners = [entry["name"] for entry in spec.get("runners") or ()]
    return [live for live in owned if _is_stale(live, name, version, runners)]


def is_named_by(live: Mapping[str, Any], deployments: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a Bento or BentoRequest is the one of some BentoDeployment.

    Args:
        live: Any object.
        deployments: BentoDeployments of its namespace.
    """
    if live["kind"] not in ("Bento", "BentoRequest"):
        return False
    name = live["metadata"]["name"]
    return any((one.get("spec") or {}).get("bento") == name for one in deployments)


def _is_stale(live: Mapping[str, Any], name: str, version: str, runners: Sequence[str]) -> bool:
    labels = live["metadata"].get("labels") or {}
    if labels.get("yatai.ai/bento-deployment-component-type") != "runner":
        return False
    if live["kind"] == "Service":
        runner = labels.get("yatai.ai/bento-deployment-component-name")
        return labels.get("yatai.ai/bento-version") != version or runner not in runners
    index = str(live["metadata"]["name"]).removeprefix(f"{name}-runner-")
    return index.isdigit() and int(index) >= len(runners)
