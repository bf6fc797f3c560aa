"""An endpoint on a stub of an API server, and deaths at any moment of what works on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sample_bentos import make_bento, make_model
from stub_api_server import ApiServer

from kfp_bento.runtime.deployments import TARGETS, Deployed, ReleaseFacts, Waiting, deploy
from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.release import rollout, status
from kfp_bento.runtime.deployments.release.verdict import Verdict
from kfp_bento.runtime.deployments.targets.readiness import Snapshot, Watched

KINDS = {
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "v1": {"services": "Service", "pods": "Pod", "configmaps": "ConfigMap"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "gateway.networking.k8s.io/v1": {"httproutes": "HTTPRoute"},
}
RUN = "run-1"


def image_of(version: str) -> str:
    return "registry.example.com/wine@sha256:" + version.rjust(2, "0") * 32


@dataclass
class Endpoint:
    """One release of one name; whether pods would serve is played, by version.

    Attributes:
        broken: Versions whose pods crash.
        runs: The image that pods run instead of the one that is applied.
    """

    api: ApiServer | None
    folder: Path
    model: str = "wine"
    broken: set[str] = field(default_factory=set)
    runs: str = ""
    count: int = 0

    def deploy(self, version: str, *, run: str = RUN, **options: Any) -> Deployed:
        more = {name: options.pop(name) for name in ("confirm", "back") if name in options}
        made = make_model(name=self.model, version=version)
        bento = make_bento(version=f"{version:0>16}", models=(made,))
        release = TARGETS["workload"].render(image_of(version), bento, options)
        self.count += 1
        return deploy(
            release,
            self.folder / f"manifests-{self.count}",
            mode="apply",
            waiting=Waiting(60),
            run=run,
            confirm=more.get("confirm", False),
            roll_back_on_failure=more.get("back", True),
        )

    def trial(self, version: str, **options: Any) -> ReleaseFacts:
        return self.deploy(version, **options).facts

    def good(self, version: str, **options: Any) -> ReleaseFacts:
        return self.deploy(version, confirm=True, **options).facts

    @property
    def serves(self) -> str:
        """The version that is applied; "" where nothing is."""
        assert self.api is not None
        live = self.api.objects.get("deployments/wine")
        if live is None:
            return ""
        (container,) = live["spec"]["template"]["spec"]["containers"]
        return str(container["image"])[-2:].lstrip("0")

    def snapshot(self, watched: Watched) -> Snapshot:
        """What is applied, with one ready pod of each Deployment, the canary's included."""
        assert self.api is not None
        live = {
            one["metadata"]["name"]: one
            for key, one in self.api.objects.items()
            if key.startswith("deployments/")
        }
        holder = live.get(watched.primary.name)
        deployments, sets, pods = [], [], []
        for name, one in live.items():
            deployments.append({**one, "metadata": {**one["metadata"], "uid": f"uid-{name}"}})
            owner = {"uid": f"rs-{name}"}
            sets.append({"metadata": {**owner, "ownerReferences": [{"uid": f"uid-{name}"}]}})
            pods.append(self._pod(one, owner))
        return Snapshot(holder, holder, deployments=deployments, replica_sets=sets, pods=pods)

    def _pod(self, live: dict[str, Any], owner: dict[str, str]) -> dict[str, Any]:
        (container,) = live["spec"]["template"]["spec"]["containers"]
        image = self.runs or container["image"]
        name = f"{live['metadata']['name']}-1"
        return {
            "metadata": {"name": name, "uid": f"uid-{name}", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": container["name"], "image": image}]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": container["name"], "imageID": image}],
            },
        }

    @property
    def marks(self) -> dict[str, str]:
        """Our annotations on the holder, without their prefix."""
        assert self.api is not None
        found = self.api.objects["deployments/wine"]["metadata"].get("annotations") or {}
        return {key.partition("/")[2]: value for key, value in found.items()}


@contextmanager
def played_waits(endpoint: Endpoint) -> Iterator[None]:
    """Pods serve at once, or crash, as their version is said to."""

    def wait(_: Any, watched: Any, *rest: Any, **more: Any) -> Verdict:
        if endpoint.serves in endpoint.broken:
            return Verdict(False, "CrashLoopBackOff", "The container crashes.")
        return Verdict(True, "Ready", "It serves.")

    def look(_: Any, watched: Watched) -> tuple[Snapshot, str]:
        return endpoint.snapshot(watched), ""

    with pytest.MonkeyPatch.context() as patch:
        for module in (rollout, status):
            patch.setattr(module, "wait_until_ready", wait)
        patch.setattr(status, "look_at", look)
        patch.setattr(status, "SERVED_SECONDS", 0.0)
        yield


@contextmanager
def served_at_once() -> Iterator[None]:
    """Pods serve at once, whatever the version."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (rollout, status):
            patch.setattr(
                module, "wait_until_ready", lambda *_, **__: Verdict(True, "Ready", "It serves.")
            )
        yield


class Killed(BaseException):
    """The process is gone: from then on nothing that it does reaches anybody."""


@dataclass
class Death:
    """Ends a process at the n-th request that changes something, before or after it arrives."""

    at: int
    after: bool = False
    count: int = 0
    dead: bool = False

    def wrap(self, real: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if self.dead:
                raise Killed
            self.count += 1
            if self.count == self.at and not self.after:
                self.dead = True
                raise Killed
            found = real(*arguments, **more)
            if self.count == self.at:
                self.dead = True
                raise Killed
            return found

        return call


@contextmanager
def dying(at: int, *, after: bool) -> Iterator[Death]:
    """Let whatever runs inside die at the n-th change, on the cluster or in the registry."""
    import mlflow

    death = Death(at, after)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("apply", "merge", "delete"):
            patch.setattr(ClusterConnection, name, death.wrap(getattr(ClusterConnection, name)))
        for name in (
            *("set_registered_model_alias", "delete_registered_model_alias"),
            *("set_registered_model_tag", "set_model_version_tag", "delete_registered_model_tag"),
        ):
            patch.setattr(mlflow.MlflowClient, name, death.wrap(getattr(mlflow.MlflowClient, name)))
        yield death
