"""kfp-bento promote: an alias moves to models whose release passed its checks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.model import TrackingUri
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, transfer, working


def promote(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="The models: folders as model pull made them, or URIs, which are pulled again.",
        ),
    ],
    alias: Annotated[str, typer.Option(help="Registry alias to move, such as prod.")],
    reports: Annotated[
        Path, typer.Option("--reports", metavar="FILE", help="What check release has written.")
    ],
    required: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            "--required-check",
            metavar="CHECK",
            help="A check that must be there; default: smoke, replay.",
        ),
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
    tracking_uri: TrackingUri = "",
    json: Json = False,
) -> None:
    """Keep a checked release as the good one, and move an alias to its models: both, or neither.

    Where it is refused, the last good release comes back.
    """
    from kfp_bento.runtime import checks, promotion
    from kfp_bento.runtime import models as pulled

    require_extra("runtime")
    checked = checks.ReleaseReports.load(reports)
    with TemporaryDirectory(prefix="kfp-bento-promote-") as scratch:
        uris = [model for model in models if not Path(model).is_dir()]
        folders = [Path(model) for model in models if Path(model).is_dir()]
        if uris:
            folders.append(Path(scratch) / "models")
            with transfer("pulling", quiet=json) as progress:
                pulled.pull_models(uris, folders[-1], tracking_uri=tracking_uri, progress=progress)
        with working("promoting", quiet=json):
            promoted = promotion.promote_release(
                [model for folder in folders for model in pulled.load_models(folder)],
                checked,
                alias,
                required=required or ("smoke", "replay"),
                tracking_uri=tracking_uri,
                why=why,
            )
    if json:
        print_json(promoted.to_dict())
        return
    moved = [
        f"version {one.version}" + (f" (was {one.previous})" if one.previous else "")
        for one in promoted.models
    ]
    named = zip((one.name for one in promoted.models), moved, strict=True)
    print_facts(f"{alias} is set", dict(named) | {"release": promoted.release})
