"""kfp-bento bento predict: a bento asked about all rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, rows_done
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import parse_json_value

if TYPE_CHECKING:
    from kfp_bento.runtime.batch import Manifest

app = typer.Typer()

_FORMATS = "csv, parquet or jsonl"


@app.command(epilog="Example: kfp-bento bento predict ./bento wine.csv --to ./scored")
def predict(
    bento_directory: Annotated[Path, typer.Argument(metavar="DIR", help="The bento's folder.")],
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="A CSV, Parquet or JSONL file, or a folder of them: a path, s3://bucket/key, "
            "minio://bucket/key, or https://… for one file.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="Receives the parts, their records and manifest.json: a path, s3://bucket/folder "
            "or minio://bucket/folder.",
        ),
    ],
    api: Annotated[
        str,
        typer.Option(
            help="The API that answers: its name, its path, or one of several models; default: "
            "the only one."
        ),
    ] = "",
    keep: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="COLUMN",
            help="A column of the input to keep beside the predictions; may be repeated. "
            "Default: all.",
        ),
    ] = None,
    predictions_only: Annotated[
        bool, typer.Option("--predictions-only", help="Keep no column of the input.")
    ] = False,
    model_input: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--input",
            metavar="COLUMN",
            help="A column that the model gets, in its order, where its signature names none; "
            "may be repeated. Default: all.",
        ),
    ] = None,
    input_format: Annotated[
        str, typer.Option(help=f"{_FORMATS}; default: what the names of the files say.")
    ] = "",
    output_format: Annotated[
        str, typer.Option("--format", help=f"{_FORMATS}; default: that of the input.")
    ] = "",
    on_error: Annotated[
        str,
        typer.Option(
            help="fail ends the run at a row that the model refuses; row gives that row an error."
        ),
    ] = "fail",
    batch_rows: Annotated[
        int, typer.Option(help="Rows of one request; default: what suits the number of columns.")
    ] = 0,
    param: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME=JSON",
            help="A parameter of the model, or another argument of the API; may be repeated.",
        ),
    ] = None,
    shards: Annotated[
        int, typer.Option(help="Parts of the output, at most; default: one for 100,000 rows.")
    ] = 0,
    workers: Annotated[
        int, typer.Option(help="Processes of the bento; default: one for each processor.")
    ] = 0,
    json: Json = False,
) -> None:
    """Ask a bento about all rows of a table; a run that was stopped goes on where it was."""
    from kfp_bento.runtime import batch, bentos

    require_extra("runtime")
    options = batch.BatchOptions(
        api=api,
        inputs=tuple(model_input or ()),
        keep=() if predictions_only else tuple(keep or ["*"]),
        input_format=input_format,
        output_format=output_format,
        on_error=on_error,
        batch_rows=batch_rows,
        params=dict(map(_param, param or ())),
    )
    with rows_done(f"asking {bento_directory.name}", quiet=json) as progress:
        done = batch.predict_batch(
            bentos.load_bento(bento_directory),
            table,
            to,
            options,
            shards=shards,
            workers=workers,
            progress=progress,
        )
    if json:
        print_json(done.to_dict() | {"location": to})
        return
    _print(done, to)


def _print(done: Manifest, to: str) -> None:
    facts = {
        "rows": f"{done.plan.rows:,}",
        "errors": f"{done.errors:,}" if done.errors else "",
        "predictions": ", ".join(done.parts[0].columns),
        "parts": f"{len(done.parts)} ({done.plan.options.output_format})",
        "manifest": f"{to.rstrip('/')}/manifest.json",
    }
    print_facts(f"Predicted: {done.plan.tag}", facts)


def _param(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    try:
        if not found:
            raise ValueError("it is not NAME=JSON")
        return name, parse_json_value(value.encode())
    except ValueError as failure:
        raise InvalidInput(
            f"--param {text}: {failure}.",
            hint="Texts need quotes: --param 'country=\"DE\"'.",
        ) from failure
