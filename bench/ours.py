"""Our side: `kfp-bento image build`, as a pod would run it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bentos import KFP_BENTO, TEAM, Bentos
from bench.cases import Case
from bench.figures import Figures
from bench.process import Usage, run
from bench.registry import BASE, Registry
from bench.starting import seconds_to_first_answer

_REPOSITORY = "bench"


@dataclass
class Ours:
    """Measures our builder.

    Attributes:
        scratch: Where pods come and go.
        logs: Where the builders' words are kept.
        registry: The target; its state "base" holds the base image and nothing else.
        bentos: What is built.
        packages: uv's cache, with all wheels in it.
        runs: How often a case is timed.
    """

    scratch: Path
    logs: Path
    registry: Registry
    bentos: Bentos
    packages: Path
    runs: int

    def measure(self, case: Case) -> Figures:
        """Time a case, and builds it once more to count and to watch the memory.

        The timed runs are not disturbed by anything: no proxy, no watching.
        """
        state = self._state_before(case)
        pod = self._new_pod()
        if case.keeps_state:
            self.registry.bring_back(state)
            self._build(case, case.before, pod)
        usages = []
        for _ in range(self.runs):
            pod = self._prepare(case, state, pod)
            usages.append(self._build(case, case.bento, pod))
        pod = self._prepare(case, state, pod)
        with self.registry.counted() as counts:
            watched = self._build(case, case.bento, pod, watch_memory=True)
        pulled, unpacked = self.registry.image_sizes(_REPOSITORY, case.bento)
        starts = []
        if case.starts:
            image = f"{self.registry.address}/{_REPOSITORY}:{case.bento}"
            example = self.bentos.example(case.bento)
            starts = seconds_to_first_answer(image, example, self.scratch)
        return Figures.of(
            usages,
            watched,
            counts[0],
            image_bytes=pulled,
            unpacked_bytes=unpacked,
            node_bytes=self.registry.bytes_above_base(_REPOSITORY, case.bento),
            starts=starts,
            details={"layers": _layers(watched), "digests": _digests([*usages, watched])},
        )

    def _state_before(self, case: Case) -> str:
        """Give the registry's state when the case begins."""
        if not case.before:
            return "base"
        state = f"ours-{case.before}"
        if not self.registry.has(state):
            self.registry.bring_back("base")
            self._build(case, case.before, self._new_pod())
            self.registry.keep(state)
        return state

    def _prepare(self, case: Case, state: str, pod: Path) -> Path:
        self.registry.bring_back(state)
        if not case.keeps_state:
            pod = self._new_pod()
        os.sync()  # what was written before is not to be written meanwhile
        return pod

    def _new_pod(self) -> Path:
        """Give a place where nothing is yet."""
        pod = self.scratch / "pod"
        shutil.rmtree(pod, ignore_errors=True)
        for name in ("home", "tmp", "no-packages"):
            (pod / name).mkdir(parents=True)
        return pod

    def _build(self, case: Case, bento: str, pod: Path, *, watch_memory: bool = False) -> Usage:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KFP_BENTO_", "XDG_")) and name != "PYTHONDONTWRITEBYTECODE"
        }
        environment |= TEAM | {
            "HOME": str(pod / "home"),
            "TMPDIR": str(pod / "tmp"),
            "UV_CACHE_DIR": str(self.packages if case.packages else pod / "no-packages"),
        }
        if case.keeps_state:
            environment["KFP_BENTO_CACHE"] = str(pod / "cache")
        address = self.registry.address
        command = [*KFP_BENTO, "image", "build", self.bentos.path(bento), "--json"]
        command += ["--to", f"{address}/{_REPOSITORY}:{bento}", "--base", f"{address}/{BASE}"]
        log = self.logs / f"ours-{case.name}.log"
        return run(command, environment, log, watch_memory=watch_memory)


def _layers(usage: Usage) -> list[dict[str, Any]]:
    found = json.loads(usage.output)["layers"]
    return [{name: layer[name] for name in ("kind", "origin", "size")} for layer in found]


def _digests(usages: list[Usage]) -> list[str]:
    """Give the digests of the same image, built again and again: one, if the builder is exact."""
    return sorted({json.loads(usage.output)["digest"] for usage in usages})
