"""kfp-bento image: OCI images out of bentos, without Docker, root or a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape
from rich.table import Table

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import (
    Json,
    err,
    foreign,
    out,
    print_facts,
    print_json,
    stopwatch,
    working,
)
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.reports import gathered, human_bytes, shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime import images
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.local import Trial

app = typer.Typer(help="OCI images out of bentos.", no_args_is_help=True)


Destination = Annotated[
    str, typer.Option("--to", help="registry/repository[:tag], oci:DIR or docker-archive:FILE.")
]
Base = Annotated[
    str,
    typer.Option(
        help="Base image: a reference, oci:DIR, docker-archive:FILE, or host (this machine).",
        envvar="KFP_BENTO_BASE_IMAGE",
    ),
]
BaseKey = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option(metavar="FILE", help="Public key in PEM: refuse a base that it did not sign."),
]
ImagePlatform = Annotated[
    str, typer.Option(help="linux/amd64 or linux/arm64; this machine's by default.")
]
ImagePlatforms = Annotated[
    str,
    typer.Option(
        help="linux/amd64 or linux/arm64; with a comma between, one index of both; this machine's "
        "by default."
    ),
]
Cache = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option(help="Directory that keeps layers for the next build.", envvar="KFP_BENTO_CACHE"),
]
CacheRepository = Annotated[
    str,
    typer.Option(
        help="Repository of the same registry through which images share layers.",
        envvar="KFP_BENTO_CACHE_REPOSITORY",
    ),
]
SystemPackage = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates it
    typer.Option(
        metavar="NAME",
        help="A Debian package to add to the base, name or name=version; may be repeated.",
    ),
]
Compression = Annotated[str, typer.Option(help="zstd, gzip or none.")]


@app.command(
    epilog="Example: kfp-bento image build ./bento --to registry.example.com/ml/credit --base host"
)
def build(
    bento_directory: Annotated[Path, typer.Argument(metavar="BENTO_DIR", help="A bento folder.")],
    to: Destination,
    base: Base = "",
    base_key: BaseKey = None,
    platform: ImagePlatforms = "",
    cache: Cache = None,
    cache_repository: CacheRepository = "",
    system_package: SystemPackage = None,
    compression: Compression = "zstd",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be made and sent, and stop.")
    ] = False,
    try_it: Annotated[
        bool,
        typer.Option("--try", help="Start the image once, where podman or docker is usable."),
    ] = False,
    model_only: Annotated[
        bool,
        typer.Option("--model-only", help="Only a model's files, for KServe's oci:// addresses."),
    ] = False,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="With --model-only: which one, of several.")
    ] = "",
    json: Json = False,
) -> None:
    """Assemble an image and write it to a registry, an OCI layout or a docker archive."""
    from kfp_bento.runtime import bentos, images

    require_extra("runtime")
    _check_together(dry_run=dry_run, try_it=try_it, model_only=model_only, model=model)
    elapsed = stopwatch()
    options = _options(
        base, base_key, platform, cache, cache_repository, system_package, compression
    )
    task = "planning the image" if dry_run else "assembling the image"
    with working(task, quiet=json) as progress:
        bento = bentos.load_bento(bento_directory, deferred=True)
        made: images.Image | images.ImagePlan
        if model_only:
            made = images.build_model_image(bento, to, options, model=model, progress=progress)
        else:
            carry_out = images.plan_image if dry_run else images.build_image
            made = carry_out(bento, to, options, progress=progress)
        seconds = elapsed()
        tried = _tried(made, bento, progress) if try_it else None
    if bento.note:
        err.print(escape(bento.note))
    if json:
        print_json({**made.to_dict(), **({"trial": tried.to_dict()} if tried else {})})
    elif isinstance(made, images.ImagePlan):
        _show_plan(made)
    else:
        _show_image(made, seconds, **({"trial": str(tried)} if tried else {}))


def _check_together(*, dry_run: bool, try_it: bool, model_only: bool, model: str) -> None:
    """Refuse options of a build of which one says what another takes back."""
    if dry_run and try_it:
        raise InvalidInput(
            "--dry-run makes no image that --try could start.", hint="Leave one of them out."
        )
    if model_only and (dry_run or try_it):
        raise InvalidInput(
            "--model-only makes files, which neither --dry-run nor --try knows.",
            hint="Leave one of them out.",
        )
    if model and not model_only:
        raise InvalidInput(
            "--model says which model --model-only takes; an image of a bento has all.",
            hint="Add --model-only, or leave --model out.",
        )


def _options(
    base: str,
    base_key: Path | None,
    platform: str,
    cache: Path | None,
    cache_repository: str,
    system_package: list[str] | None,
    compression: str,
) -> images.ImageOptions:
    from kfp_bento.runtime import images

    return images.ImageOptions(
        base=base,
        platform=platform,
        cache=cache,
        cache_repository=cache_repository,
        system_packages=tuple(system_package or ()),
        base_key=images.read_public_keys(base_key) if base_key else "",
        compression=compression,
    )


def _tried(
    made: images.Image | images.ImagePlan, bento: Bento, progress: Callable[[str], None]
) -> Trial | None:
    from kfp_bento.runtime.images import Image
    from kfp_bento.runtime.local import try_image

    return try_image(made, bento, progress=progress) if isinstance(made, Image) else None


@app.command(
    epilog="Example: kfp-bento image pack requirements.txt --name tools --version 1.0 "
    "--to oci:./image"
)
def pack(
    requirements: Annotated[
        Path, typer.Argument(metavar="LOCK", help="Requirements, each with a hash.")
    ],
    to: Destination,
    name: Annotated[str, typer.Option(help="What the image is called.")],
    version: Annotated[str, typer.Option(help="Its version, and its tag if --to has none.")],
    wheel: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer evaluates it
        typer.Option(help="A wheel of your own, in a layer on top; may be repeated."),
    ] = None,
    build_wheel: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="NAME",
            help="A locked distribution without a wheel: run its build code here; may be repeated.",
        ),
    ] = None,
    python: Annotated[str, typer.Option(help="Minor version of Python.")] = "",
    base: Base = "",
    base_key: BaseKey = None,
    platform: ImagePlatform = "",
    cache: Cache = None,
    cache_repository: CacheRepository = "",
    system_package: SystemPackage = None,
    compression: Compression = "zstd",
    json: Json = False,
) -> None:
    """Assemble an image of a locked Python environment, for the steps of pipelines."""
    import sys

    from kfp_bento.runtime import images

    require_extra("runtime")
    elapsed = stopwatch()
    options = _options(
        base, base_key, platform, cache, cache_repository, system_package, compression
    )
    with working("assembling the image", quiet=json) as progress:
        image = images.pack_image(
            requirements,
            to,
            options,
            name=name,
            version=version,
            python=python or f"{sys.version_info.major}.{sys.version_info.minor}",
            wheels=wheel or (),
            built_here=build_wheel or (),
            progress=progress,
        )
    if json:
        print_json(image.to_dict())
    else:
        _show_image(image, elapsed())


# What became of a layer, in words that fit a directory or a file.
_LOCAL = {"present": "there", "mounted": "linked", "sent": "written"}


def _show_image(image: images.Image, seconds: float, **more: str) -> None:
    remote = image.location.startswith("docker://")
    for part in image.parts or (image,):
        if image.parts:
            out.print(f"{part.platform}: {part.digest}")
        _show_layers(part, remote=remote)
    sent = sum(layer.size for layer in image.layers if layer.placement == "sent")
    print_facts(
        f"{'Already there, seen' if image.reused else 'Built'} in {seconds:.1f} s",
        {
            "image": image.reference,
            **({"platforms": image.platform} if image.parts else {}),
            "base": image.base,
            "size": f"{human_bytes(image.size)}, {human_bytes(sent)} of it "
            + ("sent" if remote else "written"),
            "location": image.location,
            **more,
            **({"base signed by": image.base_signed_by} if image.base_signed_by else {}),
            **({"signed by": image.signed_by} if image.signed_by else {}),
            **({"notes": "; ".join(image.notes)} if image.notes else {}),
        },
    )


def _show_layers(image: images.Image, *, remote: bool) -> None:
    table = Table(box=None, padding=(0, 2))
    for heading in ("layer", "content", "size", "", "", "digest"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for layers in gathered(image.layers, _fate):
        layer = layers[0]
        origin = "" if layer.kind == "base" else layer.origin
        if layer.unverified:
            origin += ", on the registry's word"
        placement = layer.placement if remote else _LOCAL.get(layer.placement, "")
        digest = layer.digest[:19] if len(layers) == 1 else f"{len(layers)} layers"
        table.add_row(*_named(layers), _bytes(layers), origin, placement, digest)
    out.print(table)


def _fate(layer: images.Layer) -> object:
    """Give what layers of dependencies must share to stand in one line; None for all others."""
    fate = (layer.origin, layer.placement, layer.unverified)
    return fate if layer.kind == "dependencies" else None


def _planned_fate(layer: images.PlannedLayer) -> object:
    return (layer.action, layer.unverified) if layer.kind == "dependencies" else None


def _named(layers: Sequence[images.Layer | images.PlannedLayer]) -> tuple[str, str]:
    return layers[0].kind, foreign(shortened([layer.title for layer in layers]))


def _bytes(layers: Sequence[images.Layer | images.PlannedLayer]) -> str:
    return human_bytes(sum(layer.size for layer in layers))


def _show_plan(plan: images.ImagePlan) -> None:
    table = Table(box=None, padding=(0, 2))
    for heading in ("layer", "content", "what happens", "size", "key"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for layers in gathered(plan.layers, _planned_fate):
        layer = layers[0]
        about = "" if all(one.exact for one in layers) else "about "
        key = layer.key.removeprefix("sha256:")[:12] if len(layers) == 1 else f"{len(layers)} keys"
        action = layer.action + (", on the registry's word" if layer.unverified else "")
        table.add_row(*_named(layers), action, about + _bytes(layers), key)
    out.print(table)
    # Bytecode comes to what wheels hold, and compression takes from it.
    about = "at most" if all(layer.exact for layer in plan.layers) else "about"
    outcome = f"{about} {human_bytes(plan.bytes_to_send)}"
    print_facts(
        "Nothing to do: the image is there" if plan.unchanged else "Would be built and sent",
        {
            "destination": plan.destination,
            "base": plan.base,
            **({"image": plan.unchanged} if plan.unchanged else {"to send": outcome}),
            **({"notes": "; ".join(plan.notes)} if plan.notes else {}),
        },
    )
