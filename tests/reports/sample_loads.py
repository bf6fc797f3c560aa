"""Reports of load tests as values."""

from __future__ import annotations

from typing import Any

from kfp_bento.runtime.checks import CheckReport


def step(second: int, requests: int, failures: int = 0, **more: float) -> dict[str, Any]:
    latency = {"p50_ms": 10.0 + second, "p95_ms": 40.0 + second} if requests else {}
    facts = {"second": second, "seconds": 1.0, "users": 4, "requests": requests}
    return {**facts, "failures": failures, "requests_per_second": requests, **latency, **more}


def held(limit: str, bound: float, served: float | None, reason: str = "") -> dict[str, Any]:
    facts = {"limit": limit, "bound": "at most", "served": served, "expected": bound}
    return {**facts, "request": limit, "path": "", **({"reason": reason} if reason else {})}


FAILURE = {
    **{"request": "POST /predict (row 1)", "path": "[0]", "reason": "other value", "count": 1234},
    **{"served": 7, "expected": 0},
}
LOAD = {
    "asked": {
        **{"users": 4, "ramp_seconds": 1.0, "duration_seconds": 4.0, "requests": 3},
        **{"max_requests_per_second": 0.0, "max_requests": 10, "payloads": "golden"},
        **{"rows_per_request": 1, "timeout_seconds": 30.0, "ended_by": "time"},
        "asker_was_busy": False,
    },
    "over_time": [step(0, 10), step(1, 20, 5), step(2, 0), step(3, 30), step(4, 25)],
    "histogram": [
        {"from_ms": 8.0, "to_ms": 10.0, "requests": 5},
        {"from_ms": 10.0, "to_ms": 12.5, "requests": 70},
        {"from_ms": 12.5, "to_ms": 16.0, "requests": 10},
    ],
}
MEASURES = {
    **{"requests": 85.0, "failures": 5.0, "failure_ratio": 0.058824, "seconds": 5.0},
    **{"p50_ms": 11.0, "p95_ms": 14.2, "p99_ms": 15.9, "max_ms": 15.9, "mean_ms": 11.4},
    "requests_per_second": 1234.5,
}


def make_load(**changes: Any) -> CheckReport:
    broken = held("failure_ratio", 0.0, 0.058824, "0.058824, at most 0 is allowed")
    limits = [held("p95_ms", 50.0, 14.2), broken]
    facts: dict[str, Any] = {
        **{"name": "load_test", "passed": False, "summary": "4 users made 85 requests."},
        **{"measures": MEASURES, "url": "http://wine.models:3000", "model_digests": ()},
        "evidence": (broken, FAILURE, {"limits": limits}, LOAD),
    }
    return CheckReport(**{**facts, **changes})
