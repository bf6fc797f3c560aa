"""kfp-bento approve: a person's word before an alias moves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.model import TrackingUri
from kfp_bento.runtime.cli.output import Json, print_facts, print_json, working


def approve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="All models of the run, as models:/NAME/VERSION."),
    ],
    alias: Annotated[str, typer.Option(help="Registry alias that is to move, such as prod.")],
    image: Annotated[
        str,
        typer.Option(
            metavar="DIGEST", help="The image, sha256:…; default: what a waiting run asks about."
        ),
    ] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Say no.")] = False,
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
    tracking_uri: TrackingUri = "",
    json: Json = False,
) -> None:
    """Approve or refuse that an alias moves to models, for exactly one image.

    A run that waits for it goes on at once. The last word counts.
    """
    from kfp_bento.runtime import promotion

    require_extra("runtime")
    with working("writing", quiet=json):
        made = promotion.decide(
            models, alias, image=image, refuse=refuse, why=why, tracking_uri=tracking_uri
        )
    if json:
        print_json({uri: asdict(decision) for uri, decision in made.items()})
        return
    for uri, decision in made.items():
        facts = {"image": decision.image, "by": decision.by, "at": decision.at, "why": decision.why}
        print_facts(f"{uri} is {decision.decision} for {alias}", facts)
