"""What is written to build/bench/images.json, and the table for people."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

METHOD = (
    "Every build is a whole process that ends with the image in a registry on the loopback "
    "interface; the peer's time is that of the build and of the push.",
    "Both sides build the same bento directory on the same base image, which the registry has "
    "already and the peer has in its storage as well.",
    "Both read wheels from the same uv cache, which the peer's build gets as a volume, unless the "
    "case says that it is empty. uv still asks the package index what there is.",
    "Our side starts like a new pod: an empty home, an empty scratch directory, no cache of its "
    "own, unless the case says that local caches are kept.",
    "The peer runs as root with chroot isolation, and with layer caching where a build came before "
    "(not in 'new bento' and 'nothing changed', which are about a place where nothing is kept).",
    "Bytes and requests are counted by a proxy, bytes without HTTP heads. For our side this is one "
    "more run beside the timed ones; the peer's last timed run is the counted one, and the proxy "
    "stands in the way of its push only.",
    "Memory is the largest sum of RssAnon and RssShmem over all processes of the build, looked at "
    "every 10 ms or less often, for 3 % of one core: the page cache does not count, and of shared "
    "pages every process has its own.",
    "bytes_read is rchar of /proc/PID/io: reads from the page cache count, mapped files do not.",
    "start_seconds is the median of three containers in podman, from `podman run` to the first "
    "answer to an input example; the image was pulled before. 0 where none was started.",
    "node_bytes are those of the layers that the base has not.",
    "Model files, wheels and the base are in the page cache as far as the machine has room.",
)

_UNITS = {
    **dict.fromkeys(("bytes_read", "bytes_sent", "image_bytes", "node_bytes"), "bytes"),
    **dict.fromkeys(("peak_rss", "unpacked_bytes"), "bytes"),
    **dict.fromkeys(("cpu_seconds", "seconds", "start_seconds"), "seconds"),
}
_COLUMNS = (
    *("seconds", "cpu_seconds", "bytes_sent", "requests", "peak_rss", "unpacked_bytes"),
    *("node_bytes", "start_seconds"),
)
_NAMES = {
    "bytes_read": "bytes read",
    "bytes_sent": "bytes sent",
    "peak_rss": "memory",
    "requests": "requests",
    "seconds": "time",
    "start_seconds": "start to first answer",
    "unpacked_bytes": "size of the image",
}


def document(
    cases: Sequence[Mapping[str, Any]], *, runs: Mapping[str, int], model_bytes: int, peer: str
) -> dict[str, Any]:
    """Give the whole report as plain data.

    Args:
        cases: What was measured, each as `figures.as_document` gives it.
        runs: How often each side was timed.
        model_bytes: Size of the large model.
        peer: Why the peer was not measured; "" if it was.
    """
    return {
        "machine": machine(),
        "tools": tools(),
        "runs": dict(runs),
        "model_bytes": model_bytes,
        "peer_missing": peer,
        "method": list(METHOD),
        "cases": list(cases),
    }


def machine() -> dict[str, Any]:
    """Give what this ran on."""
    model = _first_field("/proc/cpuinfo", "model name")
    memory = _first_field("/proc/meminfo", "MemTotal").split()
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory[0]) << 10 if memory else 0,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
    }


def tools() -> dict[str, str]:
    """Versions of everything that takes part; tools that are missing are left out."""
    found = {name: version(name) for name in ("kfp-bento", "bentoml", "uv")}
    found["python"] = platform.python_version()
    for tool in ("buildah", "docker-registry", "mmdebstrap", "skopeo"):
        if shutil.which(tool):
            done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
            found[tool] = (done.stdout or done.stderr).strip().partition("\n")[0]
    return found


def show(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the ratios, the figures behind them, and what is not reached."""
    out = console or Console(width=None if sys.stdout.isatty() else 190, highlight=False)
    runs = report["runs"]
    out.print(
        f"\nImages: kfp-bento (median of {runs['ours']}) / bentoml containerize with buildah "
        f"({_times(runs['peer'])})"
    )
    if report["peer_missing"]:
        out.print(f"The peer was not measured: {report['peer_missing']}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (
        "case",
        "ratio",
        "seconds",
        "CPU",
        "sent",
        "requests",
        "memory",
        "image",
        "to a node",
        "start",
        "reached",
    ):
        side: Literal["left", "right"] = "left" if heading in {"case", "reached"} else "right"
        table.add_column(heading, justify=side, no_wrap=True)
    for case in report["cases"]:
        table.add_row(
            case["title"],
            _ratio(case["ratio"]),
            *(_pair(case, figure) for figure in _COLUMNS),
            _reached(case["reach"]),
        )
    out.print(table)
    for case in report["cases"]:
        for verdict in case["reach"]:
            if verdict["met"] is False:
                figure = verdict["figure"]
                out.print(
                    f"missed: {case['title']}: {_NAMES[figure]} "
                    f"{_amount(figure, verdict['measured'])}, "
                    f"wanted at most {_amount(figure, verdict['wanted'])}"
                )


def _times(count: int) -> str:
    return {0: "not run", 1: "one run"}.get(count, f"median of {count}")


def _pair(case: Mapping[str, Any], figure: str) -> str:
    ours = _amount(figure, case["ours"][figure])
    return f"{ours} / {_amount(figure, case['peer'][figure])}" if case["peer"] else ours


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _reached(verdicts: Sequence[Mapping[str, Any]]) -> str:
    known = [verdict["met"] for verdict in verdicts if verdict["met"] is not None]
    return "yes" if all(known) else f"{sum(known)} of {len(known)}"


def _amount(figure: str, value: float) -> str:
    """Give a figure as people read it: `0.66 s`, `12 kB`, `1.07 GB`."""
    unit = _UNITS.get(figure, "")
    if unit == "seconds":
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    if unit != "bytes" or value < 1000:
        return f"{value:.0f} B" if unit else f"{value:.0f}"
    power = min(3, int(math.log10(value * 1.0005) / 3))  # 999.6 kB are 1 MB
    return f"{value / 1000**power:.3g} {'kMG'[power - 1]}B"


def _first_field(file: str, name: str) -> str:
    try:
        with open(file) as lines:  # noqa: PTH123
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return ""
