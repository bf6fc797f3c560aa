"""A stand-in for KServe's controller, with Knative's behind it: what they make, no more.

Read in kserve/kserve as of 2026 (0.20 and later), below pkg/controller/v1beta1/inferenceservice:

* `components/predictor.go`: names, labels and annotations of the pods (a component's own over
  those of the InferenceService), the canaries' replicas, the condition CanaryPredictorReady,
  and that Deployments and Services of predictors that nobody asks for any more are deleted;
* `reconcilers/deployment/deployment_reconciler.go`: selector, and that an autoscaler owns the
  number of replicas; `reconcilers/hpa/hpa_reconciler.go`: every Deployment has one unless the
  autoscaler's class is none or external;
* `reconcilers/knative/ksvc_reconciler.go`: the template of a revision, the split of requests;
* pkg/apis/serving/v1beta1/inference_service_status.go: what becomes of conditions, revisions and
  the model's state, and that `observedGeneration` is the one of the Deployment (of the last
  component) and not the InferenceService's own (kserve/kserve#6081).

A condition that Ready does not hang on has the severity Info (knative.dev/pkg/apis).
Not played: ingress objects, loggers' and batchers' agents, webhooks, Knative's autoscaler.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from played_controller import (
    Json,
    PlayedController,
    condition_of,
    moved,
    running,
)

__all__ = ["KServeController", "running"]

SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
DEPLOYMENT = ("apps/v1", "Deployment")
ISVC = "serving.kserve.io/inferenceservice"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
KNATIVE = "serving.knative.dev"
SCALE = "autoscaling.knative.dev"
TEMPLATE = "played/template"
CONTAINER = "kserve-container"
STANDARD_MODES = ("Standard", "RawDeployment")
COMPONENTS = ("predictor", "transformer", "explainer")

# Fields of a component that are none of its pods'.
_OWN_FIELDS = (
    *("name", "labels", "annotations", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric"),
    *("timeout", "containerConcurrency", "canaryTrafficPercent", "batcher", "logger", "model"),
)
# What no pod inherits (the ConfigMap's serviceAnnotationDisallowedList).
_DISALLOWED = (
    f"{SCALE}/min-scale",
    f"{SCALE}/max-scale",
    "kubectl.kubernetes.io/last-applied-configuration",
)
_CRASHED = ("CrashLoopBackOff",)
_STUCK = (*_CRASHED, "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError")


@dataclass
class KServeController(PlayedController):
    """Reconciles the InferenceServices of one namespace.

    Attributes:
        mode: The deployment mode that it takes whatever is asked; as asked when empty.
        failing_load: Why no model can be loaded, whatever the pods do.
        own_generation: Say the InferenceService's own generation, as kserve/kserve#6096 does.
        idle: Nobody asks for anything, so Knative scales to zero what may have no pods.
        domain: Of the addresses outside the cluster.
    """

    mode: str = ""
    failing_load: str = ""
    own_generation: bool = False
    idle: bool = False
    domain: str = "example.com"
    _put: dict[str, str] = field(default_factory=dict, repr=False)
    _routed: dict[str, tuple[str, int]] = field(default_factory=dict, repr=False)

    kind: ClassVar = SERVICE
    manager: ClassVar = "kserve"

    def reconcile(self, live: Json) -> None:
        mode = self.mode or (live["metadata"].get("annotations") or {}).get(MODE) or "Knative"
        mine = f"{ISVC}={live['metadata']['name']}"
        there = {
            one["metadata"]["name"]: one
            for one in self._listed(*DEPLOYMENT, mine)
            if _owns(live, one)
        }
        parts = [kind for kind in COMPONENTS if live["spec"].get(kind)]
        status: Json = {"deploymentMode": mode, "components": {}}
        if mode in STANDARD_MODES:
            conditions = self._standard(live, parts, there, status)
        else:
            conditions = self._knative(live, parts, there, status)
        if self.own_generation:
            status["observedGeneration"] = live["metadata"]["generation"]
        conditions |= _ready(conditions, parts)
        before = (live.get("status") or {}).get("conditions") or []
        status["conditions"] = moved(before, [conditions[kind] for kind in sorted(conditions)])
        if conditions["Ready"]["status"] == "True":
            status |= self._addresses(live, parts)
        status["modelStatus"] = self._model(live, status)
        self.tell(live, {key: value for key, value in status.items() if value})

    # -- Standard mode -----------------------------------------------------------------------

    def _standard(
        self, live: Json, parts: Sequence[str], there: Mapping[str, Json], status: Json
    ) -> dict[str, Json]:
        spec, canaries = live["spec"], live["spec"].get("canary") or []
        conditions = {}
        for kind in parts:
            part = dict(spec[kind])
            if kind == "predictor" and canaries and "minReplicas" in part:
                beside = sum(_canary_replicas(spec, one) for one in canaries)
                part["minReplicas"] = max(part["minReplicas"] - beside, 1)
            made = self._component(live, kind, part, there)
            status["components"][kind] = {}
            status["observedGeneration"] = (made.get("status") or {}).get("observedGeneration")
            told = condition_of(made, "Available")
            conditions[f"{kind.capitalize()}Ready"] = _condition(
                f"{kind.capitalize()}Ready", told, info=kind != "predictor"
            )
        ready = []
        for one in canaries:
            made = self._component(live, "predictor", _canary_predictor(spec, one), there)
            told = {"name": one["predictor"]["name"], "trafficPercent": one["trafficPercent"]}
            available = (made.get("status") or {}).get("availableReplicas") or 0
            ready.append({**told, "ready": available > 0})
        status["canaryStatuses"] = ready
        if canaries:
            everyone = all(one["ready"] for one in ready)
            told = {"status": str(everyone)}
            told |= {} if everyone else {"reason": "CanariesNotReady"}
            kind = "CanaryPredictorReady"
            conditions[kind] = _condition(kind, told, info=True)
        self._remove_orphans(live, there)
        return conditions

    def _component(
        self, live: Json, kind: str, part: Mapping[str, Any], there: Mapping[str, Json]
    ) -> Json:
        """Makes what one component consists of; gives its Deployment."""
        metadata, name = live["metadata"], _called(live, kind, part)
        labels = {**_labels(live, kind, part), "app": f"isvc.{name}"}
        annotations = _annotations(live, part)
        template = {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": _pod(metadata["name"], part),
        }
        selector = {"app": labels["app"]}
        spec = {"selector": {"matchLabels": selector}, "template": template}
        scaled = annotations.get(AUTOSCALER, "hpa") == "hpa"
        least = max(part.get("minReplicas", 1), 1)
        if not scaled:
            spec["replicas"] = least
        place = {"name": name, "labels": labels, "annotations": annotations}
        port = (template["spec"]["containers"][0].get("ports") or [{"containerPort": 8080}])[0]
        ports = [{"name": "http", "port": 80, "targetPort": port["containerPort"]}]
        head = {"clusterIP": "None", "selector": selector, "ports": ports}
        self._make(live, "v1", "Service", place, head, known=name in there)
        if scaled:
            target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
            scaler = {
                "scaleTargetRef": target,
                "minReplicas": least,
                "maxReplicas": max(part.get("maxReplicas", 0), least),
                "metrics": _metrics(part),
            }
            where = ("autoscaling/v2", "HorizontalPodAutoscaler")
            self._make(live, *where, place, scaler, known=name in there)
        made = self._make(live, *DEPLOYMENT, place, spec, known=name in there)
        return made or there[name]

    def _remove_orphans(self, live: Json, there: Mapping[str, Json]) -> None:
        spec = live["spec"]
        wanted = {_called(live, "predictor", spec["predictor"])}
        wanted |= {_called(live, "predictor", one["predictor"]) for one in spec.get("canary") or []}
        for name, one in there.items():
            if one["metadata"]["labels"].get("component") == "predictor" and name not in wanted:
                for where in (DEPLOYMENT, ("v1", "Service")):
                    self.api.delete(*where, self.namespace, name)
                    self._put.pop(f"{where[1]} {name}", None)

    # -- Knative mode ------------------------------------------------------------------------

    def _knative(
        self, live: Json, parts: Sequence[str], there: Mapping[str, Json], status: Json
    ) -> dict[str, Json]:
        conditions: dict[str, Json] = {}
        for kind in parts:
            told, failure, generation = self._revisions(live, kind, there)
            status["components"][kind] = told
            status["observedGeneration"] = generation
            created, serving = told["latestCreatedRevision"], told.get("latestReadyRevision")
            built: Json = {"status": "True" if created == serving else "Unknown"}
            if failure:
                built = {"status": "False", "reason": "RevisionFailed", "message": failure}
            routed = {"status": "True"} if serving else {"status": "Unknown"}
            whole = next((one for one in (built, routed) if one["status"] != "True"), built)
            title = kind.capitalize()
            conditions |= {
                f"{title}ConfigurationReady": built,
                f"{title}RouteReady": routed,
                f"{title}Ready": whole,
            }
        conditions |= {
            "LatestDeploymentReady": _worst(conditions, parts, "ConfigurationReady"),
            "RoutesReady": _worst(conditions, parts, "RouteReady"),
        }
        return {
            kind: _condition(kind, one, info=kind != "PredictorReady")
            for kind, one in conditions.items()
        }

    def _revisions(self, live: Json, kind: str, there: Mapping[str, Json]) -> tuple[Json, str, int]:
        """Plays Knative for one component.

        Gives its part of the status, why the newest revision failed, and the generation that a
        Knative Service would have.
        """
        part = live["spec"][kind]
        service = _called(live, kind, part)
        revisions = sorted(
            (
                one
                for one in there.values()
                if one["metadata"]["labels"].get(f"{KNATIVE}/service") == service
            ),
            key=_revision_of,
        )
        template = self._template(live, kind, part)
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
        least = part.get("minReplicas", 1)
        newest = revisions[-1]["metadata"]["annotations"][TEMPLATE] if revisions else ""
        if newest != digest:
            number = int(_revision_of(revisions[-1])[-5:]) + 1 if revisions else 1
            revision = f"{service}-{number:05d}"
            revisions.append(self._revise(live, service, revision, template, digest, least))
        told = ((live.get("status") or {}).get("components") or {}).get(kind) or {}
        created = _revision_of(revisions[-1])
        ready = [_revision_of(one) for one in revisions if _serves(one)]
        serving = max([*ready, told.get("latestReadyRevision") or ""])
        traffic = _traffic(part.get("canaryTrafficPercent"), serving, told)
        status = {
            "latestCreatedRevision": created,
            "latestReadyRevision": serving,
            "traffic": traffic,
            **_rolled_out(told, created, serving, traffic),
        }
        targets = {one["revisionName"] for one in traffic} | ({created} - {serving})
        for one in revisions:
            revision = _revision_of(one)
            lowest = 0 if self.idle and revision == serving and least == 0 else max(least, 1)
            self._scale(one, lowest if revision in targets else 0)
        failure = ""
        if created != serving and (why := self._failure(revisions[-1])):
            failure = f'Revision "{created}" failed with message: {why}.'
        asked = [(one["latestRevision"] or one["revisionName"], one["percent"]) for one in traffic]
        state = json.dumps([digest, asked])
        before, generation = self._routed.get(service, ("", 0))
        if state != before:
            self._routed[service] = (state, generation := generation + 1)
        return {key: value for key, value in status.items() if value}, failure, generation

    def _template(self, live: Json, kind: str, part: Mapping[str, Any]) -> Json:
        scale = {f"{SCALE}/min-scale": str(part.get("minReplicas", 1))}
        if part.get("maxReplicas"):
            scale[f"{SCALE}/max-scale"] = str(part["maxReplicas"])
        scale |= {f"{SCALE}/class": f"kpa.{SCALE}"}
        return {
            "labels": _labels(live, kind, part),
            "annotations": {**scale, **_annotations(live, part)},
            "spec": _pod(live["metadata"]["name"], part),
        }

    def _revise(
        self, live: Json, service: str, revision: str, template: Json, digest: str, least: int
    ) -> Json:
        labels = {
            **template["labels"],
            f"{KNATIVE}/service": service,
            f"{KNATIVE}/configuration": service,
            f"{KNATIVE}/revision": revision,
            "app": revision,
        }
        proxy = {"name": "queue-proxy", "image": "registry.example.com/knative/queue:1"}
        pod = {**template["spec"], "containers": [*template["spec"]["containers"], proxy]}
        annotations = template["annotations"]
        metadata = {
            "name": f"{revision}-deployment",
            "labels": labels,
            "annotations": {**annotations, TEMPLATE: digest},
        }
        spec = {
            "replicas": max(least, 1),
            "selector": {"matchLabels": {f"{KNATIVE}/revision": revision}},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        }
        return self.put(
            live,
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        )

    def _scale(self, deployment: Json, wanted: int) -> None:
        if deployment["spec"]["replicas"] != wanted:
            name, change = deployment["metadata"]["name"], {"spec": {"replicas": wanted}}
            self.api.merge(*DEPLOYMENT, self.namespace, name, change, manager="autoscaler")

    def _failure(self, deployment: Json) -> str:
        """Why a revision is said to have failed: its container ended, or cannot start."""
        for status in self._containers(f"{KNATIVE}/revision={_revision_of(deployment)}"):
            ended = (status.get("state") or {}).get("terminated") or {}
            waiting = (status.get("state") or {}).get("waiting") or {}
            if ended or waiting.get("reason") in _STUCK:
                last = ended or (status.get("lastState") or {}).get("terminated") or {}
                return str(last.get("message") or waiting.get("message") or "container failed")
        return ""

    # -- both --------------------------------------------------------------------------------

    def _addresses(self, live: Json, parts: Sequence[str]) -> Json:
        name, first = live["metadata"]["name"], "predictor"
        if "transformer" in parts:
            first = "transformer"
        host = f"{_called(live, first, live['spec'][first])}.{self.namespace}.svc.cluster.local"
        url = f"http://{name}-{self.namespace}.{self.domain}"
        return {"url": url, "address": {"url": f"http://{host}"}}

    def _model(self, live: Json, status: Json) -> Json:
        """The predictor's model, as its first pod by name tells (PropagateModelStatus)."""
        before = (live.get("status") or {}).get("modelStatus") or {}
        states = dict(before.get("states") or {"activeModelState": "Pending"})
        told = {"states": states, "lastFailureInfo": before.get("lastFailureInfo")}
        created = status["components"]["predictor"].get("latestCreatedRevision")
        app = created or f"isvc.{_called(live, 'predictor', live['spec']['predictor'])}"
        pods = self._listed("v1", "Pod", f"app={app}")
        failure = self._load_failure(pods)
        ready = next(one for one in status["conditions"] if one["type"] == "Ready")
        if failure and (self.failing_load or ready["status"] != "True"):
            states["targetModelState"] = "FailedToLoad"
            told |= {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
        elif ready["status"] == "True" and pods:
            states |= {"activeModelState": "Loaded", "targetModelState": "Loaded"}
            told["transitionStatus"] = "UpToDate"
            told["copies"] = {"failedCopies": 0, "totalCopies": len(pods)}
        else:
            states["targetModelState"] = "Pending"
            told["transitionStatus"] = "InProgress"
        return {key: value for key, value in told.items() if value}

    def _load_failure(self, pods: Sequence[Json]) -> Json:
        if self.failing_load:
            return {"reason": "ModelLoadFailed", "message": self.failing_load, "exitCode": 1}
        first = sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))[:1]
        for status in _container_statuses(first):
            ended = (status.get("state") or {}).get("terminated") or {}
            waiting = (status.get("state") or {}).get("waiting") or {}
            if ended.get("reason") != "Error" and waiting.get("reason") not in _CRASHED:
                continue
            last = ended or (status.get("lastState") or {}).get("terminated") or {}
            told = {"reason": "ModelLoadFailed", "exitCode": last.get("exitCode", 0)}
            return {**told, "message": str(last.get("message") or "")}
        return {}

    def _containers(self, selector: str) -> list[Json]:
        return _container_statuses(self._listed("v1", "Pod", selector))

    def _listed(self, api_version: str, kind: str, selector: str) -> list[Json]:
        return self.api.list(api_version, kind, self.namespace, selector)

    def _make(
        self,
        live: Json,
        api_version: str,
        kind: str,
        metadata: Json,
        spec: Json,
        *,
        known: bool,
    ) -> Json | None:
        """Makes an object where it is not as wanted yet; gives it where it did."""
        key = f"{kind} {metadata['name']}"
        state = json.dumps([live["metadata"]["uid"], metadata, spec], sort_keys=True)
        if known and self._put.get(key) == state:
            return None
        head = {"apiVersion": api_version, "kind": kind}
        made = self.put(live, {**head, "metadata": metadata, "spec": spec})
        self._put[key] = state
        return made


