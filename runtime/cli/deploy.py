"""kfp-bento deploy: releases out of images."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..errors import InvalidInput
from .extras import require_extra
from .output import Json, print_facts, print_json, working

app = typer.Typer(help="Releases out of images: render or apply.", no_args_is_help=True)

Image = Annotated[str, typer.Argument(help="The image by digest, repository@sha256:…")]
BentoDirectory = Annotated[
    Path, typer.Option("--bento", help="The bento folder that the image was made of.")
]
To = Annotated[Path, typer.Option("--to", help="Directory that receives the manifests.")]
Name = Annotated[str, typer.Option(help="Name of the BentoDeployment; default: the bento's.")]
Namespace = Annotated[str, typer.Option(help="Namespace of both resources.")]
Resources = Annotated[
    str, typer.Option(help='Requests and limits as JSON: {"limits": {"cpu": "1"}}.')
]
Autoscaling = Annotated[str, typer.Option(help='As JSON: {"minReplicas": 1, "maxReplicas": 3}.')]
Env = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates it
    typer.Option("--env", help="Literal variable NAME=VALUE; may be repeated."),
]


@app.command()
def render(
    image: Image,
    bento: BentoDirectory,
    to: To = Path("manifests"),
    name: Name = "",
    namespace: Namespace = "default",
    resources: Resources = "{}",
    autoscaling: Autoscaling = "{}",
    env: Env = None,
    json: Json = False,
) -> None:
    """Write the Bento and BentoDeployment manifests; touch no cluster."""
    options = _options(name, namespace, resources, autoscaling, env)
    _deploy(image, bento, to, "render", options, json)


@app.command()
def apply(
    image: Image,
    bento: BentoDirectory,
    to: To = Path("manifests"),
    name: Name = "",
    namespace: Namespace = "default",
    resources: Resources = "{}",
    autoscaling: Autoscaling = "{}",
    env: Env = None,
    json: Json = False,
) -> None:
    """Write the manifests and apply them to the configured cluster, server-side."""
    options = _options(name, namespace, resources, autoscaling, env)
    _deploy(image, bento, to, "apply", options, json)


def _options(
    name: str, namespace: str, resources: str, autoscaling: str, env: list[str] | None
) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "resources": _json_object("--resources", resources),
        "autoscaling": _json_object("--autoscaling", autoscaling),
        "envs": [_variable(text) for text in env or ()],
    }


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        value = jsonlib.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{option} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{option} must be a JSON object, not {text}.")
    return value


def _variable(text: str) -> dict[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise InvalidInput(f"--env {text} is not NAME=VALUE.")
    return {"name": name, "value": value}


def _deploy(
    image: str, bento: Path, to: Path, mode: str, options: dict[str, Any], as_json: bool
) -> None:
    from .. import bentos, deployments

    require_extra("runtime")
    with working(f"{mode} {image}", quiet=as_json):
        release = deployments.deploy_bento(
            image, bentos.load_bento(bento), to, mode=mode, **options
        )
    if as_json:
        print_json(release.to_dict() | {"directory": str(to)})
        return
    print_facts(
        f"{release.mode.capitalize()} {release.name}",
        {
            "namespace": release.namespace,
            "revision": release.revision,
            "image": release.image,
            "URL": release.url,
            "manifests": ", ".join(str(path) for path in sorted(to.glob("*.yaml"))),
        },
    )
