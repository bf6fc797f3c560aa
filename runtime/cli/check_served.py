"""kfp-bento check load | contract: a running service under load, and against its earlier API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from kfp_bento.runtime.cli.check import GoldenFile, ReportFile, Url, conclude
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import assignments
from kfp_bento.runtime.cli.output import Json, working
from kfp_bento.runtime.errors import InvalidInput

app = typer.Typer()


@app.command(
    epilog="Example: kfp-bento check load http://localhost:3000 --golden golden.json "
    "--users 10 --duration-seconds 30 --limit p95_ms=200"
)
def load(
    url: Url,
    golden: GoldenFile,
    users: Annotated[int, typer.Option(help="How many ask at the same time.")] = 10,
    duration_seconds: Annotated[
        float, typer.Option(help="Seconds for which all of them ask.")
    ] = 30.0,
    ramp_seconds: Annotated[float, typer.Option(help="Seconds until all of them ask.")] = 5.0,
    limit: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="MEASURE=NUMBER",
            help="What has to hold: p50_ms, p95_ms, p99_ms, failure_ratio at most, "
            "requests_per_second at least; may be repeated. Default: failure_ratio=0.",
        ),
    ] = None,
    payloads: Annotated[
        str,
        typer.Option(
            metavar="TABLE",
            help="Rows to ask about instead of the golden requests: a CSV, Parquet or JSONL file, "
            "a path, s3://bucket/key, minio://bucket/key or https://….",
        ),
    ] = "golden",
    rows_per_request: Annotated[int, typer.Option(help="Rows of a table in a request.")] = 1,
    max_requests_per_second: Annotated[
        float, typer.Option(help="Requests per second of all users, at most; 0: no cap.")
    ] = 0.0,
    max_requests: Annotated[int, typer.Option(help="Ends after so many requests.")] = 100_000,
    timeout_seconds: Annotated[float, typer.Option(help="Time limit of each request.")] = 30.0,
    report: ReportFile = None,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--html", metavar="FILE", help="Also write a page with charts there."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask a service as many users at once: are answers right, and within limits?"""
    from kfp_bento.runtime import checks, proof, reports

    require_extra("runtime")
    options = checks.LoadOptions.of(
        {
            **{"users": users, "duration_seconds": duration_seconds, "ramp_seconds": ramp_seconds},
            **{"payloads": payloads, "rows_per_request": rows_per_request},
            **{"max_requests_per_second": max_requests_per_second, "max_requests": max_requests},
            **{"timeout_seconds": timeout_seconds, "limits": _limits(limit or [])},
        }
    )
    with working("loading the service", quiet=json):
        outcome = checks.load_test(url, proof.Golden.load(golden), options)
    if html is not None:
        reports.write_text(reports.load_page(outcome), html)
    conclude(outcome, report, json=json)


@app.command(
    epilog="Example: kfp-bento check contract http://localhost:3000 --against earlier.json "
    "--save contract.json"
)
def contract(
    url: Url,
    against: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--against",
            metavar="FILE",
            help="An earlier contract, or a whole OpenAPI document as JSON.",
        ),
    ] = None,
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Write the contract that is served now there."),
    ] = None,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Compare the API that a service describes with an earlier one: would clients break?"""
    from kfp_bento.runtime import checks, reports

    require_extra("runtime")
    earlier = checks.load_contract(against) if against else None
    with working("reading the API", quiet=json):
        served = checks.contract_of(url)
        outcome = checks.check_contract(url, earlier, served=served)
    if save is not None:
        reports.write_json(served, save)
    conclude(outcome, report, json=json)


def _limits(texts: list[str]) -> dict[str, float]:
    found = {}
    for name, text in assignments("--limit", texts).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise InvalidInput(
                f"--limit {name}: {text!r} is no number.", hint=f"Write --limit {name}=200."
            ) from None
    return found
