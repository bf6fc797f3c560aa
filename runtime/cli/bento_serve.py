"""kfp-bento bento serve: one bento, in its own environment, until Ctrl-C."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.bento_store import Source
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, err, out, print_json, transfer, working
from kfp_bento.runtime.errors import LocalRunError

app = typer.Typer()


@app.command(epilog="Example: kfp-bento bento serve ./wine-bento --port 3000")
def serve(
    source: Source,
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address; 0.0.0.0 for whoever reaches this machine.")
    ] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that answer. Default: what the bento says.")
    ] = 0,
    json: Json = False,
) -> None:
    """Serve a bento in the environment of its own lock, until Ctrl-C.

    Its code has the network, and none of your credentials; KFP_BENTO_CODE_VARIABLES=NAME,… passes
    variables on to it.
    """
    from kfp_bento.runtime import bentos, local

    require_extra("runtime")
    how = local.Listening(port, host, workers)
    with contextlib.ExitStack() as stack:
        with transfer(f"fetching {source}", quiet=json) as progress:
            bento = stack.enter_context(bentos.opened_bento(source, lock=True, progress=progress))
        with working(f"serving {bento.tag}", quiet=json) as tell:
            started = stack.enter_context(local.serve_bento(bento, how, tell=tell))
        if json:
            print_json({"tag": bento.tag, "url": how.url, "pid": started.process.pid})
        else:
            out.print(f"{escape(bento.tag)} answers at {how.url}; Ctrl-C ends it.")
        try:
            status = local.follow(started, lambda text: typer.echo(text, err=True))
        except KeyboardInterrupt:
            status = None
    if status is not None:
        raise LocalRunError(
            f"The service ended by itself, with exit code {status}.",
            hint="What it said last stands above.",
        )
    err.print("Stopped: nothing of it is left running.")
