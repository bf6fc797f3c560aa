"""kfp-bento check: what is served, asked; a report that did not pass ends with exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, working

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport

app = typer.Typer(
    help="Ask what is served, and say whether it holds what it promises.", no_args_is_help=True
)

Url = Annotated[str, typer.Argument(metavar="URL", help="Root of the running service.")]
GoldenFile = Annotated[
    Path,
    typer.Option(
        "--golden", metavar="FILE", help="Golden answers, as the build of the bento left them."
    ),
]
ReportFile = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option("--report", metavar="FILE", help="Also write the report there, as JSON."),
]


@app.command(epilog="Example: kfp-bento check smoke http://localhost:3000 --golden golden.json")
def smoke(
    url: Url,
    golden: GoldenFile,
    seconds: Annotated[
        float, typer.Option(min=0, help="How long it may take to become ready.")
    ] = 120.0,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Wait until a service is ready, and ask it one real request of each path."""
    from kfp_bento.runtime import checks, proof

    require_extra("runtime")
    with working("asking the service", quiet=json):
        outcome = checks.smoke_test(url, proof.Golden.load(golden), timeout=seconds)
    conclude(outcome, report, json=json)


@app.command(epilog="Example: kfp-bento check replay http://localhost:3000 --golden golden.json")
def replay(
    url: Url,
    golden: GoldenFile,
    seconds: Annotated[float, typer.Option(min=0, help="Time limit of each request.")] = 60.0,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Send a service all golden requests, and compare each answer with the right one."""
    from kfp_bento.runtime import checks, proof

    require_extra("runtime")
    with working("comparing answers", quiet=json):
        outcome = checks.compare_predictions(url, proof.Golden.load(golden), timeout=seconds)
    conclude(outcome, report, json=json)


def conclude(report: CheckReport, to: Path | None, *, json: bool) -> None:
    """Show a report, keep it where that is wanted, and exit with 1 if it did not pass."""
    from kfp_bento.runtime import reports

    if to is not None:
        report.save(to)
    if json:
        print_json(report.to_dict())
    else:
        found = [one for one in report.evidence if "reason" in one]
        facts = {"verdict": report.summary, **reports.measures(report.measures)}
        print_facts(f"{report.name} {'passed' if report.passed else 'did not pass'}", facts)
        for one in found:
            print_facts("Found", {key: str(value) for key, value in one.items()})
    if not report.passed:
        raise typer.Exit(1)
