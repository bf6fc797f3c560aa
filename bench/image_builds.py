"""Build images with kfp-bento and with BentoML and buildah, and put the figures side by side.

`python -m bench.image_builds` writes build/bench/images.json and prints a table. Nothing outlives
it but build/bench, where the base image, the wheels and the random models wait for the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from bench import peer as peer_side
from bench.base import PYTHON, base_layout
from bench.bentos import Bentos
from bench.cases import CASES, Case
from bench.figures import as_document, judge
from bench.ours import Ours
from bench.packages import fill_packages
from bench.process import CommandFailed
from bench.registry import BASE, Registry, registry_binary
from bench.report import document, show

WORK = Path(__file__).parents[1] / "build" / "bench"
_NEEDED = {"mmdebstrap": "makes the base image", "skopeo": "puts it into the registry"}
_FREE_BYTES = 16 << 30


def main() -> None:
    """Measure the chosen cases."""
    options = parse(sys.argv[1:])
    check_tools()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is put away
    missing = "not wanted (--no-peer)" if options.no_peer else peer_side.why_not()
    cases = [case for case in CASES if case.name in options.cases]
    measured: list[dict[str, object]] = []
    failure = ""
    try:
        for case in measure(cases, options, with_peer=not missing):
            measured.append(case)
            write(measured, options, missing)
    except CommandFailed as error:
        failure = f"{error}\nThe logs are in {WORK / 'logs'}."
    show(write(measured, options, missing))
    sys.exit(failure or 0)


def write(
    cases: list[dict[str, object]], options: argparse.Namespace, missing: str
) -> dict[str, object]:
    """Write down what there is so far; gives it, too."""
    report = document(
        cases,
        runs={"ours": options.runs, "peer": 0 if missing else options.peer_runs},
        model_bytes=options.model_mib << 20,
        peer=missing,
    )
    (WORK / "images.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def parse(arguments: list[str]) -> argparse.Namespace:
    """Give the options; `cases` is a list of names."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run, small model, no peer")
    parser.add_argument("--cases", metavar="A,B", help=f"some of {', '.join(names)}")
    parser.add_argument("--runs", type=int, metavar="N", help="timed runs of our side (3)")
    parser.add_argument("--peer-runs", type=int, default=1, metavar="N", help="the peer's (1)")
    parser.add_argument("--no-peer", action="store_true", help="measure our side only")
    parser.add_argument("--model-mib", type=int, default=1024, metavar="N", help="(1024)")
    options = parser.parse_args(arguments)
    if options.cases:
        options.cases = options.cases.split(",")
        if unknown := set(options.cases) - set(names):
            parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {names}")
    else:
        quick = [case.name for case in CASES if not case.large and case.packages]
        options.cases = quick if options.quick else names
    options.no_peer |= options.quick
    options.runs = options.runs or (1 if options.quick else 3)
    if min(options.runs, options.peer_runs, options.model_mib) < 1:
        parser.error("all numbers start at 1")
    return options


def check_tools() -> None:
    """Say what is missing before anything is made."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own != PYTHON:
        raise SystemExit(f"This is Python {own}; the base image has {PYTHON}. Use that one.")
    reasons = [f"{tool} ({what})" for tool, what in _NEEDED.items() if not shutil.which(tool)]
    if registry_binary() is None:
        reasons.append("docker-registry (takes the images)")
    if reasons:
        raise SystemExit(f"Not installed: {', '.join(reasons)}. bench/install-tools can help.")
    WORK.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(WORK).free < _FREE_BYTES:
        raise SystemExit(f"{WORK} needs {_FREE_BYTES >> 30} GiB of free space.")


def measure(
    cases: list[Case], options: argparse.Namespace, *, with_peer: bool
) -> Iterator[dict[str, object]]:
    """Run the cases one after the other, each first on our side and then on the peer's."""
    out = Console(stderr=True, highlight=False)
    with scratch_directory() as scratch, Registry(scratch / "registry") as registry:
        out.print("base image")
        put_base(base_layout(WORK / "base"), registry)
        bentos = Bentos(scratch / "bentos", WORK / "weights", options.model_mib)
        for key in sorted({key for case in cases for key in (case.before, case.bento) if key}):
            out.print(f"bento {key}")
            bentos.path(key)
        packages = WORK / "packages"
        fill_packages(packages, [bentos.requirements(key) for key in needed_lists(cases)])
        ours = Ours(scratch / "ours", WORK / "logs", registry, bentos, packages, options.runs)
        peer = peer_side.Peer(
            scratch / "peer", WORK / "logs", registry, bentos, packages, options.peer_runs
        )
        for case in cases:  # side by side in time as well, since a machine has its moods
            out.print(f"{case.title}: ours")
            load, mine, other = round(os.getloadavg()[0], 2), ours.measure(case), None
            if with_peer:
                out.print(f"{case.title}: the peer")
                other = peer.measure(case)
            verdicts = [judge(limit, mine, other, bentos.model_bytes) for limit in case.limits]
            facts = {"name": case.name, "title": case.title, "load": load}
            yield as_document(facts, mine, other, verdicts)


def needed_lists(cases: list[Case]) -> list[str]:
    """Give the bentos whose wheels are all the wheels."""
    return ["small", *sorted({case.bento for case in cases if case.bento.endswith("-wheel")})]


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Give a directory for one run, which goes away; logs of the run stay beside it."""
    scratch = WORK / "scratch"
    for directory in (scratch, WORK / "logs"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_base(layout: Path, registry: Registry) -> None:
    """Put the base image into the registry, and keeps that state."""
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
    command += [f"oci:{layout}:{PYTHON}", f"docker://{registry.address}/{BASE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The base image cannot be pushed:\n{done.stderr.strip()}")
    registry.keep("base")


if __name__ == "__main__":
    main()
