"""Text of models, servers and clusters: on a console it is shown, and steers nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.cli import output
from kfp_bento.runtime.errors import ModelError, plain_text
from kfp_bento.runtime.reports import run_report
from kfp_bento.runtime.reports.markdown import code, fenced, literal
from kfp_bento.runtime.reports.summaries import check_summary

HOSTILE = "".join(
    (
        *("\x1b[2J", "\x1b]0;title\x07", "a\x1b[31mb", "\x9b2J", "\r", "\x08", "\x00", "\x7f"),
        *("\u202e", "\u2066", "\u200e", "\x85", "\ud800", "[red]"),
    )
)
CONTROLS = {letter for letter in HOSTILE if not letter.isprintable()}


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a console shows, a terminal without colours or a file."""
    shown = io.StringIO()
    for name in ("out", "err"):
        console = Console(
            file=shown, force_terminal=request.param, no_color=True, width=200, highlight=False
        )
        monkeypatch.setattr(output, name, console)
    monkeypatch.setattr(output.typer, "echo", lambda text, **_: shown.write(f"{text}\n"))
    return shown


def seen(screen: io.StringIO) -> str:
    text = screen.getvalue()
    for style in ("\x1b[1m", "\x1b[0m", "\x1b[1;31m", "\x1b[3m"):  # bold is ours
        text = text.replace(style, "")
    return text


def test_facts_steer_no_terminal(screen: io.StringIO) -> None:
    output.print_facts(HOSTILE, {"version": HOSTILE, "digest": [HOSTILE]})

    assert not CONTROLS & set(seen(screen))
    assert seen(screen).count("[red]") == 3


def test_tables_steer_no_terminal(screen: io.StringIO) -> None:
    output.print_table(("name", "value"), [(HOSTILE, HOSTILE)])

    assert not CONTROLS & set(seen(screen))


@pytest.mark.parametrize("as_json", [True, False])
def test_errors_steer_no_terminal(screen: io.StringIO, as_json: bool) -> None:
    output.print_error(ModelError(HOSTILE, hint=HOSTILE), as_json=as_json)

    assert not CONTROLS & set(seen(screen))


def test_what_is_waited_for_steers_no_terminal(screen: io.StringIO) -> None:
    with output.waiting("waiting", quiet=False) as wait:
        wait(HOSTILE)

    if not output.err.is_terminal:
        assert not CONTROLS & set(seen(screen))


def test_an_error_is_plain_wherever_it_is_printed() -> None:
    error = ModelError(HOSTILE, hint=HOSTILE)

    assert not CONTROLS & set(str(error) + repr(error) + error.message + error.hint)


@pytest.mark.parametrize(
    "text", ["größe 数量 😀", "👩\u200d💻", "\u0646\u0645\u06cc\u200c\u062e", "a\tb\nc", "e\u0308"]
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain_text(text) == text


def test_reports_steer_nothing() -> None:
    report = CheckReport(
        "smoke_test", False, HOSTILE, {}, ({"served": HOSTILE},), (HOSTILE,), HOSTILE
    )
    pages = [
        run_report(
            {"checks": [report.to_dict()], "image": {"digest": HOSTILE}}, {HOSTILE: HOSTILE}
        ),
        literal(HOSTILE),
        code(HOSTILE),
        fenced(HOSTILE),
        check_summary(report),
    ]

    assert not CONTROLS & set("".join(pages))
    assert not CONTROLS & set(report.summary)
