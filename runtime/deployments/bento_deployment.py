"""Yatai's way to serve a bento: a Bento that names the image and a BentoDeployment of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput

from .names import (
    bento_resource_name,
    deployment_name,
    image_problem,
    label_value_problem,
    namespace_problem,
    resource_name_problem,
)
from .quantities import container_resources
from .settings import (
    Envs,
    annotation_settings,
    autoscaling_settings,
    env_settings,
    label_settings,
    secret_names,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

TARGET = "bentodeployment"
PORT = 3000

_RUNNER_SETTINGS = {"name", "resources", "autoscaling", "envs"}


def render_bento_deployment(
    image: str,
    bento: Bento,
    *,
    name: str = "",
    namespace: str = "default",
    resources: Mapping[str, Any] | None = None,
    autoscaling: Mapping[str, Any] | None = None,
    envs: Envs | None = None,
    runners: Sequence[Mapping[str, Any]] | None = None,
    image_pull_secrets: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    service_account: str = "",
) -> list[dict[str, Any]]:
    """Render the two resources that make yatai-deployment serve an image.

    Only fields that all published CRD generations have and the controllers obey are
    rendered; what a controller would drop is refused. The same arguments give the same
    manifests.

    Args:
        image: Image reference by digest; a tag alone is refused.
        bento: The bento inside the image: its tag, its runners, where its models came from.
        name: Name of the BentoDeployment and its Service: DNS-1035, at most 50 characters;
            derived from the bento's name when empty.
        namespace: Namespace of both resources; the operator must watch it.
        resources: Requests and limits of the API server's container; see
            `container_resources`.
        autoscaling: `minReplicas`, `maxReplicas`, `metrics`; one replica when None.
        envs: Literal environment variables, as a mapping or a list of name and value.
        runners: Overrides (`name`, `resources`, `autoscaling`, `envs`) for runners that the
            bento has; only bentos of BentoML 1.1 and before have any.
        image_pull_secrets: Names of registry Secrets in the namespace.
        labels: Labels for both resources and the pods, never for Service selectors.
        annotations: Annotations for both resources; `yatai.ai/...` switches steer the
            operator.
        service_account: ServiceAccount of the pods.

    Returns:
        The Bento and the BentoDeployment, in this order.

    Raises:
        InvalidInput: An argument that cannot be honoured; the message names the field.
    """
    _check_place(image, namespace, service_account)
    plain_annotations, control_annotations = annotation_settings("annotations", annotations)
    own_labels = label_settings("labels", labels)
    metadata = {
        "namespace": namespace,
        "annotations": {**plain_annotations, **provenance(bento)},
        **({"labels": own_labels} if own_labels else {}),
    }
    bento_name = bento_resource_name(bento.tag)
    deployment_spec: dict[str, Any] = {
        "bento": bento_name,
        # The operator's Ingress carries a snippet that ingress-nginx refuses since 1.9.
        "ingress": {"enabled": False},
        **_workload("", resources, autoscaling, envs),
        "runners": _runner_overrides(bento, runners),
        "annotations": control_annotations,
        "extraPodMetadata": {"labels": own_labels} if own_labels else {},
        "extraPodSpec": {"serviceAccountName": service_account} if service_account else {},
    }
    return [
        {
            "apiVersion": "resources.yatai.ai/v1alpha1",
            "kind": "Bento",
            "metadata": {**metadata, "name": bento_name},
            "spec": _bento_spec(image, bento, image_pull_secrets),
        },
        {
            "apiVersion": "serving.yatai.ai/v2alpha1",
            "kind": "BentoDeployment",
            "metadata": {**metadata, "name": deployment_name(bento.name, name)},
            "spec": _without_empty(deployment_spec),
        },
    ]


def service_url(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Give the URL that the rendered BentoDeployment has inside the cluster."""
    metadata = bento_deployment_of(manifests)["metadata"]
    return f"http://{metadata['name']}.{metadata['namespace']}.svc:{PORT}"


