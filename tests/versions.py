"""Run the tests that need no service with the lowest and the newest versions; `make test-versions`.

The lowest are those that pyproject.toml allows and of which there are wheels for that Python; all
that is not named there is as new as it may be. Rows of a table in Markdown are printed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build/versions"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# The only ones in the locks of which an index has no wheels.
BUILT_HERE = ("kfp", "kfp-server-api")
RESOLUTIONS = {
    "lowest": ["--resolution=lowest-direct", "--only-binary=:all:"]
    + [f"--no-binary={name}" for name in BUILT_HERE],
    "newest": ["--resolution=highest"],
}
UV = [sys.executable, "-m", "uv"]
# What these ask is asked of libraries, not of servers, containers or locked environments.
LIGHT = ("deployments", "files", "reports", "requirements", "runs", "scan")


def interpreter(named: str) -> str:
    """Find a Python by its minor version or its path; "" where there is none on this machine."""
    if "/" in named:
        return named
    installed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    own = sorted(str(path) for path in installed.glob(f"{named}.*/bin/python"))
    for candidate in (*own, f"python{named}"):
        command = [*UV, "python", "find", "--no-python-downloads", candidate]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            return done.stdout.strip()
    return ""


def run(*command: object, log: Path) -> None:
    """Run a command to its end; its output is kept, and shown where it fails."""
    with log.open("a") as file:
        done = subprocess.run(
            [str(word) for word in command], cwd=ROOT, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{log.read_text()[-3000:]}")


def environment(python: str, resolution: str, name: str) -> Path:
    """Make an environment with the versions of a resolution; gives its interpreter."""
    folder, log = WORK / name, WORK / f"{name}.log"
    WORK.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    quiet = ["--quiet", f"--python={python}"]
    wanted = folder.with_suffix(folder.suffix + ".txt")
    options = ["--no-header", "--no-annotate", "--extra=dev", f"--output-file={wanted}"]
    run(
        *UV, "pip", "compile", *quiet, *RESOLUTIONS[resolution], *options, "pyproject.toml", log=log
    )
    run(*UV, "venv", *quiet, "--clear", folder, log=log)
    made = folder / "bin/python"
    install = [*UV, "pip", "install", "--quiet", f"--python={made}", "--compile-bytecode"]
    run(*install, "-r", wanted, log=log)
    run(*install, "--no-deps", "--editable", ".", log=log)
    return made


def tested(python: Path, folders: Sequence[str], name: str) -> tuple[str, bool]:
    """Run the tests; gives pytest's last line and whether all passed."""
    log = WORK / f"{name}.tests.log"
    places = [f"tests/{folder}" for folder in folders]
    with log.open("w") as file:
        done = subprocess.run(
            [str(python), "-m", "pytest", "-q", "-n", "2", *places],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = [line.strip("= ") for line in log.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else "nothing ran", done.returncode == 0


def rows(pythons: Sequence[str], resolutions: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Give a row of the table for each Python and resolution, and whether it is good."""
    for named in pythons:
        python = interpreter(named)
        for resolution in resolutions:
            if not python:
                yield f"| {named} | {resolution} | no such Python on this machine | |", True
                continue
            version = subprocess.run(
                [python, "-V"], capture_output=True, text=True, check=True
            ).stdout.split()[1]
            name = f"{version}-{resolution}"
            made = environment(python, resolution, name)
            began = time.monotonic()
            told, good = tested(made, LIGHT, name)
            told = re.sub(r" in [0-9.]+s.*", "", told)
            yield f"| {version} | {resolution} | {told} | {time.monotonic() - began:.0f} s |", good


def main() -> None:
    """Test what is asked for, and end with 1 where something did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", default=PYTHONS, help="3.12, or a path")
    parser.add_argument("--only", choices=RESOLUTIONS, help="one resolution")
    asked = parser.parse_args()
    all_good = True
    print("| Python | versions | light tests | took |\n| --- | --- | --- | --- |")
    for row, good in rows(asked.pythons, [asked.only] if asked.only else [*RESOLUTIONS]):
        print(row, flush=True)
        all_good &= good
    if not all_good:
        raise SystemExit(f"See {WORK.relative_to(ROOT)}/*.tests.log")


if __name__ == "__main__":
    main()
