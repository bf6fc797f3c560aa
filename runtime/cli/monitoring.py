"""What watches a release: `kfp-bento release monitoring`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, print_facts, print_json
from kfp_bento.runtime.cli.release_facts import check_place
from kfp_bento.runtime.errors import InvalidInput

app = typer.Typer()


@app.command(epilog="Example: kfp-bento release monitoring credit -n models --to monitoring")
def monitoring(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    to: Annotated[Path, typer.Option("--to", help="Directory that receives the files.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    bento: Annotated[
        str, typer.Option(help="Name of its bento; default: that of the release.")
    ] = "",
    max_error_ratio: Annotated[
        float, typer.Option(help="Share of answers with 5xx above which an alert fires.")
    ] = 0.01,
    max_p99_ms: Annotated[
        float, typer.Option(help="Latency of the slowest hundredth above which one fires.")
    ] = 1000.0,
    rule_label: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="KEY=VALUE",
            help="Label by which the Prometheus operator finds rules; may be repeated.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a Grafana dashboard and alert rules of a release; no cluster is asked."""
    from kfp_bento.runtime import deployments

    require_extra("runtime")
    check_place(namespace, name)
    found = deployments.Monitoring(
        name,
        namespace,
        bento or name,
        error_ratio=max_error_ratio,
        p99_seconds=max_p99_ms / 1000,
        labels=dict(map(_label, rule_label or ())),
    )
    written = found.write(to)
    if json:
        print_json([str(path) for path in written])
    else:
        print_facts(f"What watches {name}", {path.name: path for path in written})


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"{text!r} is not KEY=VALUE.", hint="Such as release=prometheus.")
    return key, value
