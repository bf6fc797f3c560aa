"""The figures of one side in one case, and how they compare."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.cases import Limit
from bench.counting_proxy import Count
from bench.process import Usage
from bench.starting import median


@dataclass(frozen=True)
class Figures:
    """What one side needed in one case.

    Attributes:
        seconds: Median time of the timed runs.
        seconds_min: The fastest.
        seconds_max: The slowest.
        seconds_all: All, in order.
        cpu_seconds: Median of user and system time.
        bytes_sent: Bytes of request bodies that went to the registry.
        requests: Requests that went there.
        methods: The same by HTTP method.
        peak_rss: Most memory at one time, of all processes together, in bytes.
        bytes_read: Bytes read with read calls.
        image_bytes: What a pull of the image transfers, base included.
        unpacked_bytes: The same as tar files.
        node_bytes: What a pull transfers to a node that has the base.
        start_seconds: Median time from a container's start to its first answer; 0 if not measured.
        details: What only this side has to say.
    """

    seconds: float
    seconds_min: float
    seconds_max: float
    seconds_all: list[float]
    cpu_seconds: float
    bytes_sent: int
    requests: int
    methods: dict[str, int]
    peak_rss: int
    bytes_read: int
    image_bytes: int
    unpacked_bytes: int
    node_bytes: int = 0
    start_seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        timed: Sequence[Usage],
        watched: Usage,
        count: Count,
        *,
        image_bytes: int,
        unpacked_bytes: int,
        node_bytes: int,
        starts: Sequence[float],
        details: dict[str, Any],
    ) -> Figures:
        """Figures from timed runs, and from the run that was counted and watched."""
        seconds = [round(run.seconds, 3) for run in timed]
        return cls(
            seconds=round(statistics.median(seconds), 3),
            seconds_min=min(seconds),
            seconds_max=max(seconds),
            seconds_all=seconds,
            cpu_seconds=round(statistics.median(run.cpu_seconds for run in timed), 3),
            bytes_sent=count.bytes_sent,
            requests=count.requests,
            methods=dict(count.methods),
            peak_rss=watched.peak_rss,
            bytes_read=watched.bytes_read,
            image_bytes=image_bytes,
            unpacked_bytes=unpacked_bytes,
            node_bytes=node_bytes,
            start_seconds=median(starts),
            details={**details, "start_seconds": list(starts)},
        )


@dataclass(frozen=True)
class Verdict:
    """Whether a limit is kept.

    Attributes:
        figure: The figure.
        wanted: Its limit, in the figure's own unit; None if the peer was not measured.
        measured: What it is.
        met: Whether it is within the limit; None if that cannot be said.
    """

    figure: str
    wanted: float | None
    measured: float
    met: bool | None


def judge(limit: Limit, ours: Figures, peer: Figures | None, model_bytes: int) -> Verdict:
    """Hold our figure against its limit."""
    measured = float(getattr(ours, limit.figure))
    if limit.of == "peer":
        wanted = limit.at_most * getattr(peer, limit.figure) if peer else None
    elif limit.of == "model":
        wanted = limit.at_most * model_bytes
    else:
        wanted = limit.at_most
    unknown = not measured and limit.figure == "start_seconds"  # containers cannot run everywhere
    met = None if wanted is None or unknown else measured <= wanted
    return Verdict(limit.figure, wanted, measured, met)


def ratio(ours: Figures, peer: Figures | None, figure: str = "seconds") -> float | None:
    """Our figure as a share of the peer's; None if there is nothing to divide by."""
    if peer is None or not getattr(peer, figure):
        return None
    return round(float(getattr(ours, figure)) / float(getattr(peer, figure)), 4)


def as_document(
    title: Mapping[str, Any], ours: Figures, peer: Figures | None, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """One case of the report, as plain data."""
    return {
        **title,
        "ours": asdict(ours),
        "peer": asdict(peer) if peer else None,
        "ratio": ratio(ours, peer),
        "reach": [asdict(verdict) for verdict in verdicts],
    }
