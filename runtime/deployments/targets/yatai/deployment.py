"""Yatai's way to serve a bento: a Bento that names the image and a BentoDeployment of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.options.core import with_selectors
from kfp_bento.runtime.deployments.options.names import deployment_name, label_value_problem
from kfp_bento.runtime.deployments.options.network_policy import policy_manifests
from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.options.provenance import check_tag, pod_revision, provenance
from kfp_bento.runtime.deployments.options.quantities import DEFAULT_RESOURCES, filled_resources
from kfp_bento.runtime.deployments.targets.pods import check_image
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.deployments.targets.target import CONTROLLED, POLICY, Target
from kfp_bento.runtime.deployments.targets.yatai.kinds import (
    BENTO,
    BENTO_DEPLOYMENT_KIND,
    BENTO_REQUEST_KIND,
)
from kfp_bento.runtime.deployments.targets.yatai.names import bento_resource_name
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    GENERATION,
    LONGEST_NAME,
    portable,
)
from kfp_bento.runtime.deployments.targets.yatai.settings import (
    CONTROL_ANNOTATIONS,
    INSTALLS,
    POWERS,
    BentoDeploymentOptions,
    RunnerOverride,
)
from kfp_bento.runtime.deployments.targets.yatai.sharing import (
    request_of,
    serves_as_bento,
    wake_operator,
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


def bento_deployment_manifests(
    image: str, bento: BentoFacts, options: BentoDeploymentOptions
) -> tuple[Manifest, ...]:
    """Give the Bento of an image and the BentoDeployment of it.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    check_image("image", image)
    metadata, control = common_metadata(bento, options)
    spec = _bento_spec(image, bento, options)
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
        InvalidInput: The bento's tag can be no label.
    """
    check_tag(bento)
    switches = options.annotations.keys() & CONTROL_ANNOTATIONS
    plain = {key: text for key, text in options.annotations.items() if key not in switches}
    if options.crd_generation:
        plain[GENERATION] = options.crd_generation
    metadata = {
        "namespace": options.namespace,
        "annotations": {**plain, **provenance(bento)},
        **({"labels": dict(options.labels)} if options.labels else {}),
    }
    return metadata, {key: options.annotations[key] for key in sorted(switches)}


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
    name = deployment_name(bento.name, options.name, LONGEST_NAME)
    own_labels = dict(metadata.get("labels") or {})
    main = {
        **_pods("", options, options, name),
        "annotations": dict(control),
        "monitorExporter": {"enabled": True, **exporter}
        if (exporter := options.monitor_exporter)
        else {},
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
    """
    name = serving["metadata"]["name"]
    return policy_manifests({**metadata, "name": name}, _pods_of(name), options.network_policy)


def _pods_of(name: str) -> dict[str, str]:
    """Give the label of all pods that the operator makes of a BentoDeployment."""
    return {"yatai.ai/bento-deployment": name}


def runner_entries(bento: BentoFacts) -> list[dict[str, Any]]:
    """Give the bento's runners as the Bento and BentoRequest resources list them.

    Raises:
        InvalidInput: A runner's name cannot be a label, which the operator makes of it.
    """
    return [_runner(index, runner) for index, runner in enumerate(bento.runners)]


def _bento_spec(image: str, bento: BentoFacts, options: BentoDeploymentOptions) -> dict[str, Any]:
    spec = {
        "tag": bento.tag,
        "image": image,
        "context": {"bentomlVersion": bento.bentoml_version} if bento.bentoml_version else {},
        "runners": runner_entries(bento),
        "imagePullSecrets": [{"name": secret} for secret in options.image_pull_secrets],
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
    overrides: dict[str, tuple[str, RunnerOverride]] = {}
    for index, override in enumerate(options.runners):
        field = f"runners[{index}]"
        if override.name not in known:
            raise InvalidInput(
                f"{field}.name: {override.name!r} is no runner of {bento.tag}; the operator "
                "would ignore the entry.",
                hint=f"The bento's runners: {', '.join(known)}.",
            )
        if override.name in overrides:
            raise InvalidInput(
                f"{field}.name: {override.name!r} is overridden twice.", hint="Keep one entry."
            )
        overrides[override.name] = field, override
    said = [overrides.get(name, ("", RunnerOverride(name=name))) for name in known]
    return [
        {
            "name": override.name,
            **_pods(f"{field}.", override, options, deployment),
            "annotations": override.annotations,
        }
        for field, override in said
    ]


def _pods(
    prefix: str,
    own: BentoDeploymentOptions | RunnerOverride,
    options: BentoDeploymentOptions,
    deployment: str,
) -> dict[str, Any]:
    """All that the API server and the runners have alike."""
    spec: dict[str, Any] = dict(own.extra_pod_spec)
    if spread := spec.get("topologySpreadConstraints"):
        spec["topologySpreadConstraints"] = with_selectors(spread, _pods_of(deployment))
    if options.service_account:
        spec.setdefault("serviceAccountName", options.service_account)
    settings = {
        "resources": filled_resources(
            f"{prefix}resources", own.resources, DEFAULT_RESOURCES, "the operator's default"
        ),
        "autoscaling": own.autoscaling.block(),
        "envs": own.envs,
        "extraPodMetadata": without_empty(own.extra_pod_metadata),
        "extraPodSpec": spec,
    }
    return without_empty(settings)


def _ingress(options: BentoDeploymentOptions, name: str) -> dict[str, Any]:
    """No Ingress unless asked: its snippet is one that ingress-nginx refuses since 1.9."""
    ingress: dict[str, Any] = {"enabled": False, **options.ingress}
    if ingress["enabled"] and len(f"{name}-{options.namespace}") > 63:
        raise InvalidInput(
            f"name: {name}-{options.namespace} becomes one label of the Ingress's host name and "
            "is longer than 63 characters.",
            hint="Choose a shorter name.",
        )
    return without_empty(ingress)


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
    sets_port=lambda options: True,
    renderer=bento_deployment_manifests,
    kinds=(BENTO_DEPLOYMENT_KIND, BENTO, POLICY),
    address=service_url,
    watcher=watched_bento_deployment,
    names=names_of,
    unlabelled={BENTO: bento_of, BENTO_REQUEST_KIND: bento_of},
    leftovers=(BENTO_REQUEST_KIND,),
    live_shapes=LIVE_SHAPES,
    owned=CONTROLLED,
    stale_owned=stale_runners,
    is_in_use=is_named_by,
    shared={BENTO: serves_as_bento},
    writer=request_of,
    hasty=(BENTO_DEPLOYMENT_KIND, BENTO_REQUEST_KIND),
    waker=(BENTO, wake_operator),
    installs=INSTALLS,
    powers=POWERS,
)
