"""kfp-bento install: what a cluster needs before its first run, in one go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.about import COMMAND
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import Json, err, foreign, print_facts, print_json, working
from kfp_bento.runtime.cli.submit import Ca, TokenFile
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.images import Image
    from kfp_bento.runtime.runs import PipelinesApi

DEFAULT_TARGET = "workload"

Tell = Callable[[str], None]


def install(
    registry: Annotated[
        str,
        typer.Option(help="Where the cluster pulls images from: registry.example.com/ml."),
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Where pipelines run and releases are served.")
    ],
    target: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            "--target", "-t", help=f"What releases become; default: {DEFAULT_TARGET}; repeatable."
        ),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Push the image of the ready-made trainers, too.")
    ] = False,
    base: Annotated[
        str,
        typer.Option(
            help="Base of the images; default: python:<minor>-slim of Docker Hub.",
            envvar="KFP_BENTO_BASE_IMAGE",
        ),
    ] = "",
    host: Annotated[
        str,
        typer.Option(
            help="Kubeflow Pipelines, such as https://HOST/pipeline; it gets the pipelines.",
            envvar="KF_PIPELINES_ENDPOINT",
        ),
    ] = "",
    to: Annotated[
        Path, typer.Option("--to", help="Directory for the compiled pipelines and the Role.")
    ] = Path("kfp-bento-installed"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; print the Role; stop.")
    ] = False,
    token_file: TokenFile = "",
    ca: Ca = "",
    json: Json = False,
) -> None:
    """Push the image of the steps, compile the pipelines for it, write the Role, upload all.

    Asked again it does again only what is not there. Nothing in the cluster is changed but
    Kubeflow's list of pipelines; the Role is for whoever may grant it.
    """
    require_extra("runtime")
    from kfp_bento.runtime import runs
    from kfp_bento.runtime.installation import python_version

    extras = ["runtime", *(["training"] if training else [])]
    places, role = _destinations(registry, extras), _role(target or [DEFAULT_TARGET], namespace)
    base = base or f"docker.io/library/python:{python_version()}-slim"
    api = None
    if host:
        server = runs.choose_server(host, namespace=namespace, ca=ca, token_file=token_file)
        with working("looking for Kubeflow Pipelines", quiet=json):
            api = runs.PipelinesApi(server)
    if dry_run:
        _tell_plan(places, base, role, {"pipelines": str(to), "upload": host}, json=json)
        return
    with working("making the image of the steps", quiet=json) as tell:
        pushed = _push(places, base, tell)
        images = {extra: image.reference for extra, image in pushed.items()}
        to.mkdir(parents=True, exist_ok=True)
        (to / "role.yaml").write_text(role)
        tell("compiling the pipelines")
        packages = _compile(images, to)
        pages = _upload(api, packages, tell) if api else {}
    written = {path.stem: str(path) for path in packages}
    where = {"role": str(to / "role.yaml"), "target": (target or [DEFAULT_TARGET])[0]}
    _tell(images, where, pages or written, uploaded=bool(pages), json=json)
    for note in dict.fromkeys(note for image in pushed.values() for note in image.notes):
        err.print(escape(note))


def _destinations(registry: str, extras: Sequence[str]) -> dict[str, str]:
    from kfp_bento.runtime.installation import STEPS_IMAGES

    if registry.startswith(("oci:", "docker-archive:")) or "://" in registry:
        raise InvalidInput(
            f"--registry: {registry} is no registry that a cluster pulls from.",
            hint="Give a registry and a path in it, such as registry.example.com/ml.",
        )
    return {extra: STEPS_IMAGES[extra].destination(registry) for extra in extras}


def _role(targets: Sequence[str], namespace: str) -> str:
    import yaml

    from kfp_bento.runtime import deployments

    objects = [
        one
        for name in dict.fromkeys(targets)
        for one in deployments.access_manifests(name, namespace)
    ]
    return yaml.safe_dump_all(objects, sort_keys=False)


def _push(places: dict[str, str], base: str, tell: Tell) -> dict[str, Image]:
    from kfp_bento.runtime.images import ImageOptions
    from kfp_bento.runtime.installation import STEPS_IMAGES, pack_steps_image

    options = ImageOptions(base=base)
    return {
        extra: pack_steps_image(STEPS_IMAGES[extra], place, options, progress=tell)
        for extra, place in places.items()
    }


def _compile(images: dict[str, str], to: Path) -> list[Path]:
    from kfp_bento.runtime.installation import STEPS_IMAGES
    from kfp_bento.runtime.local import compile_pipelines

    for extra, image in images.items():  # components read it when they are imported
        os.environ[STEPS_IMAGES[extra].variable] = image
    return compile_pipelines((), to)


def _upload(api: PipelinesApi, packages: Sequence[Path], tell: Tell) -> dict[str, str]:
    """Upload pipelines; a version is named by what is in it."""
    from kfp_bento.runtime.files import file_sha256

    pages = {}
    for package in packages:
        name = package.stem.replace("_", "-")
        tell(f"uploading {name}")
        content = file_sha256(package)[:12]
        pages[name], _ = api.upload(package, name, f"{version(COMMAND)}-{content}")
    return pages


def _tell_plan(
    places: Mapping[str, str], base: str, role: str, facts: Mapping[str, str], *, json: bool
) -> None:
    if json:
        print_json({"images": places, "base": base, "role": role, **facts})
        return
    shown = {f"{extra} image": place for extra, place in places.items()}
    err.print("Nothing was made or sent. The Role, for kubectl apply -f -, is on standard output.")
    typer.echo(role, nl=False)
    for name, value in {**shown, "base": base, **facts}.items():
        err.print(f"  [bold]{name:<14}[/] {foreign(value or 'no --host: not uploaded')}")


def _tell(
    images: Mapping[str, str],
    where: Mapping[str, str],
    pipelines: Mapping[str, str],
    *,
    uploaded: bool,
    json: bool,
) -> None:
    if json:
        print_json({"images": images, **where, "pipelines": pipelines, "uploaded": uploaded})
        return
    shown = {f"{extra} image": reference for extra, reference in images.items()}
    print_facts("Installed" if uploaded else "Ready to upload", {**shown, **pipelines})
    print_facts("Next", _next(**where, uploaded=uploaded))


def _next(role: str, target: str, *, uploaded: bool) -> dict[str, str]:
    first = {
        "rights": f"kubectl apply -f {role}",
        "Secrets": "docs/kubeflow.md has the two that a first run wants",
    }
    if uploaded:
        told = f"open the page of serve-model; say deploy_target={target} beside what it asks for"
        return first | {"a run": told}
    return first | {"pipelines": "upload the files in Kubeflow's UI, or ask again with --host"}
