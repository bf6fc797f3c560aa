"""KServe's InferenceService (`serving.kserve.io/v1beta1`), in both of its deployment modes.

Two kinds of predictor:

* **Our image** as a custom predictor. It speaks the bento's own HTTP API (`POST /predict` in
  services that kfp-bento generates) on port 3000, HTTP/1.1 only, and not KServe's `/v1/models`
  or `/v2/models`. KServe routes any path to it, so that works as it is; what builds on KServe's
  protocol does not, namely its batcher, and its transformers that call `:predict`. A bento that
  has such routes itself says so with `protocol`, which becomes the variable PROTOCOL where
  KServe looks for it.
* **A storage URI** with a model format, for KServe's own runtimes; no image, no bento needed.

What KServe does was read in its sources and seen with 0.15 and 0.20: `canaryTrafficPercent` is
honoured by Knative alone and silently ignored otherwise; `spec.canary` (0.20) in Standard mode
alone, and there for stored models alone, with a Deployment and a Service
`<name>-<canary>-predictor`. KServe renamed its modes in 0.16. From then on it writes the new name
over an old one; before, it refuses every update that spells the mode otherwise, and takes a name
that it does not know for its default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest
from kfp_bento.runtime.deployments.kube.shapes import settled
from kfp_bento.runtime.deployments.options.names import deployment_name, deployment_name_problem
from kfp_bento.runtime.deployments.options.options import (
    Listing,
    Object,
    choice,
    listing,
    mapping,
    text,
    whole_number,
    without_empty,
)
from kfp_bento.runtime.deployments.options.pod_settings import (
    container_env,
    label_settings,
    metadata_annotations,
    pod_metadata,
)
from kfp_bento.runtime.deployments.options.pods import (
    POD_SECURITY,
    PORT,
    PodOptions,
    bento_container,
    check_image,
    check_place,
    check_token,
    env_sources,
    pod_spec,
)
from kfp_bento.runtime.deployments.options.provenance import check_tag, pod_revision, provenance
from kfp_bento.runtime.deployments.options.quantities import pod_resources
from kfp_bento.runtime.deployments.targets.kserve.shapes import (
    AUTOSCALER_CLASS,
    FACTS_SUFFIX,
    HEADERS,
    PROTOCOL,
    PROTOCOLS,
    RESERVED_ENVS,
    RESERVED_LABELS,
    SIDE_SECURITY,
    check_logger,
    check_storage,
    misplaced_annotations,
    pods_of,
)
from kfp_bento.runtime.deployments.targets.kserve.watch import (
    CONTAINER,
    KNATIVE_MODES,
    LIVE_SHAPES,
    MODE,
    STANDARD_MODES,
    inference_service_url,
    stale_components,
    watched_inference_service,
)
from kfp_bento.runtime.deployments.targets.network_policy import (
    check_who_is_called,
    policy_manifests,
)
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.deployments.targets.target import (
    CONFIG_MAP,
    CONTROLLED,
    INFERENCE_SERVICE_KIND,
    POLICY,
    Target,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

KIND = "inference-service"
MODES = STANDARD_MODES + KNATIVE_MODES

# What KServe's webhook fills in key by key where a container says nothing.
KSERVE_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "1", "memory": "2Gi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}
# Parts of a pod that Knative refuses unless a feature of the cluster allows them.
KNATIVE_FEATURES: Mapping[str, str] = {
    "node_selector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
    "affinity": "kubernetes.podspec-affinity",
    "topology_spread": "kubernetes.podspec-topologyspreadconstraints",
    "priority_class": "kubernetes.podspec-priorityclassname",
    "runtime_class": "kubernetes.podspec-runtimeclassname",
    "scheduler_name": "kubernetes.podspec-schedulername",
}

_SIDE_SETTINGS = (
    "image",
    "command",
    "args",
    "envs",
    "env_from",
    "resources",
    "port",
    "minReplicas",
    "maxReplicas",
    "scaleTarget",
    "scaleMetric",
    "service_account",
)
_LARGEST_BATCH = 100_000


@dataclass(frozen=True, kw_only=True)
class InferenceServiceOptions(PodOptions):
    """How an image, or a stored model, becomes an InferenceService.

    Attributes:
        mode: Standard or Knative (KServe 0.16 and later), RawDeployment or Serverless (before).
        autoscaling: `minReplicas` (0 in Knative mode only), `maxReplicas`, `scaleTarget`, and
            `scaleMetric`: cpu or memory in Standard, concurrency or rps in Knative mode.
        container_concurrency: Requests at once per pod; Knative mode only.
        timeout: Longest request in seconds; 0 for KServe's default.
        protocol: bentoml (the bento's own API), or v1 or v2 where the bento itself has KServe's
            routes. For `storage_uri` the protocol of the runtime, v1 unless said otherwise.
        port_name: http1; BentoML's server has no cleartext HTTP/2 (h2c).
        storage_uri: A stored model instead of an image.
        model_format: Its format, such as "mlflow".
        model_version: Version of the format, such as "2".
        runtime: A ServingRuntime by name; KServe chooses by format otherwise.
        batcher: `maxBatchSize`, `maxLatency` (ms), `timeout` (s); only for protocol v1.
        logger: `url` that receives requests and responses, `mode` all, request or response.
        transformer: A container in front of the predictor: `image` by digest, `command`, `args`,
            `envs`, `env_from`, `resources`, `port`, `minReplicas`, `maxReplicas`, `scaleTarget`,
            `scaleMetric`, `service_account`.
        explainer: The same beside it.
        canary_percent: Share of requests that the new image gets.
        stable_storage_uri: In Standard mode the stored model that serves now; Knative remembers it
            itself.
        canary_name: Name of the canary's predictor in Standard mode; made from the model's URI when
            empty. To promote it without a restart, give it as `predictor_name`.
        predictor_name: Name of the stable predictor (KServe 0.20), which may change together with
            the model only; none when empty.
        canary_replicas: Pods of the canary in Standard mode; 0 lets KServe derive them.
        knative_features: Features that the cluster's Knative has enabled, such as
            kubernetes.podspec-nodeselector.
    """

    mode: str = "Standard"
    container_concurrency: int = 0
    timeout: int = 0
    protocol: str = ""
    port_name: str = "http1"
    storage_uri: str = ""
    model_format: str = ""
    model_version: str = ""
    runtime: str = ""
    batcher: Object | None = None
    logger: Object | None = None
    transformer: Object | None = None
    explainer: Object | None = None
    canary_percent: int | None = None
    stable_storage_uri: str = ""
    canary_name: str = ""
    predictor_name: str = ""
    canary_replicas: int = 0
    knative_features: Listing = ()

    @property
    def standard(self) -> bool:
        """Whether KServe makes Deployments itself, without Knative."""
        return self.mode in STANDARD_MODES


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
    choice("mode", options.mode, MODES)
    check_place(options)
    _check_subject(image, bento, options)
    _check_mode(options)
    check_token(options, None if options.storage_uri else bento)
    name = _service_name(bento, options)
    _check_canary(name, options)
    protocol = _protocol(bento, options)
    annotations: dict[str, str] = {
        **metadata_annotations(
            "annotations", options.annotations, misplaced_annotations(standard=options.standard)
        ),
        MODE: options.mode,
    }
    if options.standard and (options.autoscaling or {}).get("scaleMetric"):
        # Without it KServe's webhook checks the metric as if it were Knative's.
        annotations[AUTOSCALER_CLASS] = "hpa"
    metadata = {
        "name": name,
        "namespace": options.namespace,
        "labels": label_settings("labels", options.labels, RESERVED_LABELS),
        "annotations": annotations,
    }
    spec = {
        "predictor": _predictor(image, name, protocol, options),
        "transformer": _side("transformer", name, options),
        "explainer": _side("explainer", name, options),
        "canary": _canary(name, protocol, options),
    }
    facts = _facts(metadata, {**(provenance(bento) if bento else {}), PROTOCOL: protocol})
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


def _policy(
    name: str, facts: Mapping[str, Any], options: InferenceServiceOptions
) -> list[Manifest]:
    """Who may talk with the pods; the ports of a runtime, and of KServe's agent, are its own."""
    given = options.network_policy
    if given and not options.standard:
        raise InvalidInput(
            f"network_policy: in mode {options.mode} requests come through Knative's activator, "
            "queue-proxy and ingress, from namespaces and on ports that only the cluster knows.",
            hint="Use mode Standard, or write the policy for the whole namespace yourself.",
        )
    if options.storage_uri:
        check_who_is_called(given, "storage_uri", "the storage of the model")
    if options.logger:
        check_who_is_called(given, "logger", "the receiver of its log")
    agent = options.storage_uri or options.logger or options.batcher
    sides = [side for side in (options.transformer, options.explainer) if side]
    ports = [] if agent else sorted({PORT, *(int(side.get("port", 8080)) for side in sides)})
    return policy_manifests({**facts, "name": name}, pods_of(name), given, ports)


def _facts(metadata: Mapping[str, Any], facts: Mapping[str, str]) -> Manifest:
    """A ConfigMap that says what serves.

    On the InferenceService itself KServe would hand the annotations on to the pods, and each
    change of them would start those again, a canary's stable neighbours too.
    """
    place = {
        "name": f"{metadata['name']}{FACTS_SUFFIX}",
        "namespace": metadata["namespace"],
        "labels": metadata["labels"],
        "annotations": dict(facts),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": without_empty(place)}


def canary_name(storage_uri: str) -> str:
    """Give the name of a stored model's canary in Standard mode: `r` and 12 hex digits."""
    return f"r{hashlib.sha256(storage_uri.encode()).hexdigest()[:12]}"


def _check_subject(image: str, bento: BentoFacts | None, options: InferenceServiceOptions) -> None:
    """Either an image of a bento, or a stored model."""
    if options.storage_uri:
        if image:
            raise InvalidInput(
                "storage_uri: the image has its model inside; KServe would ignore one of them.",
                hint="Give the image, or storage_uri with model_format and no image.",
            )
        _check_stored(options)
        return
    for field in ("model_format", "model_version", "runtime"):
        if getattr(options, field):
            raise InvalidInput(
                f"{field}: KServe uses it for stored models only.",
                hint="Give storage_uri, or leave it out.",
            )
    check_image("image", image)
    if bento is None:
        raise InvalidInput("bento: an image needs the bento it was made of.", hint="Give it.")
    check_tag(bento)


def _check_stored(options: InferenceServiceOptions) -> None:
    check_storage("storage_uri", options.storage_uri)
    if not options.model_format:
        raise InvalidInput(
            "model_format: it is missing; KServe chooses a runtime by it.",
            hint="For example 'mlflow', 'sklearn' or 'xgboost'.",
        )
    fixed = {
        "writable_home": options.writable_home,
        "secret_files": options.secret_files,
        "config_files": options.config_files,
        "shared_memory": options.shared_memory,
    }
    for field, value in fixed.items():
        if value:
            raise InvalidInput(
                f"{field}: the pod of a stored model is its runtime's.",
                hint="Set it in the ServingRuntime.",
            )


def _check_mode(options: InferenceServiceOptions) -> None:
    if options.port_name != "http1":
        choice("port_name", options.port_name, ("http1", "h2c"))
        raise InvalidInput(
            "port_name: 'h2c' promises HTTP/2 without TLS, which BentoML's server does not speak.",
            hint="Leave it at http1.",
        )
    if options.standard:
        for field in ("container_concurrency", "knative_features"):
            if getattr(options, field):
                raise InvalidInput(
                    f"{field}: mode {options.mode} has no Knative, and ignores it.",
                    hint="Leave it out, or use mode Knative.",
                )
        return
    for field, feature in KNATIVE_FEATURES.items():
        if getattr(options, field) and feature not in options.knative_features:
            raise InvalidInput(
                f"{field}: Knative refuses it unless its feature {feature} is enabled.",
                hint=f"Where the cluster has it, set knative_features=['{feature}']; or use mode "
                "Standard.",
            )


def _check_canary(name: str, options: InferenceServiceOptions) -> None:
    beside = ("stable_storage_uri", "canary_name", "canary_replicas")
    if options.canary_percent is None:
        for field in beside:
            if getattr(options, field):
                raise InvalidInput(
                    f"{field}: without canary_percent it would do nothing.",
                    hint="Set canary_percent, or leave it out.",
                )
    else:
        whole_number("canary_percent", options.canary_percent, 0, 100)
    if options.predictor_name and options.mode != "Standard":
        raise InvalidInput(
            f"predictor_name: mode {options.mode} has no named predictors.",
            hint="They came with KServe 0.20, in mode Standard.",
        )
    if options.predictor_name:
        _check_part_name("predictor_name", options.predictor_name, name)
    if options.canary_percent is None:
        return
    if options.mode == "RawDeployment":
        raise InvalidInput(
            "canary_percent: KServe before 0.16 silently ignores it in mode RawDeployment, and "
            "all requests would go to the new image at once.",
            hint="Use mode Serverless, or the target workload with a route.",
        )
    if not options.standard:
        for field in beside:
            if getattr(options, field):
                raise InvalidInput(
                    f"{field}: in mode {options.mode} Knative keeps the previous revision itself.",
                    hint="Leave it out.",
                )
        return
    if not options.storage_uri:
        raise InvalidInput(
            "canary_percent: in mode Standard KServe takes canaries of stored models only, and "
            "none of an image.",
            hint="Use mode Knative, or the target workload with a route.",
        )
    if not options.stable_storage_uri:
        raise InvalidInput(
            "stable_storage_uri: in mode Standard KServe keeps no previous revision; a canary "
            "stands beside a model that is named.",
            hint="Give the model that serves now.",
        )
    check_storage("stable_storage_uri", options.stable_storage_uri)
    if options.stable_storage_uri == options.storage_uri:
        raise InvalidInput(
            "stable_storage_uri: it is the canary's own model.",
            hint="Give the one that serves now.",
        )
    chosen = options.canary_name or canary_name(options.storage_uri)
    if chosen == options.predictor_name:
        raise InvalidInput(
            f"canary_name: {chosen!r} is the stable predictor's.", hint="Choose another name."
        )
    _check_part_name("canary_name", chosen, name)
    lowest = whole_number(
        "autoscaling.minReplicas", (options.autoscaling or {}).get("minReplicas", 1)
    )
    if options.canary_replicas > lowest:
        raise InvalidInput(
            f"canary_replicas: {options.canary_replicas} is more than autoscaling.minReplicas, "
            f"which is {lowest}; KServe takes them out of those.",
            hint="Raise minReplicas, or lower canary_replicas.",
        )


def _check_part_name(field: str, part: str, name: str) -> None:
    whole = f"{name}-{part}-predictor"
    if deployment_name_problem(part) or len(whole) > 63:
        raise InvalidInput(
            f"{field}: {part!r} makes the Service {whole!r}, which is no DNS-1035 label of at "
            "most 63 characters.",
            hint="Choose a shorter name of lower-case letters, digits and '-'.",
        )


def _service_name(bento: BentoFacts | None, options: InferenceServiceOptions) -> str:
    if not options.name and bento is None:
        raise InvalidInput("name: it is missing, and there is no bento.", hint="Give a name.")
    name = deployment_name(bento.name if bento else "", options.name)
    host = f"{name}-predictor-{options.namespace}"
    if len(host) > 63:
        raise InvalidInput(
            f"name: {host!r} becomes one label of a host name and has {len(host)} characters; "
            "63 are allowed.",
            hint="Choose a shorter name.",
        )
    return name


def _protocol(bento: BentoFacts | None, options: InferenceServiceOptions) -> str:
    if options.storage_uri:
        return choice("protocol", options.protocol or "v1", ("v1", "v2"))
    protocol = choice("protocol", options.protocol or "bentoml", PROTOCOLS)
    if protocol == "bentoml" or bento is None:
        return protocol
    if bento.generated:
        raise InvalidInput(
            f"protocol: {bento.tag} is a service that kfp-bento generated; it has /predict and "
            f"none of KServe's {protocol} routes.",
            hint="Leave protocol out, or write a service that has them.",
        )
    return protocol


def _predictor(
    image: str, name: str, protocol: str, options: InferenceServiceOptions
) -> dict[str, Any]:
    beside = options.canary_percent is not None and options.standard
    served = options.replaced(storage_uri=options.stable_storage_uri) if beside else options
    predictor = {
        **_part(image, name, protocol, served),
        **_scaling("autoscaling", options.autoscaling or {}, options),
        "name": options.predictor_name,
        "canaryTrafficPercent": None if options.standard else options.canary_percent,
    }
    return without_empty(predictor)


def _canary(name: str, protocol: str, options: InferenceServiceOptions) -> list[dict[str, Any]]:
    """Beside the stable predictor; KServe fills in from that what is not said here."""
    if options.canary_percent is None or not options.standard:
        return []
    part = _part("", name, protocol, options)
    predictor = {
        **part,
        # The definition wants a name here, which the webhook refuses in a stable predictor.
        "model": {**part["model"], "name": CONTAINER},
        "name": options.canary_name or canary_name(options.storage_uri),
        "minReplicas": options.canary_replicas or None,
    }
    return [{"trafficPercent": options.canary_percent, "predictor": without_empty(predictor)}]


def _part(image: str, name: str, protocol: str, options: InferenceServiceOptions) -> dict[str, Any]:
    """All of a predictor that makes its pods: equal for a canary and what it is promoted to."""
    part = {
        "timeout": options.timeout or None,
        "containerConcurrency": options.container_concurrency or None,
        "batcher": _batcher(protocol, options),
        "logger": _logger(options),
        **_pods("predictor", name, options, _subject(image, protocol, options)),
    }
    return _marked(without_empty(part), options)


def _subject(image: str, protocol: str, options: InferenceServiceOptions) -> dict[str, Any]:
    """What a predictor runs: our container, or a stored model."""
    resources = pod_resources(
        "resources", options.resources, KSERVE_DEFAULTS, filled_by="KServe's default"
    )
    if options.storage_uri:
        model = {
            "modelFormat": without_empty(
                {"name": options.model_format, "version": options.model_version}
            ),
            "protocolVersion": protocol,
            "runtime": options.runtime,
            "storageUri": options.storage_uri,
            "env": container_env("envs", options.envs, {}),
            "envFrom": env_sources("env_from", options.env_from),
            "resources": resources,
        }
        return {"model": without_empty(model)}
    container = bento_container(
        CONTAINER,
        image,
        options,
        resources=resources,
        port_name=options.port_name,
        reserved=RESERVED_ENVS,
        startup_probe=options.standard,
    )
    if protocol != "bentoml":
        said = {"name": "PROTOCOL", "value": protocol}
        container["env"] = [said, *container.get("env", [])]
    return {"containers": [container]}


def _pods(
    component: str, name: str, options: InferenceServiceOptions, subject: Mapping[str, Any]
) -> dict[str, Any]:
    labels = {"serving.kserve.io/inferenceservice": name, "component": component}
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
    extra = pod_metadata("extra_pod_metadata", options.extra_pod_metadata, RESERVED_LABELS)
    annotations = {**extra.get("annotations", {}), POD_REVISION: pod_revision(part, extra)}
    return without_empty({**part, "labels": extra.get("labels"), "annotations": annotations})


def _side(kind: str, name: str, options: InferenceServiceOptions) -> dict[str, Any]:
    """A transformer or explainer: another container with an API of its own."""
    given = getattr(options, kind)
    if not given:
        return {}
    mapping(kind, given, _SIDE_SETTINGS)
    check_image(f"{kind}.image", text(f"{kind}.image", given.get("image", "")))
    port = whole_number(f"{kind}.port", given.get("port", 8080), 1, 65535)
    own = PodOptions.of(
        KIND,
        {
            "namespace": options.namespace,
            "service_account": given.get("service_account", ""),
            "image_pull_secrets": options.image_pull_secrets,
        },
    )
    check_place(own)
    container = {
        "name": CONTAINER,
        "image": given["image"],
        "command": _words(f"{kind}.command", given.get("command")),
        "args": _words(f"{kind}.args", given.get("args")),
        "ports": [{"name": "http1", "containerPort": port, "protocol": "TCP"}],
        "env": container_env(f"{kind}.envs", given.get("envs"), {}),
        "envFrom": env_sources(f"{kind}.env_from", given.get("env_from")),
        "resources": pod_resources(
            f"{kind}.resources",
            given.get("resources"),
            KSERVE_DEFAULTS,
            filled_by="KServe's default",
        ),
        "securityContext": dict(SIDE_SECURITY),
    }
    scaling = _scaling(
        kind,
        {
            key: given[key]
            for key in ("minReplicas", "maxReplicas", "scaleTarget", "scaleMetric")
            if key in given
        },
        options,
    )
    part = {
        **scaling,
        "containers": [without_empty(container)],
        "serviceAccountName": own.service_account,
        "imagePullSecrets": [{"name": one} for one in own.image_pull_secrets],
        "annotations": {POD_REVISION: pod_revision(without_empty(container))},
    }
    return without_empty(part)


def _words(field: str, given: Any) -> list[str]:
    return [
        text(f"{field}[{index}]", word) for index, word in enumerate(listing(field, given or []))
    ]


def _scaling(
    field: str, given: Mapping[str, Any], options: InferenceServiceOptions
) -> dict[str, Any]:
    for key, instead in {"metrics": "scaleMetric and scaleTarget", "behavior": "nothing"}.items():
        if key in given:
            raise InvalidInput(
                f"{field}.{key}: an InferenceService that works on every version of KServe has "
                f"no such field.",
                hint=f"Use {instead} instead, or the target workload.",
            )
    mapping(field, given, ("minReplicas", "maxReplicas", "scaleTarget", "scaleMetric"))
    lowest = whole_number(f"{field}.minReplicas", given.get("minReplicas", 1))
    if lowest == 0 and options.standard:
        raise InvalidInput(
            f"{field}.minReplicas: 0 is not honoured in mode {options.mode}; KServe makes it 1.",
            hint="Set 1, or use mode Knative, which scales to zero.",
        )
    highest = whole_number(f"{field}.maxReplicas", given.get("maxReplicas", max(lowest, 1)), 1)
    if highest < lowest:
        raise InvalidInput(
            f"{field}.maxReplicas: {highest} is below minReplicas {lowest}.",
            hint="Set maxReplicas to at least minReplicas.",
        )
    scaling: dict[str, Any] = {"minReplicas": lowest, "maxReplicas": highest}
    metrics = ("cpu", "memory") if options.standard else ("concurrency", "rps")
    if "scaleMetric" in given:
        metric = text(f"{field}.scaleMetric", given["scaleMetric"])
        if metric not in metrics:
            raise InvalidInput(
                f"{field}.scaleMetric: {metric!r} does not work in mode {options.mode}.",
                hint=f"There it is {' or '.join(metrics)}.",
            )
        scaling["scaleMetric"] = metric
    if "scaleTarget" in given:
        scaling["scaleTarget"] = whole_number(f"{field}.scaleTarget", given["scaleTarget"], 1)
    return scaling


def _batcher(protocol: str, options: InferenceServiceOptions) -> dict[str, int]:
    if not options.batcher:
        return {}
    if protocol != "v1":
        raise InvalidInput(
            f"batcher: KServe batches requests of protocol v1 only (/v1/models/...:predict); those "
            f"of protocol {protocol} pass it by.",
            hint="Let the service batch: @bentoml.api(batchable=True).",
        )
    known = {"maxBatchSize": _LARGEST_BATCH, "maxLatency": 3_600_000, "timeout": 3600}
    mapping("batcher", options.batcher, tuple(known))
    return {
        key: whole_number(f"batcher.{key}", value, 1, known[key])
        for key, value in options.batcher.items()
    }


def _logger(options: InferenceServiceOptions) -> dict[str, str]:
    if not options.logger:
        return {}
    given: dict[str, str] = settled("logger", options.logger, HEADERS)
    check_logger("logger", given)
    return {"mode": "all", **given}


def _names(release: str, live: Manifest) -> tuple[str, ...]:
    return (f"{release}{FACTS_SUFFIX}" if live["kind"] == CONFIG_MAP.name else release,)


INFERENCE_SERVICE = Target(
    kind=KIND,
    options_type=InferenceServiceOptions,
    renderer=inference_service_manifests,
    kinds=(INFERENCE_SERVICE_KIND, CONFIG_MAP, POLICY),
    address=inference_service_url,
    watcher=watched_inference_service,
    names=_names,
    facts_beside=(CONFIG_MAP, FACTS_SUFFIX),
    live_shapes=LIVE_SHAPES,
    owned=CONTROLLED,
    stale_owned=stale_components,
    needs_bento=False,
)
