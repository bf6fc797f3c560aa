"""A stage for whole pipelines: an endpoint whose pods serve, a registry of models, and deaths.

Every pipeline runs as `kfp-bento run` runs it, by kfp.local, each step a process. The endpoint is
asked what it serves, and MLflow where the alias is: version n of the model answers n times what it
is given.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api_proxy import Answer, ApiProxy, Asked, serve_proxy
from flaky_proxy import FlakyProxy
from serving_pods import ServingPods

from kfp_bento.runtime.local import Run, RunFailed, Step, run_pipeline

REFUSING = {
    "load": {"users": 1, "ramp_seconds": 0, "duration_seconds": 1, "limits": {"p95_ms": 1e-3}}
}
"""A limit that no service keeps."""
TOKEN = "WHOLE_ROADS"


class Registry(FlakyProxy):
    """Stands before MLflow, and may stop a request before it arrives."""

    def __init__(self, upstream: str, moment: Callable[[str], bool]) -> None:
        super().__init__(upstream, after=1 << 60, then="stall")
        self._moment = moment

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                first = data.partition(b"\r\n")[0]
                moves = first.startswith(b"POST ") and b"/registered-models/alias" in first
                if moves and self._moment("alias"):
                    break
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)


@dataclass
class Stage:
    """What pipelines run on.

    Attributes:
        environment: What steps see besides.
        deaths: Step and moment at which its process is killed, each once: "applied" (a release has
            reached the cluster), "apply" (a change is about to), "ask" (the endpoint is asked),
            "alias" (the alias is about to move).
        died: The steps that were.
        runs: The newest run that ended well with each version of the model.
    """

    pods: ServingPods
    registry: str
    folder: Path
    cache: Path
    uri: str = ""
    kubeconfig: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, str] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    step: str = ""
    count: int = 0

    def run(self, pipeline: str, *, meanwhile: Callable[[Step], None] = print, **given: Any) -> Run:
        """Runs a pipeline to its end.

        Raises:
            RunFailed: A step failed.
        """
        self.count += 1
        environment = {
            **self.pods.environment,
            **self.environment,
            "KFP_BENTO_CACHE": str(self.cache),
            "KUBECONFIG": str(self.kubeconfig),
            TOKEN: str(self.folder),
        }

        def on_step(step: Step) -> None:
            self.step = step.name if step.succeeded is None else ""
            meanwhile(step)

        return run_pipeline(
            *(pipeline, given, self.folder / f"run-{self.count}"),
            environment=environment,
            on_step=on_step,
        )

    def moment(self, kind: str) -> bool:
        """Whether the step that runs dies at this moment."""
        step = self.step
        if self.deaths.get(step) != kind:
            return False
        del self.deaths[step]
        for process in _processes(step, str(self.folder)):
            os.kill(process, signal.SIGKILL)
        self.died.append(step)
        return True

    def at_the_cluster(self, asked: Asked) -> Answer | None:
        if asked.method != "PATCH" or asked.is_trial:
            return None
        if self.moment("apply"):
            return Answer(0)
        applied = (asked.resource, asked.query.get("fieldManager")) == ("deployments", "kfp-bento")
        return Answer(0, after=True) if applied and self.moment("applied") else None


@dataclass
class Road:
    """One endpoint and one model, with versions 1 to 3.

    Attributes:
        given: Parameters of all its runs, besides the usual ones.
        pointer: The alias that moves.
    """

    stage: Stage
    model: str
    namespace: str
    client: Any
    given: dict[str, Any] = field(default_factory=dict)
    pointer: str = "prod"

    @property
    def alias(self) -> str:
        """The version that holds the alias; "" for none."""
        return str(self.client.get_registered_model(self.model).aliases.get(self.pointer) or "")

    @property
    def serves(self) -> str:
        """The version that answers; "" where nothing does."""
        body = {"inputs": [{"a": 1.0}]}
        answer = self.stage.pods.ask("road", self.namespace, "/predict", body)
        return "" if answer is None else f"{answer[0]:g}"

    @property
    def where(self) -> tuple[str, str]:
        """What serves, and where the alias is."""
        return self.serves, self.alias

    @property
    def ends(self) -> dict[str, Any]:
        """Where all pipelines that move this model find both ends."""
        return {
            "promote_alias": self.pointer,
            "deploy_name": "road",
            "deploy_namespace": self.namespace,
            "deploy_wait_seconds": 120,
            "tracking_uri": self.stage.uri,
        }

    @property
    def next(self) -> str:
        """A version that is neither."""
        return next(one for one in "123" if one not in self.where)

    def run(self, version: str, pipeline: str = "serve_model", **more: Any) -> Run:
        """Takes a version of the model through a pipeline."""
        given = {
            "model_uris": [f"models:/{self.model}/{version}"],
            "image_destination": f"{self.stage.registry}/ml/road",
            "image_base": "host",
            "deploy_target": "workload",
        }
        done = self.stage.run(pipeline, **{**given, **self.ends, **self.given, **more})
        self.stage.runs[version] = done
        return done

    def refused(self, version: str, pipeline: str = "serve_model", **more: Any) -> str:
        """Does that where the run is to fail; gives why."""
        return why_failed(lambda: self.run(version, pipeline, **more))


def why_failed(run: Callable[[], Run]) -> str:
    """What is said of a run that has to fail."""
    try:
        done = run()
    except RunFailed as failure:
        return failure.message
    raise AssertionError(f"It ended well: {done.seconds}")


@contextmanager
def stage_in(
    folder: Path, pods: ServingPods, mlflow: str, registry: str, cache: Path
) -> Iterator[Stage]:
    """A stage on real servers, with somebody before each of them who may kill."""
    made = Stage(pods, registry, folder, cache)
    cluster = ApiProxy(pods.cluster.kubeconfig, harm=made.at_the_cluster)
    pods.passing = lambda name, namespace: made.moment("ask")
    with serve_proxy(cluster), Registry(mlflow, made.moment) as before:
        made.uri = before.uri
        made.kubeconfig = cluster.write_kubeconfig(folder / "kubeconfig")
        yield made


def _processes(step: str, token: str) -> Iterator[int]:
    """The process of a step of this stage."""
    function = f"\0--function_to_execute\0{step.rstrip('-0123456789').replace('-', '_')}\0"
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                function in place.joinpath("cmdline").read_bytes().decode(errors="replace")
                and f"{TOKEN}={token}\0".encode() in place.joinpath("environ").read_bytes()
            ):
                yield int(place.name)
