"""A package that is killed at any moment, or whose source or registry breaks, leaves no wrong tag.

What is in the registry is read without our client.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from registry_content import left_in, tagged
from servers import free_port
from small_models import small_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = 50
SCRIPT = """
import json, sys
from kfp_bento.runtime.images import ImageOptions
from kfp_bento.runtime.packaging import PackageOptions, packaged
origin, destination, verify = sys.argv[1:]
wished = PackageOptions(verify=verify == "on", image=ImageOptions(base="host"))
with packaged([origin], destination, wished) as made:
    print(json.dumps({"digest": made.image.digest}))
"""


class Packager:
    """Packages one model, in a process that can be killed with all that it started."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.origin = small_model(folder / "killed").directory
        (self.origin / "weights.bin").write_bytes(os.urandom(24 << 20))
        self.repository = f"{registry}/killed/package"

    def start(self, verify: str = "off", destination: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", SCRIPT, str(self.origin)),
                *(destination or f"{self.repository}:v1", verify),
            ],
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, verify: str = "off") -> tuple[str, float]:
        """Package to the end; give the digest and the seconds."""
        began = time.monotonic()
        out, err = self.start(verify).communicate(timeout=600)
        assert out, err
        return str(json.loads(out.splitlines()[-1])["digest"]), time.monotonic() - began

    def leftovers(self) -> list[str]:
        return left_in(self.scratch)


@pytest.fixture
def packager(tmp_path: Path, oci_registry: str) -> Packager:
    return Packager(tmp_path, oci_registry)


def test_killed_at_random_moments_it_leaves_the_whole_image_or_none(packager: Packager) -> None:
    chance = random.Random(16)
    wanted, _ = packager.finish()  # its layers are on this machine from now on
    packager.repository += "-warm"
    again, seconds = packager.finish()
    assert again == wanted
    outcomes = set()
    for number in range(KILLS):
        # Another repository each time, so that each begins with nothing.
        packager.repository = f"{packager.repository.rpartition('/')[0]}/package-{number}"
        process = packager.start("on" if number % 10 == 9 else "off")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, 1.1) * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found = tagged(packager.repository)
        assert found in ("", wanted), number
        outcomes.add(found)
    assert outcomes == {"", wanted}
    assert packager.finish("on")[0] == wanted == tagged(packager.repository)
    assert packager.leftovers() == []


def test_a_registry_that_goes_away_in_between_gets_no_tag(packager: Packager) -> None:
    packager.repository = f"127.0.0.1:{free_port()}/killed/nobody"
    out, err = packager.start().communicate(timeout=600)
    assert not out
    assert "RegistryError" in err
    assert packager.leftovers() == []


def test_a_model_that_changes_while_it_is_packaged_gets_no_tag(packager: Packager) -> None:
    """The bento's files are links to what was pulled: whoever writes there is seen."""
    packager.repository = f"{packager.repository}-changed"
    process = packager.start("on")
    deadline = time.monotonic() + 300
    weights: list[Path] = []
    while not weights and process.poll() is None and time.monotonic() < deadline:
        weights = list(packager.scratch.glob("kfp-bento-package-*/bento/models/*/*/weights.bin"))
    assert weights, process.communicate()
    with weights[0].open("r+b") as file:
        file.write(b"other")
    out, err = process.communicate(timeout=600)
    assert tagged(packager.repository) == "", err
    assert not out
    assert packager.leftovers() == []


def test_a_disk_that_is_full_is_told_of(packager: Packager, oci_registry: str) -> None:
    """A file system of 16 MiB, in a namespace of mounts that ends with the process."""
    small = packager.folder / "small"
    small.mkdir()
    command = ["unshare", "--mount", "sh", "-ec"]
    mounting = f'mount -t tmpfs -o size=16m none {small}; TMPDIR={small} exec "$@"'
    destination = f"{oci_registry}/killed/full:v1"
    done = subprocess.run(
        [
            *(*command, mounting, "sh", sys.executable, "-c", SCRIPT),
            *(str(packager.origin), destination, "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no namespace of mounts can be had here: {done.stderr.strip()[-200:]}")
    assert done.returncode
    assert "is full" in done.stderr
    assert tagged(destination.removesuffix(":v1")) == ""
