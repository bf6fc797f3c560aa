"""A stand-in for yatai-deployment: makes the objects that the real one makes, when that does.

Names, labels, owners, conditions and what it is woken for are those of yatai-deployment 1.1.21 as
it was seen at work, and as its `controllers/bentodeployment_controller.go` says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kube_api import Refused
from played_controller import Json, condition_of, now, running
from woken_controller import Blocked, Failure, Watch, WokenController, own_name, owner_name

__all__ = ["YataiOperator", "running"]

RESOURCES = "resources.yatai.ai/v1alpha1"
LAST_APPLIED = "banzaicloud.com/last-applied"
# An API client sends so many events about one object, and then one in five minutes.
EVENTS, EVENTS_EACH = 25, 12
SIDECARS = {"api-server": ("metrics-transformer", "proxy"), "runner": ("metrics-transformer",)}
PORTS = (("http", 3000), ("http-non-proxy", 3001))


def _of_bento(operator: YataiOperator, bento: Json) -> Iterable[str]:
    name = bento["metadata"]["name"]
    for live in operator.api.list(*operator.kind, operator.namespace):
        if live["spec"]["bento"] == name:
            yield live["metadata"]["name"]


def _of_request(operator: YataiOperator, request: Json) -> Iterable[str]:
    """A BentoRequest matters only while there is no Bento of its name."""
    if operator.bento(request["metadata"]["name"]) is None:
        yield from _of_bento(operator, request)


@dataclass
class YataiOperator(WokenController):
    """Reconciles the BentoDeployments of one namespace, one after the other.

    Attributes:
        suffix: The domain-suffix of ConfigMap `network`; empty makes it poll for an address.
        image: What it deploys instead of the Bento's image.
        failure: What every reconcile fails with; it is not tried again.
        runners: How many runners it gets to; all when None.
    """

    suffix: str = "example.com"
    image: str = ""
    failure: str = ""
    runners: int | None = None
    _events: dict[str, int] = field(default_factory=dict, repr=False)

    kind: ClassVar = ("serving.yatai.ai/v2alpha1", "BentoDeployment")
    manager: ClassVar = "yatai-deployment"
    empty_status: ClassVar[Json] = {"podSelector": {}}

    @property
    def watches(self) -> tuple[Watch, ...]:
        return (
            Watch(self.kind, own_name, spec_only=True),
            Watch(("apps/v1", "Deployment"), owner_name, spec_only=True),
            Watch(("v1", "Service"), owner_name, spec_only=True),
            Watch(("autoscaling/v2", "HorizontalPodAutoscaler"), owner_name),
            Watch((RESOURCES, "Bento"), _of_bento),
            Watch((RESOURCES, "BentoRequest"), _of_request),
        )

    def bento(self, name: str) -> Json | None:
        return self.api.get(RESOURCES, "Bento", self.namespace, name)

    def reconcile(self, live: Json) -> None:
        if not (live.get("status") or {}).get("conditions"):
            begun = ("Unknown", "Starting to reconcile BentoDeployment")
            self.say(live, Available=begun, BentoFound=begun)
        try:
            self._serve(live)
        except (Failure, Refused) as failure:
            # Its handler returns what writing the status returned, so nothing is tried again.
            told = f"Failed to reconcile BentoDeployment: {failure}"
            self.say(live, Available=("False", told))
            self._tell_event(live, told)

    def _serve(self, live: Json) -> None:
        if self.failure:
            raise Failure(self.failure)
        bento = self.bento(live["spec"]["bento"])
        if bento is None:
            self._without_bento(live)
            return
        self.say(live, BentoFound=("True", "Bento found"))
        name = live["metadata"]["name"]
        for index, runner in enumerate((bento["spec"].get("runners") or [])[: self.runners]):
            self._workload(live, bento, f"{name}-runner-{index}", runner["name"])
        self._workload(live, bento, name, "")
        if not self.suffix:
            self._poll_for_an_address()
        self.say(live, Available=("True", "Reconciling"))

    def _without_bento(self, live: Json) -> None:
        """Looks for the request; says that it was found also where it was not."""
        name = live["spec"]["bento"]
        self.say(live, BentoFound=("False", "Bento not found"))
        self.say(live, BentoRequestFound=("Unknown", "Bento not found"))
        request = self.api.get(RESOURCES, "BentoRequest", self.namespace, name)
        if request is None:
            told = f'get BentoRequest {self.namespace}/{name}: "{name}" not found'
            self.say(live, BentoFound=("False", told), BentoRequestFound=("False", told))
        self.say(live, BentoRequestFound=("True", "Bento not found"))
        available = condition_of(request, "BentoAvailable")
        if available.get("status") == "False":
            told = f"BentoRequest {self.namespace}/{name} is not available: {available['message']}"
            self.say(live, BentoFound=("False", told), Available=("False", told))
            raise Failure(told)

    def _poll_for_an_address(self) -> None:
        """Makes an Ingress and waits for its address: twenty minutes, and nothing beside it."""
        rest = {"kind": "Ingress", "apiVersion": "networking.k8s.io/v1"}
        if not self.api.list(rest["apiVersion"], rest["kind"], self.namespace):
            backend = {"service": {"name": "none", "port": {"number": 80}}}
            metadata = {"generateName": "default-domain-", "namespace": self.namespace}
            self.create({**rest, "metadata": metadata, "spec": {"defaultBackend": backend}})
        raise Blocked

    # -- what it makes ------------------------------------------------------------------------

    def _workload(self, live: Json, bento: Json, name: str, runner: str) -> None:
        labels, own = self._labels(live, bento, runner), self._settings(live, runner)
        metadata = {"name": name, "labels": labels, "annotations": _annotations(bento, own)}
        for manifest in (
            *(() if runner else (_config_map(name),)),
            self._deployment(metadata, bento, own),
            _autoscaler(metadata, own.get("autoscaling") or {}),
            _service(metadata, live, bento, runner),
        ):
            self._put(self.owned(live, manifest))

    def _settings(self, live: Json, runner: str) -> Json:
        """A runner without settings has those of the API server, but for what is per part."""
        spec = live["spec"]
        own = {one["name"]: one for one in spec.get("runners") or []}
        if not runner or runner in own:
            return own.get(runner, spec)
        return {key: one for key, one in spec.items() if key not in ("autoscaling", "envs")}

    def _labels(self, live: Json, bento: Json, runner: str) -> dict[str, str]:
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
        return labels | (self._settings(live, runner).get("labels") or {})

    def _deployment(self, metadata: Json, bento: Json, own: Json) -> Json:
        selector = {"yatai.ai/selector": metadata["name"]}
        part = metadata["labels"]["yatai.ai/bento-deployment-component-type"]
        extra = (own.get("extraPodMetadata") or {}).get("labels", {})
        env = [
            {"name": one["name"], "value": one.get("value", "")} for one in own.get("envs") or []
        ]
        main = {"name": "main", "image": self.image or bento["spec"]["image"], "env": env}
        sidecars = [{"name": one, "image": f"quay.io/bentoml/{one}:1"} for one in SIDECARS[part]]
        pod = {
            "metadata": {
                "labels": {**metadata["labels"], **selector, **extra},
                "annotations": metadata["annotations"],
            },
            "spec": {"containers": [main, *sidecars]},
        }
        spec = {"selector": {"matchLabels": selector}, "template": pod}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

    def _put(self, manifest: Json) -> None:
        """Writes an object whole, unless all that it would write is there.

        So what somebody has added stays while nothing else changes, and is gone when it does.
        """
        place = (manifest["apiVersion"], manifest["kind"], self.namespace)
        text = json.dumps(manifest, sort_keys=True)
        old = self.api.get(*place, manifest["metadata"]["name"])
        marks = {**manifest["metadata"].get("annotations", {}), LAST_APPLIED: text}
        whole = {**manifest, "metadata": {**manifest["metadata"], "annotations": marks}}
        if old is None:
            self.create(whole)
        elif old["metadata"].get("annotations", {}).get(LAST_APPLIED) != text:
            self.update(whole)

    def _tell_event(self, live: Json, message: str) -> None:
        """Tells of a failure, if the client's own filter lets an event through."""
        metadata = live["metadata"]
        sent = self._events[metadata["uid"]] = self._events.get(metadata["uid"], 0) + EVENTS_EACH
        if sent > EVENTS:
            return
        about = {"kind": self.kind[1], "apiVersion": self.kind[0], "namespace": self.namespace}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": self.namespace},
            "involvedObject": {**about, "name": metadata["name"], "uid": metadata["uid"]},
            "type": "Warning",
            "reason": "ReconcileError",
            "message": message,
            "lastTimestamp": now(),
        }
        self.create(event)


