"""uv's cache, filled before anything is timed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

# Ours takes wheels for older systems than the base image; uv on the base takes the newest fitting.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_36")


def fill_packages(cache: Path, requirements: Iterable[Path]) -> None:
    """Put all wheels of some locked lists into a cache, those for our side and for the peer."""
    from uv import find_uv_bin

    target = cache.with_name(f"{cache.name}-target")
    for file in requirements:
        for platform in _PLATFORMS:
            command = [find_uv_bin(), "pip", "install", "--quiet", "--no-config", "--no-deps"]
            command += ["--target", str(target), "--python-version", "3.11"]
            command += ["--python-platform", f"{os.uname().machine}-{platform}"]
            command += ["--only-binary", ":all:", "-r", str(file)]
            environment = {**os.environ, "UV_CACHE_DIR": str(cache)}
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            shutil.rmtree(target, ignore_errors=True)
            if done.returncode:
                raise SystemExit(f"The wheels cannot be had:\n{done.stderr.strip()[-1500:]}")
