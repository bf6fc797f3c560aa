"""Yatai's way to serve a bento: a Bento that names the image and a BentoDeployment of it.

What yatai-deployment 1.1.4 and 1.1.21 do with the fields was read in their
`controllers/bentodeployment_controller.go`; what it drops is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest
from kfp_bento.runtime.deployments.kube.shapes import Fields, settled
from kfp_bento.runtime.deployments.options.core_shapes import ANNOTATIONS, LABELS
from kfp_bento.runtime.deployments.options.names import (
    bento_resource_name,
    deployment_name,
    image_problem,
    label_value_problem,
    namespace_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.options import (
    Listing,
    Object,
    ObjectOrListing,
    Options,
    choice,
    mapping,
    without_empty,
)
from kfp_bento.runtime.deployments.options.pod_settings import (
    Envs,
    annotation_settings,
    autoscaling_settings,
    control_settings,
    env_settings,
    label_settings,
    pod_metadata,
    secret_names,
)
from kfp_bento.runtime.deployments.options.provenance import check_tag, pod_revision, provenance
from kfp_bento.runtime.deployments.options.quantities import container_resources
from kfp_bento.runtime.deployments.targets.network_policy import (
    check_who_has_to_get_in,
    policy_manifests,
)
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.deployments.targets.target import (
    BENTO,
    BENTO_DEPLOYMENT_KIND,
    BENTO_REQUEST_KIND,
    CONTROLLED,
    POLICY,
    Target,
)
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    CRD_GENERATIONS,
    EXTRA_POD_SPEC,
    GENERATION,
    crd_subset,
    portable,
)
from kfp_bento.runtime.deployments.targets.yatai.shapes import (
    check_pod_placement,
    check_sidecars,
    pods_of,
)
from kfp_bento.runtime.deployments.targets.yatai.watch import (
    LIVE_SHAPES,
    bento_of,
    is_named_by,
    names_of,
    service_url,
    stale_runners,
    watched_bento_deployment,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

KIND = "bento-deployment"

_RUNNER_SETTINGS = (
    "name",
    "resources",
    "autoscaling",
    "envs",
    "annotations",
    "extra_pod_metadata",
    "extra_pod_spec",
)


@dataclass(frozen=True, kw_only=True)
class BentoDeploymentOptions(Options):
    """How an image becomes a BentoDeployment.

    Attributes:
        name: Name of the BentoDeployment and its Service: DNS-1035, at most 50 characters;
            derived from the bento's name when empty.
        namespace: Namespace of both resources; the operator must watch it.
        resources: Requests and limits of the API server's container; see
            `container_resources`.
        autoscaling: `minReplicas`, `maxReplicas`, `metrics`; one replica when None.
        envs: Literal environment variables, as a mapping or a list of name and value.
        runners: Overrides for runners that the bento has, each with its `name` and any of
            `resources`, `autoscaling`, `envs`, `annotations`, `extra_pod_metadata`,
            `extra_pod_spec`; only bentos of BentoML 1.1 and before have runners.
        image_pull_secrets: Names of registry Secrets in the namespace.
        labels: Labels for both resources and the pods, never for Service selectors.
        annotations: Annotations for both resources; `yatai.ai/...` switches steer the
            operator and go to the spec, where alone it reads them.
        service_account: ServiceAccount of the pods.
        ingress: `enabled`, `annotations`, `labels`, `tls` ({"secretName": ...}). The operator's
            Ingress carries a snippet that ingress-nginx refuses by default since 1.9.
        extra_pod_metadata: `labels` and `annotations` of the pods.
        extra_pod_spec: `schedulerName`, `nodeSelector`, `affinity`, `tolerations`,
            `topologySpreadConstraints`, `containers` (sidecars), `serviceAccountName`.
        monitor_exporter: `enabled`, `output`, `options`; `structureOptions` and `mounts` with a
            `crd_generation` that has them.
        network_policy: Who may talk with the pods: `ingress` lists who gets in besides the pods of
            the same namespace: the name of a namespace, or a peer as a NetworkPolicy has it;
            `egress` is none, dns, or a list of peers (each with `ports`, or dns) that the pods may
            call; they may call everybody where it is not said. No policy when empty.
        crd_generation: One of `CRD_GENERATIONS`; only fields that all have when empty.
    """

    refused = MappingProxyType(
        {
            "api_token_secret": "the operator drops envs[].valueFrom, so that the variable would "
            "be empty and the service would answer anybody"
        }
    )

    name: str = ""
    namespace: str = "default"
    resources: Object | None = None
    autoscaling: Object | None = None
    envs: ObjectOrListing | None = None
    runners: Listing | None = None
    image_pull_secrets: Listing = ()
    labels: Object | None = None
    annotations: Object | None = None
    service_account: str = ""
    ingress: Object | None = None
    extra_pod_metadata: Object | None = None
    extra_pod_spec: Object | None = None
    monitor_exporter: Object | None = None
    network_policy: Object | None = None
    crd_generation: str = ""


def bento_deployment_manifests(
    image: str, bento: BentoFacts, options: BentoDeploymentOptions
) -> tuple[Manifest, ...]:
    """Give the Bento of an image and the BentoDeployment of it.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    if problem := image_problem(image):
        raise InvalidInput(
            f"image: {image!r} {problem}.",
            hint="Give repository@sha256:..., as build_image returns it.",
        )
    metadata, control = common_metadata(bento, options)
    spec = _bento_spec(image, bento, options.image_pull_secrets)
    resource = {
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "kind": "Bento",
        "metadata": {**metadata, "name": bento_resource_name(bento.tag)},
        "spec": spec,
    }
    serving = serving_manifest(bento, options, metadata, control, spec)
    return portable(resource, serving, *serving_policy(serving, metadata, options))


