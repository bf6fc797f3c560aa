"""An endpoint of real pods: releases as people make them, and who asks it meanwhile."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import urllib3
from kfp_bento_command import kfp_bento_here
from real_node import RealCluster
from small_models import small_model

NAME = "times"
MODEL = """\
import os
import tempfile
import time


def _load_pyfunc(path):
    if "FAILS" in os.environ:
        raise RuntimeError("this model does not load")
    held = []
    while "EATS" in os.environ and len(held) < 64:
        held.append(bytearray(os.urandom(1) * (1 << 24)))
    if "FILLS" in os.environ:
        with open(os.path.join(tempfile.gettempdir(), "filling"), "wb") as file:
            file.write(bytes(1 << 27))
        time.sleep(3600)
    return Times()


class Times:
    def predict(self, inputs):
        return (inputs["a"] * {factor}).to_numpy()
"""
"""What goes wrong does so in a pod alone: the proof of the bento does not know these variables."""
SMALL = {
    "requests": {"cpu": "100m", "memory": "200Mi"},
    "limits": {"cpu": "2", "memory": "600Mi"},
}
ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
DEPLOYMENT = ("apps/v1", "Deployment")
PATIENCE = 60
"""Seconds for an answer: a busy machine is slow, and that is no lost request."""


@dataclass(frozen=True)
class Built:
    """A bento and its image in the registry."""

    bento: Path
    image: str


def built(factor: int, folder: Path, registry: str) -> Built:
    """Makes a service that multiplies, as people make one."""
    model = folder / f"by{factor}"
    small_model(model, MODEL.replace("{factor}", str(factor)))
    bento = folder / f"bento-{factor}"
    _well("bento", "build", model, "--to", bento, "--name", NAME)
    to = f"{registry}/ml/{NAME}"
    told = _well(
        *("image", "build", bento, "--to", to, "--base", "host", "--json"),
        "--cache",
        folder / "cache",
    )
    return Built(bento, json.loads(told)["reference"])


def _well(*arguments: object) -> str:
    done = kfp_bento_here(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@dataclass
class Endpoint:
    """The release of one namespace.

    Attributes:
        target: The release's.
        suffix: What its Service is called besides.
        port: Where that answers.
    """

    cluster: RealCluster
    namespace: str
    name: str = NAME
    target: str = "workload"
    suffix: str = ""
    port: int = 3000

    def apply(
        self, what: Built, *arguments: str, resources: Any = SMALL, image: str = ""
    ) -> CompletedProcess[str]:
        """Brings a release to the cluster, and waits until it serves or the reason is known."""
        return kfp_bento_here(
            *("deploy", "apply", image or what.image, "--bento", what.bento, "-t", self.target),
            *("-n", self.namespace, "--resources", json.dumps(resources)),
            *("--wait-seconds", "600", "--confirm"),
            *("--to", what.bento.parent / "manifests", *arguments),
            KUBECONFIG=str(self.cluster.kubeconfig),
        )

    def serve(self, what: Built, *arguments: str, **more: Any) -> None:
        done = self.apply(what, *arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr

    def roll_back(self) -> None:
        done = self._release("roll-back")
        assert done.returncode == 0, done.stdout + done.stderr

    def is_up(self) -> bool:
        """Whether we say that it serves."""
        return self._release("status", "--exit-code").returncode == 0

    def _release(self, verb: str, *options: str) -> CompletedProcess[str]:
        return kfp_bento_here(
            *("release", verb, self.name, "-t", self.target, "-n", self.namespace, *options),
            KUBECONFIG=str(self.cluster.kubeconfig),
        )

    def ask(self, service: str = "") -> str:
        """What the Service answers to 1, over a connection of its own."""
        service = service or f"{self.name}{self.suffix}"
        url = f"http://{service}.{self.namespace}.svc.cluster.local:{self.port}/predict"
        with urllib3.PoolManager(retries=False, timeout=PATIENCE) as http:
            answer = http.request("POST", url, json={"inputs": [{"a": 1.0}]})
        if answer.status != 200:
            raise ConnectionError(f"{answer.status} {answer.data.decode()}")
        return f"{answer.json()[0]:g}"

    def ask_through_the_route(self) -> str:
        """As a Gateway would: one of the Services, by their weights."""
        live = self.cluster.api.get(*ROUTE, self.namespace, self.name)
        assert live is not None
        services = {
            one["name"]: one.get("weight", 1) for one in live["spec"]["rules"][0]["backendRefs"]
        }
        return self.ask(*random.choices(list(services), list(services.values())))

    def pods(self) -> list[dict[str, Any]]:
        return self.cluster.pods_of(self.namespace)


@dataclass
class Load:
    """Requests that come all the time.

    Attributes:
        answers: How often each was given.
        failures: What else came.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    def until_answered(self, answer: str, times: int = 20) -> None:
        """Waits until an answer was given as often as that from now on."""
        wanted, deadline = self.answers[answer] + times, time.monotonic() + 300
        while self.answers[answer] < wanted:
            assert time.monotonic() < deadline, (answer, self.answers, self.failures[:3])
            time.sleep(0.05)

    def work(self, ask: Callable[[], str]) -> None:
        while not self._ending.wait(0.05):
            try:
                self.answers[ask()] += 1
            except Exception as failure:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {failure!r}")


@contextmanager
def load(ask: Callable[[], str], users: int = 3) -> Iterator[Load]:
    """Asks as several users do, about 20 times a second each; nothing may fail."""
    made = Load()
    threads = [threading.Thread(target=made.work, args=(ask,), daemon=True) for _ in range(users)]
    for one in threads:
        one.start()
    try:
        yield made
    finally:
        made._ending.set()
        for one in threads:
            one.join()
    assert made.failures == [], (len(made.failures), made.answers, made.failures[:5])
