"""kfp-bento model: models out of a registry."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import (
    Json,
    print_facts,
    print_json,
    print_table,
    transfer,
    working,
)
from kfp_bento.runtime.reports import human_bytes

if TYPE_CHECKING:
    from kfp_bento.runtime.scan import ScanReport

app = typer.Typer(help="Models out of an MLflow registry.", no_args_is_help=True)

TrackingUri = Annotated[
    str,
    typer.Option(
        "--tracking-uri",
        help="MLflow server.",
        envvar="MLFLOW_TRACKING_URI",
        show_default=False,
    ),
]


@app.command()
def pull(
    uris: Annotated[
        list[str],
        typer.Argument(
            metavar="URI",
            help="models:/name/3, models:/name@alias, models:/m-<id>, runs:/<id>/path or a folder; "
            "as NAME=URI the model has another name in the bento.",
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", help="Directory that receives a folder for each model.")
    ],
    tracking_uri: TrackingUri = "",
    json: Json = False,
) -> None:
    """Resolve model URIs once and download those exact versions."""
    from kfp_bento.runtime import models

    require_extra("runtime")
    with transfer(f"pulling {', '.join(uris)}", quiet=json) as progress:
        pulled = models.pull_models(uris, to, tracking_uri=tracking_uri, progress=progress)
    if json:
        print_json([model.to_dict() | {"directory": str(model.directory)} for model in pulled])
        return
    for model in pulled:
        print_facts(
            f"{'Already there' if model.reused else 'Pulled'}: {model.uri}",
            {
                "version": f"{model.name}/{model.version}" if model.name else "",
                "digest": model.digest,
                "flavors": ", ".join(model.flavors),
                "Python": model.python_version,
                "size": human_bytes(model.size),
                "directory": model.directory,
            },
        )


@app.command()
def scan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model's folder, one with several, or a URI as for pull."
        ),
    ],
    policy: Annotated[
        str, typer.Option(help="warn reports; enforce fails where anything is found; off.")
    ] = "warn",
    allow: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="NAME",
            help="Name of a finding, exactly as reported, that does not count; may be repeated.",
        ),
    ] = None,
    tracking_uri: TrackingUri = "",
    json: Json = False,
) -> None:
    """Look what loading a model would run, without loading it."""
    from kfp_bento.runtime import models, scan

    require_extra("runtime")
    with TemporaryDirectory(prefix="kfp-bento-scan-") as scratch:
        directory = Path(model)
        if not directory.is_dir():
            directory = Path(scratch) / "models"
            with transfer(f"pulling {model}", quiet=json) as progress:
                models.pull_models([model], directory, tracking_uri=tracking_uri, progress=progress)
        with working("looking into the model", quiet=json):
            loaded = models.load_models(directory)
            report = scan.scan_models(loaded, policy=policy, allow=allow or ())
    if json:
        print_json(report.to_dict())
    else:
        _tell(report)
    if not report.passed:
        raise typer.Exit(1)


def _tell(report: ScanReport) -> None:
    word = "Passed" if report.passed else "FAILED"
    print_facts(
        f"{word}: {report.summary}", {looked.model: looked.digest for looked in report.scans}
    )
    rows = [
        (
            looked.model,
            "allowed" if one.allowed else one.severity.value,
            one.file,
            one.name,
            f"{one.why} {one.advice}",
        )
        for looked in report.scans
        for one in looked.findings
    ]
    if rows:
        print_table(("model", "severity", "file", "name", "why, and what to do"), rows)
