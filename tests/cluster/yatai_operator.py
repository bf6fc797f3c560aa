"""A stand-in for yatai-deployment: makes the objects that the real one makes, no more.

Names, labels, owners, conditions and the number of replicas (1 at every write, whatever the
autoscaler has made of it) follow the controller of yatai-deployment 1.1.21,
`controllers/bentodeployment_controller.go`; what it never does (removing runners that are gone,
waiting for pods, taking back a condition of the generation before) is not done here either.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

from played_controller import PlayedController, moved, running

__all__ = ["YataiOperator", "running"]


@dataclass
class YataiOperator(PlayedController):
    """Reconciles the BentoDeployments of one namespace.

    Attributes:
        suffix: The domain-suffix of ConfigMap `network`; empty makes it poll for an address.
        image: What it deploys instead of the Bento's image.
        failure: What every reconcile fails with.
        runners: How many runners it gets to; all when None.
    """

    suffix: str = "example.com"
    image: str = ""
    failure: str = ""
    runners: int | None = None
    done: dict[str, str] = field(default_factory=dict, repr=False)

    kind: ClassVar = ("serving.yatai.ai/v2alpha1", "BentoDeployment")
    manager: ClassVar = "yatai-deployment"

    def reconcile(self, live: dict[str, Any]) -> None:
        metadata, spec = live["metadata"], live["spec"]
        name = metadata["name"]
        if not (live.get("status") or {}).get("conditions"):
            self._say(live, Available=("Unknown", "Reconciling"), BentoFound=("Unknown", ""))
        bento = self.api.get("resources.yatai.ai/v1alpha1", "Bento", self.namespace, spec["bento"])
        if bento is None:
            self._say(live, BentoFound=("False", "Bento not found"))
            return
        self._say(live, BentoFound=("True", "Bento found"))
        state = f"{metadata['generation']} {bento['metadata']['generation']} {self}"
        if self.done.get(metadata["uid"]) == state:
            return
        if self.failure:
            told = f"Failed to reconcile BentoDeployment: {self.failure}"
            self._say(live, Available=("False", told))
        else:
            runners = bento["spec"].get("runners") or []
            for index, runner in enumerate(runners[: self.runners]):
                self._workload(live, bento, f"{name}-runner-{index}", runner["name"])
            self._workload(live, bento, name, "")
            if self.suffix:
                self._say(live, Available=("True", "Reconciling"))
        self.done[metadata["uid"]] = state

    def _workload(
        self, live: dict[str, Any], bento: dict[str, Any], name: str, runner: str
    ) -> None:
        spec = live["spec"]
        repository, _, version = bento["spec"]["tag"].partition(":")
        labels = {
            "yatai.ai/bento-deployment": live["metadata"]["name"],
            "yatai.ai/bento-repository": repository,
            "yatai.ai/bento-version": version,
            "yatai.ai/bento-deployment-target-type": "production",
            "yatai.ai/creator": self.manager,
            "yatai.ai/bento-deployment-component-type": "runner" if runner else "api-server",
        }
        if runner:
            labels["yatai.ai/bento-deployment-component-name"] = runner
        settings = {one["name"]: one for one in spec.get("runners") or []}
        # A runner without settings of its own inherits the API server's.
        own = settings.get(runner, spec)
        labels |= own.get("labels") or {}
        scaling = own.get("autoscaling") or {}
        selector = {"yatai.ai/selector": name}
        digest = hashlib.md5(f"{repository}:{version}-{runner}".encode()).hexdigest()
        service = f"{live['metadata']['name']}-runner-{digest}" if runner else name
        extra = own.get("extraPodMetadata") or {}
        annotations = dict(extra.get("annotations", {}))
        pod = {
            "metadata": {
                "labels": {**labels, **selector, **extra.get("labels", {})},
                "annotations": annotations,
            },
            "spec": {
                "containers": [
                    {"name": "main", "image": self.image or bento["spec"]["image"]},
                    {"name": "metrics-transformer", "image": "quay.io/bentoml/metrics:1"},
                ]
            },
        }
        deployment = {"selector": {"matchLabels": selector}, "template": pod}
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        low = scaling.get("minReplicas", 1)
        scaler = {"scaleTargetRef": target, "minReplicas": low}
        scaler["maxReplicas"] = scaling.get("maxReplicas", low)
        port = {"name": "http", "port": 3000}
        for api_version, kind, called, made in (
            ("apps/v1", "Deployment", name, {**deployment, "replicas": 1}),
            ("autoscaling/v2", "HorizontalPodAutoscaler", name, scaler),
            ("v1", "Service", service, {"selector": labels, "ports": [port]}),
        ):
            metadata = {"name": called, "labels": labels, "annotations": annotations}
            self.put(
                live,
                {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": made},
            )

    def _say(self, live: dict[str, Any], **told: tuple[str, str]) -> None:
        before = (live.get("status") or {}).get("conditions") or []
        changed = {
            kind: {"type": kind, "status": status, "reason": "Reconciling", "message": message}
            for kind, (status, message) in told.items()
        }
        both = {one["type"]: one for one in before} | changed
        status = {"conditions": moved(before, list(both.values())), "podSelector": {}}
        self.tell(live, status)
        live["status"] = status
