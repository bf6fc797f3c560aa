"""KServe's InferenceService (`serving.kserve.io/v1beta1`), in both of its deployment modes.

Two kinds of predictor:

* **Our image** as a custom predictor, on port 3000, HTTP/1.1 only. KServe routes any path to it.
  What builds on KServe's protocols (its batcher, its transformers, the URL in the status) wants to
  know which one the bento has: PROTOCOL is the variable where KServe looks for it (`GetProtocol` of
  its `CustomPredictor`), v1 where it is not set. KServe's clients address a model by the name of
  its InferenceService, so a generated service is told that name.
* **A storage URI** with a model format, for KServe's own runtimes; no image, no bento needed.

KServe renamed its modes in 0.16. From then on it writes the new name
over an old one; before, it refuses every update that spells the mode otherwise, and takes a name
that it does not know for its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.options.network_policy import policy_manifests
from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.options.provenance import pod_revision, provenance
from kfp_bento.runtime.deployments.options.quantities import pod_resources
from kfp_bento.runtime.deployments.targets.kserve.kinds import INFERENCE_SERVICE_KIND
from kfp_bento.runtime.deployments.targets.kserve.options import (
    AUTOSCALER_CLASS,
    InferenceServiceOptions,
    Scaling,
    Side,
)
from kfp_bento.runtime.deployments.targets.kserve.rules import (
    canary_name,
    checked_name,
    protocol_of,
)
from kfp_bento.runtime.deployments.targets.kserve.watch import (
    CONTAINER,
    LIVE_SHAPES,
    MODE,
    inference_service_url,
    stale_components,
    watched_inference_service,
)
from kfp_bento.runtime.deployments.targets.pods import (
    LIFECYCLE,
    POD_SECURITY,
    PORT,
    bento_container,
    check_token,
    pod_spec,
)
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.deployments.targets.target import (
    CONFIG_MAP,
    CONTROLLED,
    POLICY,
    Canary,
    Target,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

KIND = "inference-service"

MODEL_NAME = "KFP_BENTO_MODEL_NAME"
"""One more name of the model, to a generated service with a single one."""

_PROTOCOL = "kfp-bento/protocol"
_FACTS_SUFFIX = "-kfp-bento"
# Of a transformer or explainer, whose image has a user of its own.
_SIDE_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

# What KServe's webhook fills in key by key where a container says nothing.
KSERVE_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "1", "memory": "2Gi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}


@dataclass(frozen=True)
class _Served:
    """What serves: an image, unless the options have a stored model.

    Attributes:
        image: Image by digest.
        name: Name of the InferenceService.
        protocol: The protocol that is spoken.
        generated: Whether kfp-bento wrote the service.
    """

    image: str
    name: str
    protocol: str
    generated: bool


def inference_service_manifests(
    image: str, bento: BentoFacts | None, options: InferenceServiceOptions
) -> tuple[Manifest, ...]:
    """Give the InferenceService of an image, or of a stored model, and a ConfigMap of facts.

    Args:
        image: Image by digest; "" with `storage_uri`.
        bento: The bento inside the image; None is possible with `storage_uri` and a `name`.
        options: What the user chose.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    name = checked_name(image, bento, options)
    check_token(options, None if options.storage_uri else bento)
    protocol = protocol_of(bento, options)
    served = _Served(image, name, protocol, bento is not None and bento.generated)
    annotations: dict[str, str] = {**options.annotations, MODE: options.deployment_mode}
    if options.standard and options.autoscaling.scale_metric:
        # Without it KServe's webhook checks the metric as if it were Knative's.
        annotations[AUTOSCALER_CLASS] = "hpa"
    metadata = {
        "name": name,
        "namespace": options.namespace,
        "labels": dict(options.labels),
        "annotations": annotations,
    }
    spec = {
        "predictor": _predictor(served, options),
        "transformer": _side("transformer", options.transformer, options),
        "explainer": _side("explainer", options.explainer, options),
        "canary": _canary(served, options),
    }
    facts = _facts(metadata, {**(provenance(bento) if bento else {}), _PROTOCOL: protocol})
    return (
        facts,
        *_policy(name, facts["metadata"], options),
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": without_empty(metadata),
            "spec": without_empty(spec),
        },
    )


