"""kfp-bento check metrics, describe and drift: about data, and about answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import urlsplit

import typer

from kfp_bento.runtime.cli.check import GoldenFile, ReportFile, conclude
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import mapping_of
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, working
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport, Metrics, Subject

app = typer.Typer()

_DATA = (
    "A CSV, Parquet or JSONL file, or a folder of them: a path, s3://bucket/key, "
    "minio://bucket/key, or https://… for one file."
)
_FORMATS = "csv, parquet or jsonl; default: what the names of the files say."

HtmlFile = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option("--html", metavar="FILE", help="Also write a page with charts there."),
]
InputFormat = Annotated[str, typer.Option(help=_FORMATS)]


@app.command(
    epilog="Example: kfp-bento check metrics --url http://localhost:3000 --golden golden.json "
    "--data wine.csv --label cultivar --threshold 'accuracy>=0.9'"
)
def metrics(
    golden: GoldenFile,
    data: Annotated[str, typer.Option("--data", metavar="DATA", help=_DATA)],
    label: Annotated[
        str, typer.Option("--label", metavar="COLUMN", help="The column with the right answers.")
    ],
    url: Annotated[str, typer.Option("--url", help="Root of the running service.")] = "",
    bento: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--bento",
            metavar="DIR",
            help="The bento, asked here in its own environment; beside --url it only says how a "
            "service of your own is asked.",
        ),
    ] = None,
    threshold: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="LIMIT", help="Such as accuracy>=0.9 or rmse<=3; may be repeated."),
    ] = None,
    champion: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE|URL",
            help="What serves now: its bento, its metrics as --keep wrote them, or its URL.",
        ),
    ] = "",
    champion_limits: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="How much worse than the champion's metrics may be: "
            '\'{"accuracy": {"max_drop": 0.01}}\', or max_drop_ratio.',
        ),
    ] = "",
    task: Annotated[
        str, typer.Option(help="classification or regression; auto goes by the labels.")
    ] = "auto",
    prediction: Annotated[
        str, typer.Option(help="The column of the answers that counts, where there are several.")
    ] = "",
    class_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--class",
            metavar="NAME",
            help="A class, in the order of the model's lists of probabilities; may be repeated.",
        ),
    ] = None,
    positive: Annotated[
        str, typer.Option(help="The class of two that counts as positive; default: the last.")
    ] = "",
    api: Annotated[str, typer.Option(help="The API that answers, where there are several.")] = "",
    input_format: InputFormat = "",
    keep: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--keep", metavar="FILE", help="Keep the metrics for later comparisons."),
    ] = None,
    report: ReportFile = None,
    html: HtmlFile = None,
    json: Json = False,
) -> None:
    """Measure a model on labelled data, against thresholds and the champion."""
    from kfp_bento.runtime import batch, bentos, checks, proof, reports

    require_extra("runtime")
    asked = batch.BatchOptions(api=api, input_format=input_format)
    options = checks.MetricsOptions(task, prediction, tuple(class_ or ()), positive, asked)
    with working("asking the model", quiet=json):
        outcome = checks.check_metrics(
            proof.Golden.load(golden),
            data,
            label,
            checks.Subject(url, None if bento is None else bentos.load_bento(bento)),
            champion=_champion(champion),
            thresholds=checks.written_limits(threshold or ()),
            champion_limits=mapping_of("--champion-limits", champion_limits),
            options=options,
        )
    if keep is not None:
        outcome.metrics.save(keep)
    _end(outcome.report, report, html, reports.metrics_page, json=json)


@app.command(epilog="Example: kfp-bento check describe wine.csv --to statistics.json")
def describe(
    data: Annotated[str, typer.Argument(metavar="DATA", help=_DATA)],
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="Receives the statistics, as JSON.")
    ],
    column: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="COLUMN", help="A column; may be repeated. Default: all."),
    ] = None,
    input_format: InputFormat = "",
    json: Json = False,
) -> None:
    """Describe the columns of data, so that a drift can be seen later."""
    from kfp_bento.runtime import checks

    require_extra("runtime")
    with working("reading the data", quiet=json):
        found = checks.describe_data(data, column or (), input_format=input_format)
    found.save(to)
    if json:
        print_json(found.to_dict())
        return
    kinds = {kind: [one.name for one in found.columns if one.kind == kind] for kind in _KINDS}
    shown = {kind: ", ".join(names) for kind, names in kinds.items()}
    print_facts(f"Described: {data}", {"rows": f"{found.rows:,}", **shown, "statistics": to})


_KINDS = ("numeric", "categorical", "other")


@app.command(epilog="Example: kfp-bento check drift statistics.json today.csv")
def drift(
    statistics: Annotated[
        str,
        typer.Argument(
            metavar="STATISTICS",
            help="A file of check describe, or a model in a registry whose run has one: "
            "models:/NAME@ALIAS.",
        ),
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help=_DATA)],
    psi: Annotated[
        float, typer.Option(min=0, help="Population stability index of a column; 0: any.")
    ] = 0.2,
    ks: Annotated[
        float, typer.Option(min=0, help="Kolmogorov-Smirnov statistic of numbers; 0: any.")
    ] = 0.0,
    missing: Annotated[
        float, typer.Option(min=0, help="Change of the share of missing values; 0: any.")
    ] = 0.1,
    new_values: Annotated[
        float, typer.Option(min=0, help="Share of values that were not there; 0: any.")
    ] = 0.05,
    share: Annotated[
        float, typer.Option(min=0, help="Share of the columns that may have drifted.")
    ] = 0.3,
    column: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="COLUMN", help="A column; may be repeated. Default: all."),
    ] = None,
    prediction: Annotated[
        str, typer.Option(help="The column of predictions, whose drift counts for the whole.")
    ] = "",
    input_format: InputFormat = "",
    tracking_uri: Annotated[
        str, typer.Option(help="MLflow tracking server; default: MLFLOW_TRACKING_URI.")
    ] = "",
    report: ReportFile = None,
    html: HtmlFile = None,
    json: Json = False,
) -> None:
    """Compare data with the statistics of others, such as those of the training."""
    from kfp_bento.runtime import checks, reports

    require_extra("runtime")
    options = checks.DriftOptions(
        psi=psi,
        ks=ks,
        missing=missing,
        new_values=new_values,
        share=share,
        columns=tuple(column or ()),
        prediction=prediction,
    )
    model = statistics if statistics.startswith(("models:/", "runs:/")) else ""
    file = None if model else Path(statistics)
    with working("reading the data", quiet=json):
        then = checks.find_statistics(file, model, tracking_uri=tracking_uri)
        found = checks.detect_drift(then, data, options, input_format=input_format)
    _end(found, report, html, reports.drift_page, json=json)


def _end(
    found: CheckReport, report: Path | None, html: Path | None, page: Any, *, json: bool
) -> None:
    from kfp_bento.runtime import reports

    if html is not None:
        reports.write_text(page(found), html)
    conclude(found, report, json=json)


def _champion(text: str) -> Subject | Metrics | None:
    """Give the champion that an option names: an address, a bento's folder, or a file."""
    from kfp_bento.runtime import bentos, checks

    if not text:
        return None
    if urlsplit(text).scheme in ("http", "https"):
        return checks.Subject(text)
    if Path(text).is_dir():
        return checks.Subject(bento=bentos.load_bento(Path(text)))
    if Path(text).is_file():
        return checks.Metrics.load(Path(text))
    raise InvalidInput(
        f"--champion {text} is not there.", hint="Give a bento's folder, a file, or a URL."
    )
