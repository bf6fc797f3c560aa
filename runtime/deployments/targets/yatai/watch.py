"""How a BentoDeployment is seen while Yatai's operators work on it, and what goes wrong there.

Read in yatai-deployment 1.1.4 and 1.1.21 (`bentodeployment_controller.go`) and in
yatai-image-builder 1.1.3, 1.2.28 and 3.0.42 (`bentorequest_controller.go`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Required

from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.kube.live_shapes import ConditionStatus, Live, Marks
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
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
from kfp_bento.runtime.deployments.targets.yatai.names import bento_resource_name

PORT = 3000


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
        # A runner without settings of its own inherits the API server's.
        parts[f"{ref.name}-runner-{index}"] = settings.get(runner["name"]) or spec
    return Watched(
        ref,
        deployments=tuple(
            WatchedDeployment(
                name,
                # The builder decides from where nodes pull what it built.
                image="" if request else str(made.get("image") or ""),
                container="main",
                labels=(("yatai.ai/bento-version", version),) if version else (),
                template=pod_revision_of(part.get("extraPodMetadata")),
                minimum=int((part.get("autoscaling") or {}).get("minReplicas", 1)),
            )
            for name, part in parts.items()
        ),
        pods=pods_label(ref.name),
        build=ObjectRef.of(request) if request else None,
        url=service_url(manifests),
        problems=_problems,
        first=_unbuilt if request else lambda snapshot: "",
    )


def _unbuilt(snapshot: Snapshot) -> str:
    available = conditions_of(snapshot.build).get("BentoAvailable") or {}
    if available.get("status") == "True":
        return ""
    told = available.get("message") or "no word from the builder yet"
    return f"the image is being built ({told})"


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
        yield Problem(
            "NotWatched",
            f"No operator has touched {ref}: yatai-deployment does not run, or does not "
            f"watch namespace {ref.namespace} (BENTO_DEPLOYMENT_NAMESPACES)",
            look.unwatched_seconds,
        )
    missing = conditions.get("BentoFound") or {}
    if missing.get("status") == "False" and not watched.build:
        told = missing.get("message") or "no message"
        yield Problem("BentoMissing", f"yatai-deployment finds no Bento: {told}", _ERROR)
    available = conditions.get("Available")
    if available is None or available.get("status") == "True":
        return
    message = str(available.get("message") or "")
    failed = available.get("status") == "False"
    if look.healthy and (not failed or _SUFFIX.search(message)):
        yield Problem(
            "DomainSuffix",
            f"All pods of {ref.name} are ready, but the operator does not finish "
            f"(Available={available.get('status')}: {message or 'no message'}). So it looks "
            "when ConfigMap network in the operator's namespace has no domain-suffix: the "
            "operator then waits for an address up to 20 minutes. Set any value, and start the "
            "operator anew",
            _FLICKER if failed else _POLLING,
        )
    elif failed and not watched.build:
        # Nothing tells whether it is about this generation where it was there from the first look.
        generation = int((snapshot.primary or {})["metadata"].get("generation") or 0)
        may_be_old = generation > 1 and available == conditions_of(look.first).get("Available")
        patience = look.unwatched_seconds if may_be_old else _ERROR
        yield Problem("OperatorError", f"yatai-deployment failed: {message}", patience)


def _build_problems(watched: Watched, request: ObjectRef, look: Observation) -> Iterator[Problem]:
    build = look.snapshot.build
    if build is None:
        yield Problem("Deleted", f"BentoRequest {request.name} is not there", _ERROR)
        return
    conditions = conditions_of(build)
    if not conditions:
        yield Problem(
            "NotWatched",
            f"No builder has touched BentoRequest {request.name}: yatai-image-builder does not "
            f"run, or does not watch namespace {watched.primary.namespace}",
            look.unwatched_seconds,
        )
    building = conditions.get("ImageBuilding") or {}
    available = conditions.get("BentoAvailable") or {}
    if available.get("status") != "True" and building.get("reason") == "Timeout":
        told = building.get("message") or "no message"
        yield Problem("BuildTimeout", f"The image was not built in time: {told}")
    elif available.get("status") == "False":
        told = available.get("message") or "no message"
        # yatai-image-builder passes through Unknown at every reconcile; False must last.
        yield Problem("BuildFailed", f"The image was not built: {told}", _ERROR)
    elif available.get("status") != "True" and _FAILED.search(str(building.get("message") or "")):
        # The newest builder makes BentoAvailable Unknown again in the same reconcile.
        yield Problem("BuildFailed", f"The image was not built: {building['message']}", _ERROR)


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
