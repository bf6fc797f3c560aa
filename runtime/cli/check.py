"""kfp-bento check: what is served, asked; a report that did not pass ends with exit code 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from kfp_bento.runtime.cli.deploy import Context
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import mapping_of
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
    ready_seconds: Annotated[
        float, typer.Option(min=0, help="How long it may take to become ready.")
    ] = 120.0,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Wait until a service is ready, and ask it one real request of each path."""
    from kfp_bento.runtime import checks, proof

    require_extra("runtime")
    with working("asking the service", quiet=json):
        outcome = checks.smoke_test(url, proof.Golden.load(golden), timeout=ready_seconds)
    conclude(outcome, report, json=json)


@app.command(epilog="Example: kfp-bento check replay http://localhost:3000 --golden golden.json")
def replay(
    url: Url,
    golden: GoldenFile,
    timeout_seconds: Annotated[
        float, typer.Option(min=0, help="Time limit of each request.")
    ] = 60.0,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Send a service all golden requests, and compare each answer with the right one."""
    from kfp_bento.runtime import checks, proof

    require_extra("runtime")
    with working("comparing answers", quiet=json):
        outcome = checks.compare_predictions(
            url, proof.Golden.load(golden), timeout=timeout_seconds
        )
    conclude(outcome, report, json=json)


@app.command(
    "release", epilog="Example: kfp-bento check release credit -n models --golden golden.json"
)
def release_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the release on trial.")],
    golden: GoldenFile,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    target: Annotated[
        str, typer.Option("--target", "-t", help="Its kind of target; default: found by the name.")
    ] = "",
    url: Annotated[
        str, typer.Option(help="Where it answers from here; default: its address in the cluster.")
    ] = "",
    gate: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(metavar="NAME[=JSON]", help="A further check and its options, see gates."),
    ] = None,
    ready_seconds: Annotated[
        float, typer.Option(min=0, help="How long it may take to become ready.")
    ] = 120.0,
    leave: Annotated[
        bool, typer.Option(help="Bring the last good release back if a check does not pass.")
    ] = True,
    reports: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--reports", metavar="FILE", help="Write all reports there, for promote."),
    ] = None,
    context: Context = "",
    json: Json = False,
) -> None:
    """Check a release on trial: whether it is ready, its answers, and by further gates."""
    from kfp_bento.runtime import checks, deployments, proof

    require_extra("runtime")
    asked = [one.partition("=") for one in gate or ()]
    with working("checking the release", quiet=json):
        kind = target or deployments.find_release(name, namespace=namespace, context=context)
        found = deployments.release_facts(name, target=kind, namespace=namespace, context=context)
        checked = checks.check_release(
            replace(found, url=url or found.url),
            proof.Golden.load(golden),
            gates={name: mapping_of("--gate", text) or {} for name, _, text in asked},
            ready_seconds=ready_seconds,
            leave=leave,
        )
    if reports is not None:
        checked.save(reports)
    if json:
        print_json(checked.to_dict())
    else:
        for report in checked.reports:
            show(report)
        end = checked.settled or "It is on trial until it is promoted or confirmed."
        print_facts(f"{name} {'passed' if checked.passed else 'was refused'}", {"release": end})
    if not checked.passed:
        raise typer.Exit(1)


def conclude(report: CheckReport, to: Path | None, *, json: bool) -> None:
    """Show a report, keep it where that is wanted, and exit with 1 if it did not pass."""
    if to is not None:
        report.save(to)
    if json:
        print_json(report.to_dict())
    else:
        show(report)
    if not report.passed:
        raise typer.Exit(1)


def show(report: CheckReport) -> None:
    """Print a report for people."""
    from kfp_bento.runtime import reports

    facts = {"verdict": report.summary, **reports.measures(report.measures)}
    print_facts(f"{report.name} {'passed' if report.passed else 'did not pass'}", facts)
    for one in report.evidence:
        if "reason" in one:
            # None is a value where the other side has one; of a route neither has any.
            compared = {one.get("served"), one.get("expected")} != {None}
            told = {key: str(value) for key, value in one.items() if compared or value is not None}
            print_facts("Found", told)
