"""The benchmark's figures: what is measured, how it compares, and what is written down."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.cases import CASES, Limit
from bench.counting_proxy import Count
from bench.figures import Figures, as_document, judge, ratio
from bench.image_builds import parse
from bench.process import CommandFailed, Usage, run
from bench.report import document, show


def figures(*seconds: float, sent: int = 1000, memory: int = 10_000_000) -> Figures:
    usages = [Usage(each, each * 2, 0, 0, "") for each in seconds]
    watched = Usage(99, 99, 5_000, memory, "")
    count = Count({"GET": 2, "PUT": 1}, sent)
    return Figures.of(
        usages,
        watched,
        count,
        image_bytes=7,
        unpacked_bytes=70,
        node_bytes=3,
        starts=[3.0, 1.0, 2.0],
        details={},
    )


def test_times_come_from_the_timed_runs_and_counts_from_the_watched_one() -> None:
    found = figures(3, 1, 2)
    assert (found.seconds_min, found.seconds, found.seconds_max) == (1, 2, 3)
    assert found.cpu_seconds == 4
    assert (found.bytes_sent, found.requests, found.bytes_read) == (1000, 3, 5000)


def test_a_start_that_was_not_measured_is_neither_met_nor_missed() -> None:
    found = figures(1)
    assert (found.start_seconds, found.details["start_seconds"]) == (2, [3, 1, 2])
    limit = Limit("start_seconds", 0.8, "peer")
    assert judge(limit, found, found, 0).met is False
    assert judge(limit, replace(found, start_seconds=0), found, 0).met is None


def test_a_ratio_is_our_share_of_the_peers_figure() -> None:
    assert ratio(figures(1), figures(8)) == 0.125
    assert ratio(figures(1), None) is None
    assert ratio(figures(1), figures(8, sent=0), "bytes_sent") is None


@pytest.mark.parametrize(
    ("limit", "wanted", "met"),
    [
        (Limit("seconds", 2), 2, True),
        (Limit("seconds", 1.9), 1.9, False),
        (Limit("seconds", 1 / 5, "peer"), 4, True),
        (Limit("bytes_sent", 1.02, "model"), 999.6, False),
    ],
)
def test_limits_are_numbers_or_shares(limit: Limit, wanted: float, met: bool) -> None:
    verdict = judge(limit, figures(2), figures(20), model_bytes=980)
    assert verdict.wanted == pytest.approx(wanted)
    assert verdict.met is met


def test_a_share_of_a_peer_that_did_not_run_is_neither_met_nor_missed() -> None:
    assert judge(Limit("seconds", 0.2, "peer"), figures(1), None, 0).met is None


def test_the_report_holds_both_sides_and_says_what_is_missed() -> None:
    verdicts = [
        judge(limit, figures(3), figures(12), 0)
        for limit in (Limit("seconds", 1), Limit("peak_rss", 150_000_000))
    ]
    case = as_document({"name": "a", "title": "a case"}, figures(3), figures(12), verdicts)
    report = document([case], runs={"ours": 3, "peer": 1}, model_bytes=1 << 30, peer="")
    read = json.loads(json.dumps(report))
    assert {"machine", "tools", "runs", "method", "cases"} <= set(read)
    [found] = read["cases"]
    names = {"seconds", "bytes_sent", "requests", "peak_rss", "image_bytes"}
    assert names <= set(found["ours"]) and names <= set(found["peer"])
    assert found["ratio"] == 0.25
    text = io.StringIO()
    show(report, Console(file=text, width=150))
    assert "0.250" in text.getvalue()
    assert "missed: a case: time 3.00 s, wanted at most 1.00 s" in text.getvalue()
    assert "memory" not in text.getvalue().partition("missed")[2]


def test_a_report_without_the_peer_says_why() -> None:
    case = as_document({"name": "a", "title": "a case"}, figures(3), None, [])
    report = document([case], runs={"ours": 1, "peer": 0}, model_bytes=0, peer="it needs root")
    text = io.StringIO()
    show(report, Console(file=text, width=150))
    assert "it needs root" in text.getvalue()
    assert report["cases"][0]["peer"] is None


def test_every_limit_names_a_figure() -> None:
    for case in CASES:
        for limit in case.limits:
            assert hasattr(figures(1), limit.figure), case.name


def test_quick_is_one_run_of_small_bentos_without_the_peer() -> None:
    options = parse(["--quick"])
    assert (options.runs, options.no_peer) == (1, True)
    assert not any(case.large for case in CASES if case.name in options.cases)
    assert parse(["--cases", "first,unchanged"]).runs == 3


def test_the_memory_of_all_processes_counts_and_the_page_cache_does_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(64 << 20))
    hold = "import time; held = bytearray(48 << 20); time.sleep(0.5)"
    script = f'cat {file} > /dev/null; "$0" -S -c "{hold}" & "$0" -S -c "{hold}"; wait'
    usage = run(
        ["sh", "-c", script, sys.executable], os.environ, tmp_path / "log", watch_memory=True
    )
    assert 96 << 20 <= usage.peak_rss < 128 << 20
    assert 64 << 20 <= usage.bytes_read < 80 << 20


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such luck"):
        run(["sh", "-c", "echo no such luck >&2; exit 3"], os.environ, tmp_path / "log")