def bento_deployment_of(manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Give the BentoDeployment among rendered manifests."""
    return next(manifest for manifest in manifests if manifest["kind"] == "BentoDeployment")


def provenance(bento: Bento) -> dict[str, str]:
    """Give annotations that say which registry models the bento was made of.

    They sit on the metadata, where a change starts no new rollout. One model gets plain
    keys (`kfp-bento/model-uri`, ...); several share one JSON list in `kfp-bento/models`.
    """
    facts = {"kfp-bento/bento-version": bento.version}
    models = [
        {
            "model-uri": str(model.provenance.get("uri") or ""),
            "model-name": str(model.provenance.get("name") or ""),
            "model-version": str(model.provenance.get("version") or ""),
            "model-digest": str(model.provenance.get("digest") or ""),
            "model-content-digest": model.digest,
            "run-id": str(model.provenance.get("run_id") or ""),
        }
        for model in bento.models
    ]
    if len(models) > 1:
        facts["kfp-bento/models"] = json.dumps(models, sort_keys=True, separators=(",", ":"))
    for model in models if len(models) == 1 else ():
        facts.update({f"kfp-bento/{key}": value for key, value in model.items() if value})
    return facts


def _check_place(image: str, namespace: str, service_account: str) -> None:
    if problem := image_problem(image):
        raise InvalidInput(
            f"image: {image!r} {problem}.",
            hint="Give repository@sha256:..., as build_image returns it.",
        )
    if problem := namespace_problem(namespace):
        raise InvalidInput(f"namespace: {namespace!r} {problem}.", hint="For example 'serving'.")
    if service_account and (problem := resource_name_problem(service_account)):
        raise InvalidInput(
            f"service_account: {service_account!r} {problem}.",
            hint="Give the name of a ServiceAccount in the namespace.",
        )


def _bento_spec(image: str, bento: Bento, image_pull_secrets: Sequence[str]) -> dict[str, Any]:
    for part, value in (("name", bento.name), ("version", bento.version)):
        # The operator writes both parts into labels of everything it creates.
        if not value or (problem := label_value_problem(value)):
            raise InvalidInput(
                f"bento {part}: {value!r} {problem if value else 'is empty'}.",
                hint=f"Build the bento with another {part}.",
            )
    spec = {
        "tag": bento.tag,
        "image": image,
        "context": {"bentomlVersion": bento.bentoml_version} if bento.bentoml_version else {},
        "runners": [_runner(index, runner) for index, runner in enumerate(bento.runners)],
        "imagePullSecrets": [
            {"name": secret} for secret in secret_names("image_pull_secrets", image_pull_secrets)
        ],
    }
    return _without_empty(spec)


def _runner(index: int, runner: Mapping[str, Any]) -> dict[str, Any]:
    name = str(runner.get("name") or "")
    if not name or (problem := label_value_problem(name)):
        raise InvalidInput(
            f"bento runners[{index}].name: {name!r} {problem if name else 'is empty'}.",
            hint="The operator writes it into labels; rename the runner in the service.",
        )
    models = runner.get("modelTags") or runner.get("model_tags") or runner.get("models") or []
    entry = {
        "name": name,
        "runnableType": str(runner.get("runnableType") or runner.get("runnable_type") or ""),
        "modelTags": [str(tag) for tag in models],
    }
    return _without_empty(entry)


def _runner_overrides(
    bento: Bento, given: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """One entry per runner of the bento, so that its resources are said and not guessed."""
    known = [str(runner.get("name")) for runner in bento.runners]
    if given and not known:
        raise InvalidInput(
            f"runners: {bento.tag} is a new-style bento and has none; with runners the operator "
            "would start commands that it cannot run.",
            hint="Leave runners out: all its services run in one container; use resources.",
        )
    overrides: dict[str, Mapping[str, Any]] = {}
    for index, override in enumerate(given or ()):
        name = str(override.get("name") or "") if isinstance(override, Mapping) else ""
        if name not in known:
            raise InvalidInput(
                f"runners[{index}].name: {name!r} is no runner of {bento.tag}; the operator "
                "would ignore the entry.",
                hint=f"The bento's runners: {', '.join(known)}.",
            )
        for key in override:
            if key not in _RUNNER_SETTINGS:
                raise InvalidInput(
                    f"runners[{index}].{key}: no such setting.",
                    hint=f"Known: {', '.join(sorted(_RUNNER_SETTINGS))}.",
                )
        overrides[name] = override
    return [
        {
            "name": name,
            **_workload(
                f"runners[{name}].",
                overrides.get(name, {}).get("resources"),
                overrides.get(name, {}).get("autoscaling"),
                overrides.get(name, {}).get("envs"),
            ),
        }
        for name in known
    ]


def _workload(
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
    return _without_empty(settings)


def _without_empty(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if value not in (None, "", {}, [])}
