"""A builder that is killed at any moment leaves an image that is whole, or none, and no rubbish.

It is killed in three ways: before each of its changes to the disk in turn, at each of its requests
to the registry in turn, and at random moments. What is in the registry is read without our client.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_proxy import FaultProxy, after, before
from handmade import write, write_base, write_bento
from servers import stop_group

from kfp_bento.runtime.files import directories, put_in_place, scratch_beside
from kfp_bento.runtime.files.directories import scratch_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = "models/factor/0123456789abcdef/weights.bin"
KFP_BENTO = (sys.executable, "-m", "kfp_bento.runtime.cli")
# Runs builds in children that have everything imported already, and kills each of them with all
# that it started, just before the change to the disk whose number it was told.
FORKING = """
import json, os, signal, sys
import kfp_bento.runtime.bentos, kfp_bento.runtime.images.build, zstandard
from kfp_bento.runtime.cli import main

CHANGES = {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate",
           "os.chmod", "subprocess.Popen"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def build(arguments, moment, tell):
    changes = 0
    def watch(event, details):
        nonlocal changes
        if event == "open":
            path, _, flags = details
            if not isinstance(path, str) or not (flags or 0) & WRITING or "__pycache__" in path:
                return
        elif event not in CHANGES or "__pycache__" in str(details[0]):
            return
        changes += 1
        if changes == moment:
            os.killpg(0, signal.SIGKILL)
    os.setsid()
    sys.argv = ["kfp-bento", "image", "build", *arguments]
    sys.addaudithook(watch)
    try:
        main()
    except SystemExit as end:
        tell(json.dumps({"status": end.code or 0, "changes": changes}))

for line in sys.stdin:
    job = json.loads(line)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        silent = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            build(job["arguments"], job["moment"], lambda text: os.write(theirs, text.encode()))
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    with os.fdopen(ours) as pipe:
        print(pipe.read() or json.dumps({"status": "killed"}), flush=True)
"""


@dataclass
class Builder:
    """Builds one bento into one place, again and again, with a cache and a scratch place."""

    folder: Path
    seed: int = 0
    destination: str = ""
    _clean: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bento = write_bento(self.folder / "bento").directory
        self.base = write_base(self.folder / "base")
        self.cache = self.folder / "cache"
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir()
        self.log = self.folder / "log"
        self.change(0)

    def change(self, number: int, size: int = 200_000) -> None:
        """Another version of the bento: its model and its source differ."""
        write(self.bento / WEIGHTS, random.Random(self.seed * 1000 + number).randbytes(size))
        write(self.bento / "src/number.txt", str(number))

    def forget(self) -> None:
        """The cache may be deleted at any time."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def arguments(self, destination: str = "") -> list[str]:
        return [str(self.bento), "--to", destination or self.destination, "--base", self.base]

    @property
    def environment(self) -> dict[str, str]:
        login = {"DOCKER_CONFIG": str(self.folder), "HOME": str(self.folder)}
        places = {"KFP_BENTO_CACHE": str(self.cache), "TMPDIR": str(self.scratch)}
        # uv keeps what it unpacked: not in the home that we gave it.
        uv = {"UV_CACHE_DIR": str(self.folder / "uv")}
        return {**os.environ, **login, **places, **uv}

    def start(self) -> subprocess.Popen[bytes]:
        """Starts a build in a process group of its own."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*KFP_BENTO, "image", "build", *self.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def build(self) -> float:
        """One build that nobody kills; how long it took (seconds)."""
        began = time.monotonic()
        assert self.start().wait(300) == 0, self.log.read_text(errors="replace")
        return time.monotonic() - began

    def clean_digest(self) -> str:
        """The digest of the same bento, built elsewhere and without a cache."""
        target = self.folder / "clean"
        shutil.rmtree(target, ignore_errors=True)
        environment = {k: v for k, v in self.environment.items() if k != "KFP_BENTO_CACHE"}
        command = [*KFP_BENTO, "image", "build", *self.arguments(f"oci:{target}"), "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        digest: str = json.loads(done.stdout)["digest"]
        return digest

    def leftovers(self) -> list[str]:
        """What killed builds left in the cache and beside their destination."""
        # A layer's record is a few hundred bytes: what is left of one is not looked for.
        places = (self.cache, self.cache / "blobs/sha256", self.folder / "out")
        left = [path for place in places if place.exists() for path in place.iterdir()]
        marks = (".partial-", ".environment-")
        left = [path for path in left if any(mark in path.name for mark in marks)]
        return [path.relative_to(self.folder).as_posix() for path in left]


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(300)


# --- What there is to pull ------------------------------------------------------------------------


def in_layout(directory: Path) -> str | None:
    """The digest of the image in a layout, every blob of which was read; None if there is none."""
    if not directory.exists():
        return None

    def read(item: dict[str, Any]) -> bytes:
        content = (directory / "blobs/sha256" / item["digest"].removeprefix("sha256:")).read_bytes()
        assert len(content) == item["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == item["digest"]
        return content

    index = json.loads((directory / "index.json").read_bytes())
    manifest = json.loads(read(index["manifests"][0]))
    for blob in (manifest["config"], *manifest["layers"]):
        read(blob)
    digest: str = index["manifests"][0]["digest"]
    return digest


def in_registry(host: str, name: str, tag: str = "v1") -> str | None:
    """The digest that a tag points to; all its blobs are there and have their size."""
    connection = http.client.HTTPConnection(host, timeout=30)
    with contextlib.closing(connection):
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        connection.request("GET", f"/v2/{name}/manifests/{tag}", headers=accept)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 404:
            return None
        assert answer.status == 200
        manifest = json.loads(content)
        for blob in (manifest["config"], *manifest["layers"]):
            connection.request("HEAD", f"/v2/{name}/blobs/{blob['digest']}")
            found = connection.getresponse()
            found.read()
            assert (found.status, int(found.headers["Content-Length"])) == (200, blob["size"])
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pull(host: str, name: str, folder: Path) -> None:
    """Pulls the whole image with skopeo, which checks every digest."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    copy = [skopeo, "copy", "--src-tls-verify=false", f"docker://{host}/{name}:v1", f"dir:{folder}"]
    subprocess.run(copy, check=True, capture_output=True)


# --- Before each change to the disk ---------------------------------------------------------------


@dataclass
class Forking:
    """A process that builds in children and kills them when told."""

    process: subprocess.Popen[str]
    log: Path

    def build(self, builder: Builder, moment: int = 0) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"arguments": builder.arguments(), "moment": moment, "log": str(self.log)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        result: dict[str, Any] = json.loads(self.process.stdout.readline())
        if not moment:
            assert result["status"] == 0, self.log.read_text(errors="replace")
        return result


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


@pytest.fixture
def forking(builder: Builder) -> Iterator[Forking]:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=builder.environment,
        start_new_session=True,
    )
    try:
        yield Forking(process, builder.folder / "forking.log")
    finally:
        stop_group(process)