def common_metadata(
    bento: BentoFacts, options: BentoDeploymentOptions
) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the metadata that all resources of a release share, and the operator's switches.

    Raises:
        InvalidInput: A label, an annotation, the namespace or the generation is none.
    """
    if problem := namespace_problem(options.namespace):
        raise InvalidInput(
            f"namespace: {options.namespace!r} {problem}.", hint="For example 'serving'."
        )
    check_tag(bento)
    plain, control = annotation_settings("annotations", options.annotations)
    if options.crd_generation:
        choice("crd_generation", options.crd_generation, CRD_GENERATIONS)
        plain[GENERATION] = options.crd_generation
    own_labels = label_settings("labels", options.labels)
    metadata = {
        "namespace": options.namespace,
        "annotations": {**plain, **provenance(bento)},
        **({"labels": own_labels} if own_labels else {}),
    }
    return metadata, control


def serving_manifest(
    bento: BentoFacts,
    options: BentoDeploymentOptions,
    metadata: Mapping[str, Any],
    control: Mapping[str, str],
    made_of: Mapping[str, Any],
) -> Manifest:
    """Give the BentoDeployment.

    Args:
        bento: The bento that it serves.
        options: Everything about it that users choose.
        metadata: Labels, annotations and the namespace.
        control: The switches that steer the operator.
        made_of: What the image is made of; a change of it is another revision of the pods.

    Raises:
        InvalidInput: An option that cannot be honoured.
    """
    name = deployment_name(bento.name, options.name)
    own_labels = dict(metadata.get("labels") or {})
    extra = _pod_settings("", options, {"yatai.ai/bento-deployment": name})
    if options.service_account:
        _use_account(extra["extraPodSpec"], options.service_account)
    main = {
        **_scaled("", options.resources, options.autoscaling, options.envs),
        "annotations": dict(control),
        "monitorExporter": _monitor_exporter(options),
        **extra,
    }
    spec = {
        "bento": bento_resource_name(bento.tag),
        "ingress": _ingress(options, name),
        **_with_revision(main, own_labels, made_of),
        "runners": [
            _with_revision(runner, own_labels, made_of)
            for runner in _runner_overrides(bento, options, name)
        ],
    }
    return {
        "apiVersion": "serving.yatai.ai/v2alpha1",
        "kind": "BentoDeployment",
        "metadata": {**metadata, "name": name},
        "spec": without_empty(spec),
    }


def serving_policy(
    serving: Manifest, metadata: Mapping[str, Any], options: BentoDeploymentOptions
) -> list[Manifest]:
    """Give the NetworkPolicy of the operator's pods; it chooses their ports itself.

    Args:
        serving: The BentoDeployment.
        metadata: Labels, annotations and the namespace.
        options: What the user chose.

    Raises:
        InvalidInput: A peer that no policy can have, or an Ingress that would be kept out.
    """
    name = serving["metadata"]["name"]
    if (options.ingress or {}).get("enabled"):
        check_who_has_to_get_in(options.network_policy, "ingress", "the Ingress's controller")
    return policy_manifests({**metadata, "name": name}, pods_of(name), options.network_policy)


def runner_entries(bento: BentoFacts) -> list[dict[str, Any]]:
    """Give the bento's runners as the Bento and BentoRequest resources list them.

    Raises:
        InvalidInput: A runner's name cannot be a label, which the operator makes of it.
    """
    return [_runner(index, runner) for index, runner in enumerate(bento.runners)]


def _bento_spec(image: str, bento: BentoFacts, image_pull_secrets: Sequence[str]) -> dict[str, Any]:
    spec = {
        "tag": bento.tag,
        "image": image,
        "context": {"bentomlVersion": bento.bentoml_version} if bento.bentoml_version else {},
        "runners": runner_entries(bento),
        "imagePullSecrets": [
            {"name": secret} for secret in secret_names("image_pull_secrets", image_pull_secrets)
        ],
    }
    return without_empty(spec)


def _runner(index: int, runner: Mapping[str, Any]) -> dict[str, Any]:
    name = runner["name"]
    if not name or (problem := label_value_problem(name)):
        raise InvalidInput(
            f"bento runners[{index}].name: {name!r} {problem if name else 'is empty'}.",
            hint="The operator writes it into labels; rename the runner in the service.",
        )
    return without_empty(runner)


def _runner_overrides(
    bento: BentoFacts, options: BentoDeploymentOptions, deployment: str
) -> list[dict[str, Any]]:
    """One entry per runner of the bento, so that its resources are said and not guessed."""
    known = [runner["name"] for runner in bento.runners]
    if options.runners and not known:
        raise InvalidInput(
            f"runners: {bento.tag} is a new-style bento and has none; with runners the operator "
            "would start commands that it cannot run.",
            hint="Leave runners out: all its services run in one container; use resources.",
        )
    overrides: dict[str, Mapping[str, Any]] = {}
    for index, override in enumerate(options.runners or ()):
        name = str(override.get("name") or "") if isinstance(override, Mapping) else ""
        if name not in known:
            raise InvalidInput(
                f"runners[{index}].name: {name!r} is no runner of {bento.tag}; the operator "
                "would ignore the entry.",
                hint=f"The bento's runners: {', '.join(known)}.",
            )
        if name in overrides:
            raise InvalidInput(
                f"runners[{index}].name: {name!r} is overridden twice.", hint="Keep one entry."
            )
        overrides[name] = mapping(f"runners[{index}]", override, _RUNNER_SETTINGS)
    return [_runner_override(name, overrides.get(name, {}), options, deployment) for name in known]


def _runner_override(
    name: str, override: Mapping[str, Any], options: BentoDeploymentOptions, deployment: str
) -> dict[str, Any]:
    prefix = f"runners[{name}]."
    own = BentoDeploymentOptions.of(
        KIND, {key: override.get(key) for key in ("extra_pod_metadata", "extra_pod_spec")}
    )
    extra = _pod_settings(prefix, own, {"yatai.ai/bento-deployment": deployment})
    if options.service_account and "serviceAccountName" not in extra["extraPodSpec"]:
        _use_account(extra["extraPodSpec"], options.service_account)
    return {
        "name": name,
        **_scaled(
            prefix, override.get("resources"), override.get("autoscaling"), override.get("envs")
        ),
        "annotations": control_settings(f"{prefix}annotations", override.get("annotations")),
        **extra,
    }


def _scaled(
    prefix: str,
    resources: Mapping[str, Any] | None,
    autoscaling: Mapping[str, Any] | None,
    envs: Envs | None,
) -> dict[str, Any]:
    settings = {
        "resources": container_resources(f"{prefix}resources", resources),
        "autoscaling": autoscaling_settings(f"{prefix}autoscaling", autoscaling),
        "envs": env_settings(f"{prefix}envs", envs),
    }
    return without_empty(settings)


def _pod_settings(
    prefix: str, options: BentoDeploymentOptions, pods: Mapping[str, str]
) -> dict[str, Any]:
    metadata = pod_metadata(f"{prefix}extra_pod_metadata", options.extra_pod_metadata)
    field = f"{prefix}extra_pod_spec"
    spec: dict[str, Any] = settled(
        field,
        options.extra_pod_spec or {},
        EXTRA_POD_SPEC,
        hint=f"The CRDs know {', '.join(sorted(EXTRA_POD_SPEC.fields))}; volumes, init "
        "containers and security contexts are not among them.",
    )
    check_sidecars(field, spec)
    check_pod_placement(field, spec)
    for spread in spec.get("topologySpreadConstraints", []):
        # Without a selector it would count no pod, and spread nothing.
        spread.setdefault("labelSelector", {"matchLabels": dict(pods)})
    return {"extraPodMetadata": metadata, "extraPodSpec": spec}


def _use_account(pod_spec: dict[str, Any], account: str) -> None:
    if problem := resource_name_problem(account):
        raise InvalidInput(
            f"service_account: {account!r} {problem}.",
            hint="Give the name of a ServiceAccount in the namespace.",
        )
    if pod_spec.setdefault("serviceAccountName", account) != account:
        raise InvalidInput(
            f"service_account: {account!r} is not extra_pod_spec.serviceAccountName "
            f"{pod_spec['serviceAccountName']!r}.",
            hint="Give one of the two.",
        )


def _ingress(options: BentoDeploymentOptions, name: str) -> dict[str, Any]:
    """No Ingress unless asked: its snippet is one that ingress-nginx refuses since 1.9."""
    given = options.ingress or {}
    mapping("ingress", given, ("enabled", "annotations", "labels", "tls"))
    shape = _deployment_spec_shape(options).fields["ingress"]
    ingress: dict[str, Any] = settled("ingress", {"enabled": False, **given}, shape)
    settled("ingress.annotations", ingress.get("annotations", {}), ANNOTATIONS)
    settled("ingress.labels", ingress.get("labels", {}), LABELS)
    ignored = sorted(key for key in ingress if key != "enabled")
    if ignored and not ingress["enabled"]:
        raise InvalidInput(
            f"ingress.{ignored[0]}: without ingress.enabled the operator makes no Ingress.",
            hint="Set ingress.enabled to true, or leave the rest out.",
        )
    if ingress["enabled"] and len(f"{name}-{options.namespace}") > 63:
        raise InvalidInput(
            f"name: {name}-{options.namespace} becomes one label of the Ingress's host name and "
            "is longer than 63 characters.",
            hint="Choose a shorter name.",
        )
    return without_empty(ingress)


def _monitor_exporter(options: BentoDeploymentOptions) -> dict[str, Any]:
    if not options.monitor_exporter:
        return {}
    shape = _deployment_spec_shape(options).fields["monitorExporter"]
    given = {"enabled": True, **options.monitor_exporter}
    hint = (
        "structureOptions and mounts need crd_generation='kubeflow-1.9' or newer; otherwise "
        "write enabled, output and options."
    )
    exporter: dict[str, Any] = settled("monitor_exporter", given, shape, hint)
    return exporter


def _deployment_spec_shape(options: BentoDeploymentOptions) -> Fields:
    kind = ("serving.yatai.ai/v2alpha1", "BentoDeployment")
    spec = crd_subset(options.crd_generation)[kind].fields["spec"]
    assert isinstance(spec, Fields)  # noqa: S101 - a fact about our own table
    return spec


def _with_revision(
    block: Mapping[str, Any], labels: Mapping[str, str], made_of: Mapping[str, Any]
) -> dict[str, Any]:
    """Mark the pods, so that a change of anything in them can be told from what ran before."""
    extra = dict(block.get("extraPodMetadata") or {})
    if labels:
        extra["labels"] = {**labels, **extra.get("labels", {})}
    made = {key: value for key, value in block.items() if key != "autoscaling"}
    revision = pod_revision(without_empty({**made, "extraPodMetadata": extra}), made_of)
    extra["annotations"] = {**extra.get("annotations", {}), POD_REVISION: revision}
    return without_empty({**block, "extraPodMetadata": extra})


BENTO_DEPLOYMENT = Target(
    kind=KIND,
    options_type=BentoDeploymentOptions,
    renderer=bento_deployment_manifests,
    kinds=(BENTO_DEPLOYMENT_KIND, BENTO, POLICY),
    address=service_url,
    watcher=watched_bento_deployment,
    names=names_of,
    unlabelled={BENTO: bento_of},
    leftovers=(BENTO_REQUEST_KIND,),
    live_shapes=LIVE_SHAPES,
    owned=CONTROLLED,
    stale_owned=stale_runners,
    is_in_use=is_named_by,
)
