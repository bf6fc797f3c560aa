"""kfp-bento model: models out of a registry."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import (
    Json,
    err,
    print_facts,
    print_json,
    print_table,
    transfer,
    working,
)
from kfp_bento.runtime.reports import human_bytes, signature_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfp_bento.runtime.models import ModelVersion
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


@app.command(epilog="Example: kfp-bento model pull models:/credit@prod --to ./model")
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


@app.command(epilog="Example: kfp-bento model scan models:/credit@prod --policy enforce")
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


@app.command("list", epilog="Example: kfp-bento model list --tracking-uri http://mlflow:5000")
def list_(tracking_uri: TrackingUri = "", json: Json = False) -> None:
    """List the registered models of an MLflow registry."""
    from kfp_bento.runtime import models

    require_extra("runtime")
    with working("asking the registry", quiet=json):
        found = models.list_registered_models(tracking_uri)
    if json:
        print_json(
            [
                {"name": one.name, "latest_version": one.newest or None, "aliases": one.aliases}
                for one in found
            ]
        )
    elif found:
        rows = [(one.name, one.newest or "none", _aliases(one.aliases)) for one in found]
        print_table(("model", "latest version", "aliases"), rows)
    else:
        err.print("The registry has no registered models.")


@app.command(epilog="Example: kfp-bento model show models:/wine@champion")
def show(
    uri: Annotated[
        str, typer.Argument(metavar="MODEL", help="A URI as for pull, or a model's folder.")
    ],
    tracking_uri: TrackingUri = "",
    json: Json = False,
) -> None:
    """Say what a model is: version, signature, flavors, requirements; weights are not fetched."""
    from kfp_bento.runtime import models

    require_extra("runtime")
    with working(f"looking at {uri}", quiet=json):
        model = models.look_at_model(uri, tracking_uri=tracking_uri)
    if json:
        print_json(model.to_dict())
    else:
        _show(model)


def _show(model: ModelVersion) -> None:
    facts = model.to_dict()
    pointing = [alias for alias, to in sorted(model.aliases.items()) if to == model.version]
    print_facts(
        model.uri,
        {
            "version": f"{model.name}/{model.version}" if model.name else "",
            "aliases": ", ".join(pointing),
            "other aliases": _aliases(
                {alias: to for alias, to in model.aliases.items() if to != model.version}
            ),
            "run": model.run_id,
            "digest": model.digest,
            "flavors": ", ".join(model.flavors),
            "signature": "\n".join(
                f"{one.role}  {one.name}: {one.type}"
                for one in signature_fields(facts["signature"] or {})
            )
            or "none",
            "MLflow": model.mlflow_version,
            "Python": model.python_version,
            "requirements": "\n".join(model.requirements),
            "size": human_bytes(model.size),
        },
    )


def _aliases(aliases: Mapping[str, str]) -> str:
    return ", ".join(f"{alias} -> {version}" for alias, version in sorted(aliases.items()))


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