def _owns(live: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    owners = other["metadata"].get("ownerReferences") or []
    return any(one["uid"] == live["metadata"]["uid"] for one in owners)


def _called(live: Mapping[str, Any], kind: str, part: Mapping[str, Any]) -> str:
    middle = f"-{part['name']}" if part.get("name") else ""
    return f"{live['metadata']['name']}{middle}-{kind}"


def _labels(live: Mapping[str, Any], kind: str, part: Mapping[str, Any]) -> dict[str, str]:
    return {
        **(live["metadata"].get("labels") or {}),
        **(part.get("labels") or {}),
        ISVC: live["metadata"]["name"],
        "component": kind,
    }


def _annotations(live: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, str]:
    both = {**(live["metadata"].get("annotations") or {}), **(part.get("annotations") or {})}
    return {key: value for key, value in both.items() if key not in _DISALLOWED}


def _pod(service: str, part: Mapping[str, Any]) -> Json:
    spec = {key: value for key, value in part.items() if key not in _OWN_FIELDS}
    if model := part.get("model"):
        runtime = model.get("runtime") or model["modelFormat"]["name"]
        own = ("env", "envFrom", "resources")
        container = {key: model[key] for key in own if key in model}
        image = f"registry.example.com/kserve/{runtime}:1"
        spec["containers"] = [{"name": CONTAINER, "image": image, **container}]
    told = {"name": "INFERENCE_SERVICE_NAME", "value": service}
    spec["containers"] = [
        {**one, "env": [*(one.get("env") or []), told]} for one in spec["containers"]
    ]
    return spec


def _metrics(part: Mapping[str, Any]) -> list[Json]:
    name = part.get("scaleMetric", "cpu")
    if name == "memory" and "scaleTarget" not in part:
        return []
    target = {"type": "Utilization", "averageUtilization": part.get("scaleTarget", 80)}
    return [{"type": "Resource", "resource": {"name": name, "target": target}}]


def _canary_replicas(spec: Mapping[str, Any], canary: Mapping[str, Any]) -> int:
    own = canary["predictor"].get("minReplicas")
    stable = spec["predictor"].get("minReplicas", 1)
    return int(own if own is not None else math.ceil(stable * canary["trafficPercent"] / 100))


def _canary_predictor(spec: Mapping[str, Any], canary: Mapping[str, Any]) -> Json:
    merged = _merged(spec["predictor"], canary["predictor"])
    for key in ("maxReplicas", "scaleTarget", "scaleMetric"):
        merged.pop(key, None)
    return {**merged, "minReplicas": _canary_replicas(spec, canary)}


def _merged(stable: Mapping[str, Any], canary: Mapping[str, Any]) -> Json:
    """What the canary does not say is the stable predictor's, key by key; lists are whole."""
    both = {**stable, **{key: value for key, value in canary.items() if value}}
    return {
        key: _merged(stable[key], value)
        if isinstance(value, dict) and isinstance(stable.get(key), dict) and key in canary
        else value
        for key, value in both.items()
    }


def _traffic(percent: int | None, serving: str, told: Mapping[str, Any]) -> list[Json]:
    if not serving:
        return []
    rolled_out = told.get("latestRolledoutRevision")
    if percent is None or not rolled_out:
        return [{"revisionName": serving, "latestRevision": True, "percent": 100}]
    traffic = [{"revisionName": serving, "latestRevision": True, "percent": percent}]
    if percent < 100:
        rest = {"revisionName": rolled_out, "latestRevision": False, "percent": 100 - percent}
        traffic.append({**rest, "tag": "prev"})
    return traffic


def _rolled_out(
    told: Mapping[str, Any], created: str, serving: str, traffic: Sequence[Json]
) -> Json:
    """The revisions that had all requests last, and before (PropagateStatus)."""
    latest = told.get("latestRolledoutRevision", "")
    previous = told.get("previousRolledoutRevision", "")
    share = next((one["percent"] for one in traffic if one["latestRevision"]), 0)
    if serving and serving != latest and share == 100:
        latest, previous = serving, latest
    elif serving and serving == latest == created and share < 100 and previous:
        # All was rolled out, and is taken back.
        latest = previous
    return {"latestRolledoutRevision": latest, "previousRolledoutRevision": previous}


def _revision_of(deployment: Mapping[str, Any]) -> str:
    return str(deployment["metadata"]["labels"][f"{KNATIVE}/revision"])


def _serves(deployment: Mapping[str, Any]) -> bool:
    status = deployment.get("status") or {}
    wanted = deployment["spec"]["replicas"]
    return bool(wanted) and (status.get("availableReplicas") or 0) >= wanted


def _container_statuses(pods: Sequence[Json]) -> list[Json]:
    return [
        status
        for pod in pods
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        if status["name"] == CONTAINER
    ]


def _condition(kind: str, told: Mapping[str, Any], *, info: bool = False) -> Json:
    status = told.get("status") or "Unknown"
    condition = {"type": kind, "status": status, **({"severity": "Info"} if info else {})}
    if status != "True":
        # One that is True has neither.
        condition |= {key: told[key] for key in ("reason", "message") if told.get(key)}
    return condition


def _worst(conditions: Mapping[str, Json], parts: Sequence[str], suffix: str) -> Json:
    found = {f"{kind.capitalize()}{suffix}" for kind in parts}
    for name in sorted(found):
        if conditions[name]["status"] != "True":
            return {"status": conditions[name]["status"], "reason": f"{name} not ready"}
    return {"status": "True"}


def _ready(conditions: Mapping[str, Json], parts: Sequence[str]) -> dict[str, Json]:
    """The ingress waits for every component, and Ready for predictor and ingress."""
    ingress: Json = {"status": "True"}
    for kind in parts:
        status = conditions[f"{kind.capitalize()}Ready"]["status"]
        if status != "True":
            reason = f"{kind.capitalize()} ingress not created"
            ingress = {"status": status if status == "Unknown" else "False", "reason": reason}
    found = {"IngressReady": _condition("IngressReady", ingress)}
    both = [conditions["PredictorReady"], found["IngressReady"]]
    order = [one for status in ("False", "Unknown") for one in both if one["status"] == status]
    found["Ready"] = _condition("Ready", order[0] if order else {"status": "True"})
    return found
