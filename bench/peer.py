"""The peer: `bentoml containerize --backend buildah`, and then `buildah push`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench.bentos import BASE_NAME, Bentos
from bench.cases import Case
from bench.figures import Figures
from bench.process import Usage, run
from bench.registry import BASE, Registry
from bench.starting import seconds_to_first_answer

_REPOSITORY = "peer"
_TOOLS = ("buildah", "mount", "unshare")
# buildah remembers below this directory, and nowhere else, which blobs a registry has.
_MEMORY = Path("/var/lib/containers")
# Mounts that buildah makes are gone with the process that needed them, whatever happens.
_NAMESPACE = ("unshare", "--mount", "--propagation", "private")
_ENTER = f'mount --bind "$0" {_MEMORY} && exec "$@"'


def why_not() -> str:
    """Why the peer cannot be measured here; "" if it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (bench/install-tools)"
    if os.geteuid() != 0:
        return "it needs root here, to mount and to change owners"
    done = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "this machine allows no mount namespaces"


@dataclass
class Peer:
    """Measures BentoML with buildah, as root with chroot isolation: its easiest case.

    Attributes:
        scratch: Where its storage, its BentoML home and its build contexts go.
        logs: Where its words are kept.
        registry: The target; its state "base" holds the base image and nothing else.
        bentos: What is built.
        packages: uv's cache, with all wheels in it; mounted into the build.
        runs: How often a case is timed.
    """

    scratch: Path
    logs: Path
    registry: Registry
    bentos: Bentos
    packages: Path
    runs: int
    _layers_of: set[str] = field(default_factory=set)

    def measure(self, case: Case) -> Figures:
        """Time a case; the last of its runs is also the one that is counted and watched."""
        usages = []
        for number in range(1, self.runs + 1):
            self._prepare(case)
            os.sync()  # what was written before is not to be written meanwhile
            built = self._build(case, case.bento, watch_memory=number == self.runs)
            if number < self.runs:
                usages.append((built, self._push(case, case.bento)))
                continue
            with self.registry.counted() as counts:
                usages.append((built, self._push(case, case.bento, watch_memory=True)))
        if case.name == "first":
            self.registry.keep(_state(case.bento, layers=False))
        pulled, unpacked = self.registry.image_sizes(_REPOSITORY, case.bento)
        starts = []
        if case.starts:
            image = f"{self.registry.address}/{_REPOSITORY}:{case.bento}"
            example = self.bentos.example(case.bento)
            starts = seconds_to_first_answer(image, example, self.scratch)
        return Figures.of(
            [build + push for build, push in usages],
            usages[-1][0] + usages[-1][1],
            counts[0],
            image_bytes=pulled,
            unpacked_bytes=unpacked,
            node_bytes=self.registry.bytes_above_base(_REPOSITORY, case.bento),
            starts=starts,
            details={
                "build_seconds": [round(build.seconds, 3) for build, _ in usages],
                "push_seconds": [round(push.seconds, 3) for _, push in usages],
            },
        )

    def _prepare(self, case: Case) -> None:
        """Give the case what it begins with: in the registry, and in buildah's storage."""
        state = _state(case.before, layers=case.peer_keeps_layers) if case.before else "base"
        if not case.peer_keeps_layers:
            if case.before and not self.registry.has(state):
                self._start_over()
                self._build_before(case, state)
            self._start_over()
        else:
            stale = case.bento != case.before and case.bento in self._layers_of
            if stale or not self._layers_of:
                self._start_over()
            if case.before not in self._layers_of:
                self._build_before(case, state)
            self._layers_of |= {case.before, case.bento}
        self.registry.bring_back(state)

    def _build_before(self, case: Case, state: str) -> None:
        self._build(case, case.before)
        self._push(case, case.before)
        self.registry.keep(state)

    def _start_over(self) -> None:
        """Leaves nothing but the base image in buildah's storage, and in the registry."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._layers_of.clear()
        for name in ("home", "memory", "tmp"):
            (self.scratch / name).mkdir(parents=True)
        (self.scratch / "storage.conf").write_text(
            "[storage]\n"
            'driver = "overlay"\n'
            f'graphroot = "{self.scratch}/graph"\n'
            f'runroot = "{self.scratch}/run"\n'
        )
        self.registry.bring_back("base")
        pull = ["buildah", "pull", "--quiet", "--tls-verify=false", f"docker://{self._base}"]
        self._run(pull, "base")
        self._run(["buildah", "tag", self._base, BASE_NAME], "base")

    @property
    def _base(self) -> str:
        return f"{self.registry.address}/{BASE}"

    def _build(self, case: Case, bento: str, *, watch_memory: bool = False) -> Usage:
        command = [sys.executable, "-m", "bentoml", "containerize", self._imported(bento)]
        command += ["--backend", "buildah", "--image-tag", _local_name(bento)]
        command += ["--opt", "network=host"]
        if case.packages:
            # BentoML joins several volumes into one, so there can be only this.
            command += ["--opt", f"volume={self.packages}:/root/.cache/uv"]
        if case.peer_keeps_layers:
            command += ["--opt", "layers"]
        return self._run(command, f"{case.name}-build", watch_memory=watch_memory)

    def _push(self, case: Case, bento: str, *, watch_memory: bool = False) -> Usage:
        target = f"docker://{self.registry.address}/{_REPOSITORY}:{bento}"
        command = ["buildah", "push", "--quiet", "--tls-verify=false", _local_name(bento), target]
        return self._run(command, f"{case.name}-push", watch_memory=watch_memory)

    def _run(self, command: list[str], log: str, *, watch_memory: bool = False) -> Usage:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("XDG_")
        }
        environment |= {
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(self.scratch / "home" / "bentoml"),
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(self.scratch / "storage.conf"),
            "HOME": str(self.scratch / "home"),
            "TMPDIR": str(self.scratch / "tmp"),
        }
        inside = [*_NAMESPACE, "sh", "-c", _ENTER, str(self.scratch / "memory"), *command]
        file = self.logs / f"peer-{log}.log"
        return run(inside, environment, file, watch_memory=watch_memory)

    def _imported(self, key: str) -> str:
        """Put a bento into BentoML's store, as `bentoml import` would; gives its tag."""
        bento = self.bentos.path(key)
        facts = yaml.safe_load((bento / "bento.yaml").read_text())
        store = self.scratch / "home" / "bentoml"
        place = store / "bentos" / facts["name"] / facts["version"]
        if not place.exists():
            ignore = shutil.ignore_patterns("models")
            shutil.copytree(bento, place, copy_function=os.link, ignore=ignore)
            shutil.copytree(
                bento / "models", store / "models", copy_function=_link_new, dirs_exist_ok=True
            )
        return f"{facts['name']}:{facts['version']}"


def _link_new(source: str, target: str) -> None:
    """Models of several bentos may be the same."""
    if not os.path.lexists(target):
        os.link(source, target)


def _local_name(bento: str) -> str:
    return f"localhost/{_REPOSITORY}:{bento}"


def _state(before: str, *, layers: bool) -> str:
    return f"peer-{before}-layers" if layers else f"peer-{before}"
