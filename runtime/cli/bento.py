"""kfp-bento bento build: bentos out of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import assignments
from kfp_bento.runtime.cli.output import Json, err, print_facts, print_json, working

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoOptions

app = typer.Typer(help="Bentos: out of models, and as archives.", no_args_is_help=True)


def _options(
    protocols: list[str] | None,
    system_packages: list[str] | None,
    envs: list[str] | None,
    labels: list[str] | None,
    **others: bool | int,
) -> BentoOptions:
    """Give the options of a build out of those of the command."""
    from kfp_bento.runtime.bentos import BentoOptions

    spoken = {} if protocols is None else {"protocols": [p for p in protocols if p != "none"]}
    return BentoOptions.of(
        {
            **others,
            **spoken,
            "system_packages": system_packages,
            "envs": assignments("--env", envs or ()),
            "labels": assignments("--label", labels or ()),
        }
    )


@app.command(epilog="Example: kfp-bento bento build ./model --to ./bento")
def build(
    model_directories: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer evaluates it
        typer.Argument(
            metavar="[MODEL_DIR]...",
            help="Pulled or plain MLflow model folders; none for a service that needs none.",
        ),
    ] = None,
    *,
    to: Annotated[Path, typer.Option("--to", help="Directory that receives the bento.")],
    name: Annotated[str, typer.Option(help="Name of the bento; default: the model's.")] = "",
    service: Annotated[
        str,
        typer.Option(
            metavar="PATH|ADDRESS",
            help="Your own BentoML service: a .py file or folder, https://, s3://, minio:// or "
            "file:// address of a .py file or an archive, git+https://host/repository@COMMIT; "
            "default: generated.",
        ),
    ] = "",
    requirement: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A requirement to lock besides the model's own; may be repeated."),
    ] = None,
    python_version: Annotated[
        str,
        typer.Option(
            metavar="MINOR",
            help="Python of the bento, such as 3.11; default: that of the models.",
        ),
    ] = "",
    allow_source: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Beginning of the addresses of indexes and wheels that the models' own "
            "requirements may name, such as https://host/path/, or of repositories, whose code "
            "is run to build wheels: git+https://host/path/; may be repeated. "
            "Default: names and versions only, from the index configured for uv.",
        ),
    ] = None,
    example: Annotated[
        bool,
        typer.Option(help="Show a row of the model's input example on the API page."),
    ] = True,
    verify: Annotated[
        bool,
        typer.Option(
            help="Start the bento in its locked environment, and compare its answers with those "
            "of mlflow.pyfunc there."
        ),
    ] = True,
    requests: Annotated[
        str,
        typer.Option(
            metavar="FILE|ADDRESS",
            help="JSON or YAML file with a list of requests (path, body) to ask instead of the "
            "models' own input examples; `kfp-bento requests record` makes one.",
        ),
    ] = "",
    relative_tolerance: Annotated[
        float, typer.Option(help="Allowed difference of floats relative to the expected value.")
    ] = 1e-6,
    absolute_tolerance: Annotated[
        float, typer.Option(help="Allowed difference of floats in the value's own unit.")
    ] = 1e-9,
    protocol: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="What a generated service speaks besides JSON on /predict: mlflow, v2, v1, none; "
            "may be repeated. Default: all three."
        ),
    ] = None,
    max_batch_size: Annotated[
        int,
        typer.Option(
            help="Most rows of concurrent requests in one call of the model; 0: no batching."
        ),
    ] = 0,
    max_latency_ms: Annotated[
        int, typer.Option(help="How long a request waits for others, in milliseconds.")
    ] = 0,
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            help="Hold what sends OpenTelemetry's traces, where the release's OTEL_* say where to.",
        ),
    ] = False,
    log_to_bucket: Annotated[
        bool,
        typer.Option(
            "--log-to-bucket",
            help="Hold what writes the log of requests to a bucket, where the release says so.",
        ),
    ] = False,
    system_package: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A Debian package that the image needs; may be repeated."),
    ] = None,
    env: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME=VALUE",
            help="A variable of the service, public with its image; may be repeated.",
        ),
    ] = None,
    label: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME=VALUE", help="A label of the bento; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Build a bento: typed service, locked dependencies, proven to answer as its models do.

    Beside it lies NAME.golden.json: requests and the right answers, for the checks of a release.
    """
    from kfp_bento.runtime import bentos, models, proof

    require_extra("runtime")
    asked = proof.given_requests([requests] if requests else [])
    options = _options(
        protocol,
        system_package,
        env,
        label,
        show_example=example,
        max_batch_size=max_batch_size,
        max_latency_ms=max_latency_ms,
        traces=traces,
        log_to_bucket=log_to_bucket,
    )
    golden_file = to.absolute().with_name(f"{to.absolute().name}.golden.json")
    with working("building the bento", quiet=json) as tell:
        loaded = [
            model
            for directory in model_directories or ()
            for model in models.load_models(directory)
        ]
        bento = bentos.build_bento(
            loaded,
            to,
            name=name,
            service=service,
            python_version=python_version,
            requirements=requirement or (),
            allow_sources=allow_source or (),
            options=options,
        )
        golden_file.unlink(missing_ok=True)  # it would be of another bento
        golden = proof.golden_answers(
            bento,
            loaded,
            verify=verify,
            requests=asked,
            relative_tolerance=relative_tolerance,
            absolute_tolerance=absolute_tolerance,
            allow_sources=allow_source or (),
            batched=max_batch_size > 0,
            tell=tell,
        )
        golden.save(golden_file)
    if bento.note:
        err.print(escape(bento.note))
    if json:
        proven = {"verified": golden.verified, "reason": golden.told, "rows": golden.rows}
        print_json(
            bento.to_dict() | {"directory": str(to), "golden": proven | {"file": str(golden_file)}}
        )
        return
    print_facts(
        f"{'Already there' if bento.reused else 'Built'}: {bento.tag}",
        {
            "service": bento.service,
            "models": ", ".join(model.tag for model in bento.models),
            "Python": bento.python_version,
            "digest": bento.digest,
            "directory": to,
            "verified": f"{golden.verified}: {golden.told}",
            "golden answers": golden_file,
        },
    )