def kill_before_each_change(
    builder: Builder, forking: Forking, *, every: int, cold: bool, replacing: bool
) -> int:
    """Kills builds into a layout; says how many."""
    out = builder.folder / "out/image"
    builder.destination = f"oci:{out}"
    builder.change(1)
    forking.build(builder)
    previous = in_layout(out)
    shutil.copytree(out, builder.folder / "before")
    builder.change(2)
    wanted = builder.clean_digest()

    def reset() -> None:
        shutil.rmtree(out)
        if replacing:
            shutil.copytree(builder.folder / "before", out)
        if cold:
            builder.forget()

    reset()
    changes = forking.build(builder)["changes"]
    assert changes > 30
    moments = range(1 + every // 2, changes + 1, every)
    for moment in moments:
        reset()
        forking.build(builder, moment)
        found = in_layout(out)
        assert found in ({previous, wanted} if replacing else {None, wanted}), moment
        forking.build(builder)
        assert in_layout(out) == wanted, moment
        assert builder.leftovers() == [], moment
    return len(moments)


@pytest.mark.parametrize("replacing", [False, True], ids=["new", "replacing"])
def test_a_builder_killed_before_some_change_to_the_disk_leaves_the_old_or_the_new_image(
    builder: Builder, forking: Forking, replacing: bool
) -> None:
    count = kill_before_each_change(builder, forking, every=24, cold=False, replacing=replacing)
    assert count >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("replacing", [False, True], ids=["new", "replacing"])
def test_a_builder_killed_before_any_change_to_the_disk_leaves_the_old_or_the_new_image(
    builder: Builder, forking: Forking, replacing: bool, cold: bool
) -> None:
    kill_before_each_change(builder, forking, every=1, cold=cold, replacing=replacing)


# --- At each request ------------------------------------------------------------------------------


def kill_at_request(builder: Builder, registry: str, name: str, number: int, when: Any) -> bool:
    """Kills one build before or after its request of that number; says whether it came so far."""
    with FaultProxy(registry) as proxy:
        builder.destination = f"{proxy.host}/{name}:v1"
        running: list[subprocess.Popen[bytes]] = []
        rule = proxy.on(".*", when(lambda: kill(running[0])), skip=number)
        running.append(builder.start())
        running[0].wait(300)
        assert proxy.failures == []
    return rule.hits > 0


def kill_at_requests(builder: Builder, registry: str, name: str, every: int) -> int:
    """Kills builds at their requests; says how many."""
    killed = 0
    previous: set[str | None] = {None}
    for step in range(1000):
        number, when = step * every // 2, (before, after)[step % 2]
        builder.change(step)
        reached = kill_at_request(builder, registry, name, number, when)
        found = in_registry(registry, name)
        wanted = builder.clean_digest()
        assert found in previous | {wanted}, number
        builder.destination = f"{registry}/{name}:v1"
        builder.build()
        assert in_registry(registry, name) == wanted, number
        previous = {wanted}
        if not reached:
            break
        killed += 1
    pull(registry, name, builder.folder / "pulled")
    return killed


def test_a_builder_killed_at_some_request_leaves_the_old_or_the_new_image(
    builder: Builder, oci_registry: str
) -> None:
    assert kill_at_requests(builder, oci_registry, "killed/some", every=36) >= 1
    assert builder.leftovers() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_builder_killed_at_any_request_leaves_the_old_or_the_new_image(
    builder: Builder, oci_registry: str
) -> None:
    assert kill_at_requests(builder, oci_registry, "killed/any", every=1) >= 10
    assert builder.leftovers() == []


def test_killed_pushes_do_not_pile_up_in_the_temporary_directory(
    builder: Builder, oci_registry: str
) -> None:
    with FaultProxy(oci_registry) as proxy:
        builder.destination = f"{proxy.host}/killed/scratch:v1"
        running: list[subprocess.Popen[bytes]] = []
        proxy.on("PATCH upload", before(lambda: kill(running[0])))
        running.append(builder.start())
        running[0].wait(300)
        builder.build()
    assert list(builder.scratch.iterdir()) == []


def test_a_directory_that_was_moved_away_when_its_builder_was_killed_is_put_back(
    tmp_path: Path,
) -> None:
    # As left behind between two renames, where directories cannot be swapped in one step.
    write(tmp_path / f"out.partial-{2**22 + 1}-old/index.json", "old")
    with scratch_beside(tmp_path / "out"):
        assert (tmp_path / "out/index.json").read_text() == "old"
        assert {path.name for path in tmp_path.iterdir()} == {"out", f"out.partial-{os.getpid()}"}


def test_what_a_living_builder_moved_away_is_left_to_it(tmp_path: Path) -> None:
    maker = tmp_path / f"out.partial-{2**22 + 1}"
    with scratch_inside(tmp_path, "x") as living:
        living.rename(maker)
        write(tmp_path / f"{maker.name}-old/index.json", "old")
        with scratch_beside(tmp_path / "out"):
            assert not (tmp_path / "out").exists()
            assert (tmp_path / f"{maker.name}-old/index.json").exists()


@pytest.mark.parametrize("swaps", [True, False])
def test_a_directory_is_replaced_whether_or_not_the_disk_can_swap_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    write(tmp_path / "out/a", "old")
    with scratch_beside(tmp_path / "out") as made:
        write(made / "a", "new")
        put_in_place(made, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/a").read_text() == "new"


# --- At random moments ----------------------------------------------------------------------------


def kill_at_random(
    builder: Builder, registry: str, name: str, *, times: int, rest: int, chance: random.Random
) -> int:
    """Kills builds into a layout and into a registry in turn; says how many it caught working.

    Args:
        builder: Whose builds.
        registry: Where every other build goes.
        name: The repository there.
        times: How many are killed.
        rest: After so many comes one that nobody kills.
        chance: Says when.
    """
    out = builder.folder / "out/image"
    places = (f"oci:{out}", f"{registry}/{name}:v1")
    for builder.destination in places:
        builder.build()
    builder.change(1, 2 << 20)
    duration = builder.build()
    caught = 0
    for number in range(times):
        builder.change(2 + number, 2 << 20)
        builder.destination = places[number % 2]
        if number % 10 == 9:
            builder.forget()
        process = builder.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, duration))
        caught += process.poll() is None
        kill(process)
        in_layout(out)
        in_registry(registry, name)
        if number % 20 == 19:
            pull(registry, name, builder.folder / "pulled")
        if number % rest == rest - 1:
            wanted = builder.clean_digest()
            for builder.destination in places:
                builder.build()
            assert in_layout(out) == in_registry(registry, name) == wanted, number
            assert builder.leftovers() == []
    return caught


@pytest.mark.slow
def test_a_builder_killed_at_random_moments_leaves_the_old_or_the_new_image(
    builder: Builder, oci_registry: str
) -> None:
    chance = random.Random(7)
    caught = kill_at_random(builder, oci_registry, "killed/random", times=4, rest=4, chance=chance)
    assert caught > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_builder_killed_two_hundred_times_leaves_the_old_or_the_new_image(
    builder: Builder, oci_registry: str
) -> None:
    chance = random.Random(8)
    name = "killed/often"
    caught = kill_at_random(builder, oci_registry, name, times=200, rest=4, chance=chance)
    assert caught > 100