def _annotations(bento: Json, own: Json) -> dict[str, str]:
    repository, _, version = bento["spec"]["tag"].partition(":")
    told = {"yatai.ai/bento-repository": repository, "yatai.ai/bento-version": version}
    return told | (own.get("extraPodMetadata") or {}).get("annotations", {})


def _config_map(name: str) -> Json:
    metadata: Any = {"name": f"{name}-envoy-config"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}


def _autoscaler(metadata: Json, scaling: Json) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]}
    low = scaling.get("minReplicas", 1)
    spec = {"scaleTargetRef": target, "minReplicas": low}
    spec["maxReplicas"] = scaling.get("maxReplicas", low)
    place = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    return {**place, "metadata": metadata, "spec": spec}


def _service(metadata: Json, live: Json, bento: Json, runner: str) -> Json:
    selector = dict(metadata["labels"])
    name = live["metadata"]["name"]
    if runner:
        digest = hashlib.md5(f"{bento['spec']['tag']}-{runner}".encode()).hexdigest()
        name = f"{name}-runner-{digest}"
    else:
        del selector["yatai.ai/bento-deployment-target-type"]
    ports = [{"name": one, "port": number, "targetPort": "http"} for one, number in PORTS]
    spec = {"selector": selector, "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**metadata, "name": name},
        "spec": spec,
    }
