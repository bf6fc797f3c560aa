"""What KServe would ignore, or refuse too late: checked before anything is rendered.

What it does was read in its sources and seen with 0.15 and 0.20: `canaryTrafficPercent` is honoured
by Knative alone and silently ignored otherwise; `spec.canary` (0.20) in Standard mode alone, and
there for stored models alone, with a Deployment and a Service `<name>-<canary>-predictor`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kfp_bento.runtime.deployments.options.names import (
    deployment_name,
    deployment_name_problem,
)
from kfp_bento.runtime.deployments.options.network_policy import check_who_is_called
from kfp_bento.runtime.deployments.options.provenance import check_tag
from kfp_bento.runtime.deployments.targets.kserve.options import (
    KNATIVE_FEATURES,
    InferenceServiceOptions,
    Scaling,
)
from kfp_bento.runtime.deployments.targets.pods import check_image
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts


def checked_name(image: str, bento: BentoFacts | None, options: InferenceServiceOptions) -> str:
    """Give the name of the InferenceService, after all that KServe would not honour.

    Raises:
        InvalidInput: The first option of that kind.
    """
    _check_subject(image, bento, options)
    _check_mode(options)
    name = _service_name(bento, options)
    _check_canary(name, options)
    if options.predictor_name:
        _check_part_name("predictor_name", options.predictor_name, name)
    _check_policy(options)
    _check_scaling("autoscaling", options.autoscaling, options)
    for field, side in (("transformer", options.transformer), ("explainer", options.explainer)):
        if side:
            _check_scaling(field, side, options)
    return name


def protocol_of(bento: BentoFacts | None, options: InferenceServiceOptions) -> str:
    """Give the protocol that is spoken.

    Raises:
        InvalidInput: The bento, or the runtime of a stored model, has another one.
    """
    if options.storage_uri:
        if options.protocol == "bentoml":
            raise InvalidInput(
                "protocol: a stored model is served by a runtime, which knows no 'bentoml'.",
                hint="One of v1, v2.",
            )
        return options.protocol or "v1"
    spoken = bento.protocols if bento else ()
    first = next((protocol for protocol in ("v2", "v1") if protocol in spoken), "bentoml")
    protocol = options.protocol or first
    if bento and bento.generated and protocol not in (*spoken, "bentoml"):
        raise InvalidInput(
            f"protocol: {bento.tag} is a service that kfp-bento generated, and has none of "
            f"KServe's {protocol} routes.",
            hint=f"Leave protocol out, or build the bento with the protocol {protocol}.",
        )
    return protocol


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
    if options.standard:
        for field in ("container_concurrency", "knative_features"):
            if getattr(options, field):
                raise InvalidInput(
                    f"{field}: mode {options.deployment_mode} has no Knative, and ignores it.",
                    hint="Leave it out, or use deployment_mode Knative.",
                )
        return
    for field, feature in KNATIVE_FEATURES.items():
        if getattr(options, field) and feature not in options.knative_features:
            raise InvalidInput(
                f"{field}: Knative refuses it unless its feature {feature} is enabled.",
                hint=f"Where the cluster has it, set knative_features=['{feature}']; or use "
                "deployment_mode Standard.",
            )


def _check_canary(name: str, options: InferenceServiceOptions) -> None:
    if options.predictor_name and options.deployment_mode != "Standard":
        raise InvalidInput(
            f"predictor_name: mode {options.deployment_mode} has no named predictors.",
            hint="They came with KServe 0.20, in mode Standard.",
        )
    if options.canary_percent is None:
        _refuse_beside(options, "without canary_percent it would do nothing")
    elif options.deployment_mode == "RawDeployment":
        raise InvalidInput(
            "canary_percent: KServe before 0.16 silently ignores it in mode RawDeployment, and "
            "all requests would go to the new image at once.",
            hint="Use deployment_mode Serverless, or the target workload with a route.",
        )
    elif not options.standard:
        reason = f"in mode {options.deployment_mode} Knative keeps the previous revision itself"
        _refuse_beside(options, reason)
    elif not options.storage_uri:
        raise InvalidInput(
            "canary_percent: in mode Standard KServe takes canaries of stored models only, and "
            "none of an image.",
            hint="Use deployment_mode Knative, or the target workload with a route.",
        )
    else:
        _check_stored_canary(name, options)


def _refuse_beside(options: InferenceServiceOptions, reason: str) -> None:
    for field in ("stable_storage_uri", "canary_name", "canary_replicas"):
        if getattr(options, field):
            raise InvalidInput(f"{field}: {reason}.", hint="Leave it out.")


def _check_stored_canary(name: str, options: InferenceServiceOptions) -> None:
    """Give a canary in Standard mode: a second stored model beside the stable one."""
    if not options.stable_storage_uri:
        raise InvalidInput(
            "stable_storage_uri: in mode Standard KServe keeps no previous revision; a canary "
            "stands beside a model that is named.",
            hint="Give the model that serves now.",
        )
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
    lowest = options.autoscaling.min_replicas
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


def _check_policy(options: InferenceServiceOptions) -> None:
    policy = options.network_policy
    if policy and not options.standard:
        raise InvalidInput(
            f"network_policy: in mode {options.deployment_mode} requests come through Knative's "
            "activator, queue-proxy and ingress, from namespaces and on ports that only the "
            "cluster knows.",
            hint="Use deployment_mode Standard, or write the policy for the whole namespace "
            "yourself.",
        )
    if options.storage_uri:
        check_who_is_called(policy, "storage_uri", "the storage of the model")
    if options.logger:
        check_who_is_called(policy, "logger", "the receiver of its log")


def _check_scaling(field: str, scaling: Scaling, options: InferenceServiceOptions) -> None:
    if scaling.min_replicas == 0 and options.standard:
        raise InvalidInput(
            f"{field}.minReplicas: 0 is not honoured in mode {options.deployment_mode}; KServe "
            "makes it 1.",
            hint="Set 1, or use deployment_mode Knative, which scales to zero.",
        )
    metrics = ("cpu", "memory") if options.standard else ("concurrency", "rps")
    if scaling.scale_metric and scaling.scale_metric not in metrics:
        raise InvalidInput(
            f"{field}.scaleMetric: {scaling.scale_metric!r} does not work in mode "
            f"{options.deployment_mode}.",
            hint=f"There it is {' or '.join(metrics)}.",
        )
