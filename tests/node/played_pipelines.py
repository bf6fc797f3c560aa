"""Kubeflow Pipelines, played on a real node: each step of a compiled pipeline is a pod.

The driver's part is here: which step comes when, what goes into it, and its pod with the volumes,
variables, Secrets and the security context that Kubeflow gives it. The launcher's part runs in the
pod (`launcher.py`). There is no cache, nothing is tried again, and one step runs at a time.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from launcher import LOG, SECRET
from real_node import RealCluster
from servers import S3Server

ROOT = Path(__file__).parents[2]
ACCOUNT = "default-editor"
"""Whose rights a run has in the namespace of a profile."""
LAUNCHER = "kfp-launcher"
SCRATCH = ("/gcs", "/minio", "/s3", "/.local", "/.cache", "/.config")
OUTPUTS = "/tmp/kfp/outputs"
SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
STEP_SECONDS = 1200.0
LATE = "ALL_UPSTREAM_TASKS_COMPLETED"

Json = dict[str, Any]


class StepFailed(Exception):
    """A step ended badly; says which, with the end of its log."""

    def __init__(self, step: str, log: str) -> None:
        super().__init__(f"{step} failed:\n{log[-6000:]}")


@dataclass
class Scope:
    """What tasks of a DAG can refer to."""

    parameters: Json
    artifacts: Json
    done: dict[str, Json] = field(default_factory=dict)

    def parameter(self, source: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return self.parameters.get(source["componentInputParameter"])
        if taken := source.get("taskOutputParameter"):
            return self.done[taken["producerTask"]]["parameters"][taken["outputParameterKey"]]
        return source["runtimeValue"]["constant"]

    def artifact(self, source: Mapping[str, Any]) -> Any:
        if "componentInputArtifact" in source:
            return self.artifacts.get(source["componentInputArtifact"])
        taken = source["taskOutputArtifact"]
        return self.done[taken["producerTask"]]["artifacts"][taken["outputArtifactKey"]]


def filled(text: str, parameters: Mapping[str, Any], run: str) -> str:
    """A text with its placeholders."""

    def value(match: re.Match[str]) -> str:
        found = parameters[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    named = re.sub(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}", value, text)
    return named.replace("{{$.pipeline_job_uuid}}", run)


@dataclass
class PlayedRun:
    """One run of a compiled pipeline.

    Attributes:
        steps: What each step that ended well gave, by its task's name.
        failed: Steps that did not.
    """

    cluster: RealCluster
    namespace: str
    storage: S3Server
    pipeline: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    steps: dict[str, Json] = field(default_factory=dict)
    failed: dict[str, StepFailed] = field(default_factory=dict)
    user: int | None = None

    def __post_init__(self) -> None:
        text = (ROOT / f"pipelines/compiled/{self.pipeline}.yaml").read_text()
        self._specification, platforms = yaml.safe_load_all(text)
        kubernetes = platforms["platforms"]["kubernetes"]["deploymentSpec"]
        self._platform: Json = kubernetes["executors"]

    def run(self, **given: Any) -> PlayedRun:
        """Runs it to its end: `failed` says what did not go well."""
        root = self._specification["root"]
        parameters = _with_defaults(root.get("inputDefinitions", {}), given)
        self._run_dag(root["dag"], Scope(parameters, {}))
        return self

    def stored(self, step: str) -> set[str]:
        """The artifacts of a step that lie in object storage."""
        prefix = f"{self._prefix(step)}/"
        listed = self.storage.client().list_objects_v2(Bucket=self.storage.bucket, Prefix=prefix)
        keys = [one["Key"] for one in listed.get("Contents", [])]
        return {key.removeprefix(prefix).partition("/")[0] for key in keys}

    def stored_bytes(self, step: str) -> int:
        """How much a step has left in object storage."""
        prefix = f"{self._prefix(step)}/"
        listed = self.storage.client().list_objects_v2(Bucket=self.storage.bucket, Prefix=prefix)
        return sum(one["Size"] for one in listed.get("Contents", []))

    def text(self, step: str, artifact: str) -> str:
        """An artifact that is one file."""
        key = f"{self._prefix(step)}/{artifact}"
        found = self.storage.client().get_object(Bucket=self.storage.bucket, Key=key)
        return str(found["Body"].read().decode())

    def _run_dag(self, dag: Json, scope: Scope) -> bool:
        """Runs all tasks, one after the other; says whether all went well."""
        well = True
        for name, task in _in_order(dag["tasks"]):
            trigger = task.get("triggerPolicy", {})
            if not well and trigger.get("strategy") != LATE:
                continue
            if _holds(trigger.get("condition", ""), _inputs(task, scope, self.id)["parameters"]):
                well = self._run_task(name, task, scope) and well
        return well

    def _run_task(self, name: str, task: Json, scope: Scope) -> bool:
        component = self._specification["components"][task["componentRef"]["name"]]
        given = _inputs(task, scope, self.id)
        definitions = component.get("inputDefinitions", {})
        parameters = _with_defaults(definitions, given["parameters"])
        if "dag" in component:
            return self._run_dag(component["dag"], Scope(parameters, given["artifacts"]))
        try:
            done = self._run_step(name, component, parameters, given["artifacts"], scope)
        except StepFailed as failure:
            self.failed[name] = failure
            return False
        self.steps[name] = scope.done[name] = done
        return True

    def _run_step(
        self, name: str, component: Json, parameters: Json, artifacts: Json, scope: Scope
    ) -> Json:
        label = component["executorLabel"]
        container = self._specification["deploymentSpec"]["executors"][label]["container"]
        executor_input = json.dumps(self._executor_input(name, component, parameters, artifacts))
        arguments = [one.replace("{{$}}", executor_input) for one in container.get("args", [])]
        result = f"results/{self.id}/{name}.json"
        endpoint, bucket = self.storage.endpoint, self.storage.bucket
        pod = self._pod(
            f"{name}-{self.id[:8]}",
            filled(container["image"], parameters, self.id),
            ["python3", f"/{LAUNCHER}/launcher.py", endpoint, bucket, result, executor_input],
            [*container["command"], *arguments],
            self._platform.get(label, {}),
            scope.parameters,
        )
        self._run_pod(name, pod)
        found = self.storage.client().get_object(Bucket=bucket, Key=result)
        return dict(json.load(found["Body"]))

    def _executor_input(
        self, name: str, component: Json, parameters: Json, artifacts: Json
    ) -> Json:
        wanted = component.get("outputDefinitions", {})
        kinds = {key: one["artifactType"] for key, one in wanted.get("artifacts", {}).items()}
        kinds[LOG] = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
        place = f"minio://{self.storage.bucket}/{self._prefix(name)}"
        made = {
            key: {"name": key, "type": kind, "uri": f"{place}/{key}", "metadata": {}}
            for key, kind in kinds.items()
        }
        files = {key: {"outputFile": f"{OUTPUTS}/{key}"} for key in wanted.get("parameters", {})}
        return {
            "inputs": {"parameterValues": parameters, "artifacts": _listed(artifacts)},
            "outputs": {
                "parameters": files,
                "artifacts": _listed(made),
                "outputFile": "/tmp/kfp_outputs/output_metadata.json",
            },
        }

    def _prefix(self, step: str) -> str:
        return f"v2/artifacts/{self.pipeline}/{self.id}/{step}"

    def _pod(
        self,
        name: str,
        image: str,
        command: list[str],
        arguments: list[str],
        platform: Json,
        parameters: Json,
    ) -> Json:
        volumes: list[Json] = [{"name": LAUNCHER, "configMap": {"name": LAUNCHER}}]
        mounts = [{"name": LAUNCHER, "mountPath": f"/{LAUNCHER}"}]
        for number, path in enumerate(SCRATCH):
            volumes.append({"name": f"scratch-{number}", "emptyDir": {}})
            mounts.append({"name": f"scratch-{number}", "mountPath": path})
        for number, one in enumerate(platform.get("secretAsVolume", [])):
            source = {"secretName": _named(one, "secretNameParameter", parameters)}
            source |= {"optional": one.get("optional", False)}
            volumes.append({"name": f"secret-{number}", "secret": source})
            mounts.append({"name": f"secret-{number}", "mountPath": one["mountPath"]})
        for number, one in enumerate(platform.get("configMapAsVolume", [])):
            source = {"name": _named(one, "configMapNameParameter", parameters)}
            source |= {"optional": one.get("optional", False)}
            volumes.append({"name": f"config-{number}", "configMap": source})
            mounts.append({"name": f"config-{number}", "mountPath": one["mountPath"]})
        user = {} if self.user is None else {"runAsUser": self.user, "runAsNonRoot": True}
        main = {
            "name": "main",
            "image": image,
            "command": command,
            "args": arguments,
            "env": [*_variables(platform, parameters)],
            "volumeMounts": mounts,
            "securityContext": {**SECURITY, **user},
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "serviceAccountName": ACCOUNT,
                "restartPolicy": "Never",
                "containers": [main],
                "volumes": volumes,
            },
        }

    def _run_pod(self, step: str, pod: Json) -> None:
        name = pod["metadata"]["name"]
        path = self.cluster.api.path("v1", "Pod", self.namespace)
        self.cluster.api.request("POST", path, pod)

        def ended() -> str:
            live = self.cluster.api.get("v1", "Pod", self.namespace, name) or {}
            phase = live.get("status", {}).get("phase", "")
            return phase if phase in ("Succeeded", "Failed") else ""

        phase = self.cluster.until(f"the end of {name}", ended, STEP_SECONDS)
        if phase == "Failed":
            raise StepFailed(step, str(self.cluster.api.request("GET", f"{path}/{name}/log")))
        self.cluster.api.delete("v1", "Pod", self.namespace, name)


def prepare(cluster: RealCluster, namespace: str, storage: S3Server) -> None:
    """What Kubeflow has in the namespace of a run: an account, its rights, and credentials."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    cluster.account(namespace, ACCOUNT, rules)
    keys = {"accesskey": storage.access_key, "secretkey": storage.secret_key}
    launcher = {"launcher.py": Path(__file__).with_name("launcher.py").read_text()}
    for kind, name, content in (
        ("Secret", SECRET, {"stringData": keys}),
        ("ConfigMap", LAUNCHER, {"data": launcher}),
    ):
        metadata = {"name": name, "namespace": namespace}
        cluster.api.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, **content})


