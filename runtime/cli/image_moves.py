"""kfp-bento image copy and rebase: images moved elsewhere, or onto another base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import (
    Json,
    foreign,
    out,
    print_facts,
    print_json,
    stopwatch,
    working,
)
from kfp_bento.runtime.reports import gathered, human_bytes, shortened

if TYPE_CHECKING:
    from kfp_bento.runtime.images import Transfer

PLACES = "registry/repository[:tag], oci:DIRECTORY[:TAG] or docker-archive:FILE[:TAG]"

_MOST_ROWS = 24

Platform = Annotated[
    str, typer.Option(help="linux/amd64 or linux/arm64, of a multi-platform image.")
]


def add_moves(app: typer.Typer) -> None:
    """Add the commands to a group."""
    app.command(
        "copy",
        epilog="Example: kfp-bento image copy registry.example.com/ml/credit:v1 oci:./image:v1",
    )(copy)
    app.command(
        "rebase",
        epilog="Example: kfp-bento image rebase registry.example.com/ml/credit:v1 "
        "--base python:3.11-slim",
    )(rebase)


def copy(
    source: Annotated[
        str, typer.Argument(help=f"{PLACES}; or host, made of this machine's own Python.")
    ],
    destination: Annotated[str, typer.Argument(help=f"{PLACES}.")],
    platform: Platform = "",
    all_platforms: Annotated[
        bool, typer.Option("--all-platforms", help="Copy a multi-platform image as a whole.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy an image, with its SBOM and signatures; what is there already is not moved."""
    from kfp_bento.runtime import images

    require_extra("runtime")
    elapsed = stopwatch()
    with working("copying the image", quiet=json) as progress:
        copied = images.copy_image(
            source, destination, platform=platform, all_platforms=all_platforms, progress=progress
        )
    if json:
        print_json(copied.to_dict())
        return
    _print_transfers(copied.transfers)
    print_facts(
        f"{'Copied' if copied.changed else 'Already there, seen'} in {elapsed():.1f} s",
        {
            "source": copied.source,
            "digest": copied.digest,
            "tag": copied.tag,
            "location": copied.location,
            "moved": _summary(copied.transfers),
            "attached": f"{len(copied.referrers)} came along" if copied.referrers else "",
            "signatures": f"{copied.signatures} came along" if copied.signatures else "",
            "left behind": copied.left_behind,
        },
    )


def rebase(
    image: Annotated[str, typer.Argument(help=f"{PLACES}.")],
    base: Annotated[str, typer.Option(help="The new base image, in the same forms, or host.")],
    to: Annotated[
        str, typer.Option("--to", help=f"{PLACES}; default: the image's own place.")
    ] = "",
    tag: Annotated[str, typer.Option(help="Tag of the result; default: the image's own.")] = "",
    platform: Platform = "",
    json: Json = False,
) -> None:
    """Put an image that kfp-bento built on another base, without its bento and without a build."""
    from kfp_bento.runtime import images

    require_extra("runtime")
    elapsed = stopwatch()
    with working("rebasing the image", quiet=json) as progress:
        rebased = images.rebase_image(
            image, base, destination=to, tag=tag, platform=platform, progress=progress
        )
    if json:
        print_json(rebased.to_dict())
        return
    _print_transfers(rebased.transfers)
    print_facts(
        f"{'Rebased' if rebased.changed else 'Nothing to do, seen'} in {elapsed():.1f} s",
        {
            "image": rebased.image,
            "base": rebased.base,
            "digest": rebased.digest,
            "tag": rebased.tag,
            "location": rebased.location,
            "moved": _summary(rebased.transfers),
            "attached": f"{len(rebased.referrers)} documents" if rebased.referrers else "",
            "not attached": rebased.missing,
            "notes": "; ".join(rebased.notes),
        },
    )


def _print_transfers(transfers: Sequence[Transfer]) -> None:
    if not transfers:
        return
    table = Table(box=None, padding=(0, 2))
    for heading in ("content", "size", "", "digest"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    many = len(transfers) > _MOST_ROWS
    for items in gathered(transfers, lambda item: item.placement if many else None):
        title = foreign(shortened([item.title for item in items]))
        digest = items[0].digest[:19] if len(items) == 1 else f"{len(items)} blobs"
        size = human_bytes(sum(item.size for item in items))
        table.add_row(title, size, items[0].placement, digest)
    out.print(table)


def _summary(transfers: Sequence[Transfer]) -> str:
    from kfp_bento.runtime import images

    moved = images.placed_bytes(transfers)
    return ", ".join(f"{human_bytes(size)} {how}" for how, size in moved.items() if size)