def _pods_of(name: str) -> dict[str, str]:
    """Give the label of all pods that KServe makes of an InferenceService."""
    return {"serving.kserve.io/inferenceservice": name}


def _policy(
    name: str, facts: Mapping[str, Any], options: InferenceServiceOptions
) -> list[Manifest]:
    """Who may talk with the pods; the ports of a runtime, and of KServe's agent, are its own."""
    agent = options.storage_uri or options.logger or options.batcher
    sides = [side for side in (options.transformer, options.explainer) if side]
    ports = [] if agent else sorted({PORT, *(side.port for side in sides)})
    return policy_manifests({**facts, "name": name}, _pods_of(name), options.network_policy, ports)


def _facts(metadata: Mapping[str, Any], facts: Mapping[str, str]) -> Manifest:
    """Give a ConfigMap that says what serves.

    On the InferenceService itself KServe would hand the annotations on to the pods, and each
    change of them would start those again, a canary's stable neighbours too.
    """
    place = {
        "name": f"{metadata['name']}{_FACTS_SUFFIX}",
        "namespace": metadata["namespace"],
        "labels": metadata["labels"],
        "annotations": dict(facts),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": without_empty(place)}


def _predictor(served: _Served, options: InferenceServiceOptions) -> dict[str, Any]:
    stable = options
    if options.canary_percent is not None and options.standard:
        stable = options.model_copy(update={"storage_uri": options.stable_storage_uri})
    predictor = {
        **_part(served, stable),
        **_scaling(options.autoscaling),
        "name": options.predictor_name,
        "canaryTrafficPercent": None if options.standard else options.canary_percent,
    }
    return without_empty(predictor)


def _canary(served: _Served, options: InferenceServiceOptions) -> list[dict[str, Any]]:
    """Beside the stable predictor; KServe fills in from that what is not said here."""
    if options.canary_percent is None or not options.standard:
        return []
    part = _part(served, options)
    predictor = {
        **part,
        # The definition wants a name here, which the webhook refuses in a stable predictor.
        "model": {**part["model"], "name": CONTAINER},
        "name": options.canary_name or canary_name(options.storage_uri),
        "minReplicas": options.canary_replicas or None,
    }
    return [{"trafficPercent": options.canary_percent, "predictor": without_empty(predictor)}]


def _part(served: _Served, options: InferenceServiceOptions) -> dict[str, Any]:
    """All of a predictor that makes its pods: equal for a canary and what it is promoted to."""
    part = {
        "timeout": options.timeout or None,
        "containerConcurrency": options.container_concurrency or None,
        "batcher": _batcher(served.protocol, options),
        "logger": options.logger.model_dump() if options.logger else None,
        **_pods(served.name, options, _subject(served, options)),
    }
    return _marked(without_empty(part), options)


def _subject(served: _Served, options: InferenceServiceOptions) -> dict[str, Any]:
    """Give what a predictor runs: our container, or a stored model."""
    resources = pod_resources("resources", options.resources, KSERVE_DEFAULTS, "KServe's default")
    if options.storage_uri:
        model = {
            "modelFormat": without_empty(
                {
                    "name": options.model_format,
                    "version": options.model_version,
                }
            ),
            "protocolVersion": served.protocol,
            "runtime": options.runtime,
            "storageUri": options.storage_uri,
            "env": options.envs,
            "envFrom": options.env_from,
            "resources": resources,
        }
        return {"model": without_empty(model)}
    container = bento_container(
        CONTAINER,
        served.image,
        options,
        resources=resources,
        port_name=options.port_name,
        startup_probe=options.standard,
    )
    if options.standard:
        # Knative's queue-proxy waits by itself.
        container["lifecycle"] = dict(LIFECYCLE)
    if served.protocol != "bentoml":
        given = container.get("env", [])
        said = {"PROTOCOL": served.protocol}
        if served.generated and MODEL_NAME not in [one["name"] for one in given]:
            said[MODEL_NAME] = served.name
        container["env"] = [*({"name": key, "value": said[key]} for key in said), *given]
    return {"containers": [container]}


def _pods(
    name: str, options: InferenceServiceOptions, subject: Mapping[str, Any]
) -> dict[str, Any]:
    labels = {**_pods_of(name), "component": "predictor"}
    container = (subject.get("containers") or [{}])[0]
    spec = pod_spec(container, options, labels)
    if not options.standard:
        # Knative ends a pod by the request's timeout, and has no field for it.
        del spec["terminationGracePeriodSeconds"]
    if "model" in subject:
        # The runtime brings containers, volumes and identity.
        del spec["containers"], spec["volumes"], spec["automountServiceAccountToken"]
    elif options.standard:
        spec["securityContext"] = dict(POD_SECURITY)
    return {**spec, **subject}


def _marked(part: dict[str, Any], options: InferenceServiceOptions) -> dict[str, Any]:
    """Label and annotate the pods, with a digest of all that makes them differ."""
    extra = without_empty(options.extra_pod_metadata)
    annotations = {**extra.get("annotations", {}), POD_REVISION: pod_revision(part, extra)}
    return without_empty({**part, "labels": extra.get("labels"), "annotations": annotations})


def _side(kind: str, side: Side | None, options: InferenceServiceOptions) -> dict[str, Any]:
    if side is None:
        return {}
    container = {
        "name": CONTAINER,
        "image": side.image,
        "command": side.command,
        "args": side.args,
        "ports": [{"name": "http1", "containerPort": side.port, "protocol": "TCP"}],
        "env": side.envs,
        "envFrom": side.env_from,
        "resources": pod_resources(
            f"{kind}.resources", side.resources, KSERVE_DEFAULTS, "KServe's default"
        ),
        "securityContext": dict(_SIDE_SECURITY),
    }
    part = {
        **_scaling(side),
        "containers": [without_empty(container)],
        "serviceAccountName": side.service_account,
        "imagePullSecrets": [{"name": one} for one in options.image_pull_secrets],
        "annotations": {POD_REVISION: pod_revision(without_empty(container))},
    }
    return without_empty(part)


def _scaling(scaling: Scaling) -> dict[str, Any]:
    said = {
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.highest,
        "scaleMetric": scaling.scale_metric,
        "scaleTarget": scaling.scale_target,
    }
    return without_empty(said)


def _batcher(protocol: str, options: InferenceServiceOptions) -> dict[str, int]:
    if options.batcher is None:
        return {}
    if protocol != "v1":
        raise InvalidInput(
            f"batcher: KServe batches requests of protocol v1 only (/v1/models/...:predict); those "
            f"of protocol {protocol} pass it by.",
            hint="Say protocol v1 where the bento speaks it, or let the service batch: "
            "build_bento has max_batch_size, BentoML @bentoml.api(batchable=True).",
        )
    return options.batcher.given()


def _names(release: str, live: Manifest) -> tuple[str, ...]:
    return (f"{release}{_FACTS_SUFFIX}" if live["kind"] == CONFIG_MAP.name else release,)


INFERENCE_SERVICE = Target(
    kind=KIND,
    options_type=InferenceServiceOptions,
    sets_port=lambda options: not options.standard,
    renderer=inference_service_manifests,
    kinds=(INFERENCE_SERVICE_KIND, CONFIG_MAP, POLICY),
    address=inference_service_url,
    watcher=watched_inference_service,
    names=_names,
    facts_beside=(CONFIG_MAP, _FACTS_SUFFIX),
    live_shapes=LIVE_SHAPES,
    owned=CONTROLLED,
    stale_owned=stale_components,
    needs_bento=False,
    installs={
        "serving.kserve.io": "Install KServe. The target workload needs nothing but Kubernetes."
    },
    # Knative keeps the previous revision itself, and only the whole answers at an address.
    canary=Canary(lambda percent, stable: {"canary_percent": percent}),
)
