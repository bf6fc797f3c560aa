"""What a wait looks at: which Deployments must serve which image, and what says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .apply import primary_of
from .cluster import Manifest, ObjectRef
from .record import holder_of, revision_on

# A digest of all that makes one pod differ from another, where the target renders one.
POD_REVISION = "kfp-bento/pod-revision"


@dataclass(frozen=True)
class WatchedDeployment:
    """A Deployment that must serve the new revision.

    Attributes:
        name: Its name. KServe in Serverless mode makes one per revision instead, which is
            recognised by the revision's label.
        image: The image that `container` must have, compared by digest; any when empty.
        container: The container that serves; the first when empty.
        labels: Labels that it carries once the operator has brought it to the new revision.
        template: Annotations that its pod template carries then, and at no other revision.
        minimum: Pods that must be available; 0 where scaling to zero is allowed.
    """

    name: str
    image: str = ""
    container: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    template: tuple[tuple[str, str], ...] = ()
    minimum: int = 1


@dataclass(frozen=True)
class Watched:
    """One release as a wait sees it; each target can say it of its own manifests.

    Attributes:
        primary: The object whose name is the release's.
        revision: What `record_release` noted; not looked at when empty.
        deployments: All that must be rolled out.
        pods: Label selector of the release's pods, of every revision.
        conditions: Conditions of the primary object that must be True for its generation.
        build: Name of the BentoRequest that makes the image; empty when there is none.
        url: Root of the HTTP service, for a last request; skipped when empty.
    """

    primary: ObjectRef
    revision: str = ""
    deployments: tuple[WatchedDeployment, ...] = ()
    pods: str = ""
    conditions: tuple[str, ...] = ()
    build: str = ""
    url: str = ""


def watched_release(manifests: Sequence[Manifest]) -> Watched:
    """Describe rendered manifests, or the live objects that they became.

    Args:
        manifests: The objects of one release: a BentoDeployment with its Bento or
            BentoRequest, an InferenceService, or a Deployment with its Service.
    """
    primary = primary_of(manifests)
    if primary["kind"] == "BentoDeployment":
        return _bento_deployment(primary, manifests)
    if primary["kind"] == "InferenceService":
        return _inference_service(primary, manifests)
    if primary["kind"] == "BentoRequest":
        ref = ObjectRef.of(primary)
        return Watched(ref, revision=_revision(ref, manifests), build=ref.name)
    return _workload(primary, manifests)


def _bento_deployment(primary: Manifest, manifests: Sequence[Manifest]) -> Watched:
    """yatai-deployment: `<bd>` and one `<bd>-runner-<i>` per runner, container `main`."""
    ref = ObjectRef.of(primary)
    named = primary["spec"]["bento"]
    bentos = {
        manifest["kind"]: manifest
        for manifest in manifests
        if manifest["kind"] in ("Bento", "BentoRequest") and manifest["metadata"]["name"] == named
    }
    request = bentos.get("BentoRequest")
    spec = (bentos.get("Bento") or request or {}).get("spec") or {}
    tag = str(spec.get("tag") or spec.get("bentoTag") or "")
    version = tag.partition(":")[2]
    overrides = {entry["name"]: entry for entry in primary["spec"].get("runners") or ()}
    pods = {ref.name: primary["spec"].get("extraPodMetadata")}
    for index, runner in enumerate(spec.get("runners") or ()):
        override = overrides.get(runner["name"]) or {}
        pods[f"{ref.name}-runner-{index}"] = override.get("extraPodMetadata")
    return Watched(
        ref,
        revision=_revision(ref, manifests),
        deployments=tuple(
            WatchedDeployment(
                name,
                image=str(spec.get("image") or ""),
                container="main",
                labels=(("yatai.ai/bento-version", version),) if version else (),
                template=_pod_revision(metadata),
            )
            for name, metadata in pods.items()
        ),
        pods=f"yatai.ai/bento-deployment={ref.name}",
        build=named if request else "",
        url=f"http://{ref.name}.{ref.namespace}.svc:3000",
    )


def _inference_service(primary: Manifest, manifests: Sequence[Manifest]) -> Watched:
    ref = ObjectRef.of(primary)
    spec = primary["spec"]
    kinds = [kind for kind in ("predictor", "transformer", "explainer") if spec.get(kind)]
    parts = [(kind, spec[kind]) for kind in kinds]
    parts += [("predictor", entry["predictor"]) for entry in spec.get("canary") or ()]
    deployments = []
    for kind, part in parts:
        middle = f"-{part['name']}" if part.get("name") else ""
        # A model format leaves the image to the serving runtime.
        container = (part.get("containers") or [{}])[0]
        deployments.append(
            WatchedDeployment(
                f"{ref.name}{middle}-{kind}",
                image=str(container.get("image") or ""),
                container=str(container.get("name") or "kserve-container"),
                template=_pod_revision(part),
                minimum=int(part.get("minReplicas", 1)),
            )
        )
    return Watched(
        ref,
        revision=_revision(ref, manifests),
        deployments=tuple(deployments),
        pods=f"serving.kserve.io/inferenceservice={ref.name}",
        conditions=(*(f"{kind.capitalize()}Ready" for kind in kinds), "Ready"),
    )


def _workload(primary: Manifest, manifests: Sequence[Manifest]) -> Watched:
    ref = ObjectRef.of(primary)
    deployments = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    selectors = [dict(entry["spec"]["selector"]["matchLabels"]) for entry in deployments]
    shared = {
        key: value
        for key, value in selectors[0].items()
        if all(selector.get(key) == value for selector in selectors)
    }
    watched = []
    for entry in deployments:
        template = entry["spec"]["template"]
        container = template["spec"]["containers"][0]
        watched.append(
            WatchedDeployment(
                entry["metadata"]["name"],
                image=container["image"],
                container=container["name"],
                template=_pod_revision(template.get("metadata")),
            )
        )
    return Watched(
        ref,
        revision=_revision(ref, manifests),
        deployments=tuple(watched),
        pods=",".join(f"{key}={value}" for key, value in sorted(shared.items())),
        url=_service_url(ref, manifests),
    )


def _service_url(ref: ObjectRef, manifests: Sequence[Manifest]) -> str:
    for manifest in manifests:
        if manifest["kind"] == "Service" and manifest["metadata"]["name"] == ref.name:
            return f"http://{ref.name}.{ref.namespace}.svc:{manifest['spec']['ports'][0]['port']}"
    return ""


def _pod_revision(metadata: Manifest | None) -> tuple[tuple[str, str], ...]:
    found = ((metadata or {}).get("annotations") or {}).get(POD_REVISION)
    return ((POD_REVISION, found),) if found else ()


def _revision(primary: ObjectRef, manifests: Sequence[Manifest]) -> str:
    holder = holder_of(primary)
    for manifest in manifests:
        if ObjectRef.of(manifest) == holder:
            return revision_on(manifest)
    return ""