def _in_order(tasks: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Tasks after those that they depend on."""
    seen: set[str] = set()
    while len(seen) < len(tasks):
        for name, task in tasks.items():
            if name not in seen and seen.issuperset(task.get("dependentTasks", [])):
                seen.add(name)
                yield name, task


def _inputs(task: Json, scope: Scope, run: str) -> Json:
    given = task.get("inputs", {})
    found = {key: scope.parameter(one) for key, one in given.get("parameters", {}).items()}
    # A constant may name the task's own inputs.
    parameters = {
        key: filled(one, found, run) if isinstance(one, str) and "runtimeValue" in source else one
        for (key, one), source in zip(
            found.items(), given.get("parameters", {}).values(), strict=True
        )
    }
    artifacts = {key: scope.artifact(one) for key, one in given.get("artifacts", {}).items()}
    return {
        "parameters": {key: one for key, one in parameters.items() if one is not None},
        "artifacts": {key: one for key, one in artifacts.items() if one is not None},
    }


def _with_defaults(definitions: Json, given: Json) -> Json:
    known = definitions.get("parameters", {})
    defaults = {key: one["defaultValue"] for key, one in known.items() if "defaultValue" in one}
    return {**defaults, **given}


def _holds(condition: str, parameters: Json) -> bool:
    """Whether a condition is true; those of our pipelines are Python but for the negation."""
    if not condition:
        return True
    expression = condition.replace("!(", "not (").replace("inputs.parameter_values", "parameters")
    names = {"int": int, "true": True, "false": False, "parameters": parameters}
    return bool(eval(expression, names))


def _listed(artifacts: Json) -> Json:
    return {key: {"artifacts": [one]} for key, one in artifacts.items()}


def _named(one: Json, key: str, parameters: Json) -> Any:
    return parameters[one[key]["componentInputParameter"]]


def _variables(platform: Json, parameters: Json) -> Iterator[Json]:
    for name, field_path in (
        ("KFP_POD_NAME", "metadata.name"),
        ("KFP_POD_UID", "metadata.uid"),
        ("NAMESPACE", "metadata.namespace"),
    ):
        yield {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field_path}}}
    for one in platform.get("secretAsEnv", []):
        secret = _named(one, "secretNameParameter", parameters)
        for pair in one["keyToEnv"]:
            source = {"name": secret, "key": pair["secretKey"]}
            source |= {"optional": one.get("optional", False)}
            yield {"name": pair["envVar"], "valueFrom": {"secretKeyRef": source}}
