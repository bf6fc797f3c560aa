"""kfp-bento requests record: golden requests out of a running service."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, err, foreign, print_facts, print_json
from kfp_bento.runtime.errors import CheckError, InvalidInput

app = typer.Typer(help="Golden requests: what a bento is asked.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Golden requests: what a bento is asked."""


@app.command(epilog="Example: kfp-bento requests record http://localhost:3000 --to requests.yaml")
def record(
    url: Annotated[str, typer.Argument(metavar="URL", help="A running service.")],
    to: Annotated[
        Path,
        typer.Option(
            "--to", help="File that receives the requests: JSON where its name ends so, else YAML."
        ),
    ],
    examples: Annotated[
        bool,
        typer.Option("--examples", help="Ask the examples of the service's own API description."),
    ] = False,
    answers: Annotated[
        bool,
        typer.Option("--answers", help="Keep the answers too, as the right ones."),
    ] = False,
    header: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="NAME", help="A header to keep; may be repeated. None that says who asks."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Where to listen; 0: a free port.")] = 0,
    count: Annotated[int, typer.Option(help="End after so many requests; 0: with Ctrl-C.")] = 0,
    json: Json = False,
) -> None:
    """Listen on this machine, hand requests on to a service, and keep them in a file.

    Logins, cookies and tokens are handed on and kept nowhere.
    """
    from kfp_bento.runtime import checks

    require_extra("runtime")
    if to.exists():
        raise InvalidInput(f"{to} exists; it is left as it is.", hint="Choose another file.")
    recording = checks.Recording(to.absolute(), answers=answers, headers=tuple(header or ()))
    without = []
    if examples:
        without = checks.record_examples(url, recording)
    else:
        with checks.recording_proxy(url, recording, port=port) as proxy:
            err.print(f"Ask {proxy.url} instead of {foreign(url)}; Ctrl-C ends.", soft_wrap=True)
            with contextlib.suppress(KeyboardInterrupt):
                proxy.wait_for(count)
    left_out = [*recording.left_out, *(f"{path} has no example" for path in without)]
    if not recording.kept:
        raise CheckError(
            f"No request was kept{': ' + '; '.join(left_out) if left_out else ''}.",
            hint="Send the requests that matter to the address that was named, while it listens."
            if not examples
            else "Record what it is asked instead, without --examples.",
        )
    facts = {"file": str(to), "requests": len(recording.kept), "left out": "; ".join(left_out)}
    if json:
        print_json(facts | {"left out": left_out})
        return
    print_facts("Recorded", facts)
