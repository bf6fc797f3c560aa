"""kfp-bento deploy: releases out of images, on any target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import mapping_of, option_values
from kfp_bento.runtime.cli.output import Json, out, print_json, print_table, waiting, working
from kfp_bento.runtime.cli.release_facts import (
    deployed_document,
    diff_document,
    show_deployed,
    show_diff,
    stopped_before_the_verdict,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import Release

app = typer.Typer(
    help="Releases out of images: render, compare or apply them.", no_args_is_help=True
)

TARGETS = "bento-deployment, bento-request, inference-service or workload"

Image = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE",
        help="The image by digest, repository@sha256:…; the tag to build for a bento-request, "
        "nothing for a stored model.",
        show_default=False,
    ),
]
BentoDirectory = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option("--bento", help="The bento folder that the image was made of."),
]
TargetName = Annotated[str, typer.Option("--target", "-t", help=f"{TARGETS}.")]
OptionsFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--options", help="YAML or JSON file with options of the target; see deploy options."
    ),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One option: resources.limits.cpu=2, tolerations='\\[{key: gpu}]'; may be repeated.",
    ),
]
To = Annotated[Path, typer.Option("--to", help="Directory that receives the manifests.")]
Name = Annotated[str, typer.Option(help="Name of the release; default: the bento's.")]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Its namespace; default: default.")
]
Resources = Annotated[
    str, typer.Option(help="Requests and limits as a mapping: '{limits: {cpu: 1}}'.")
]
Autoscaling = Annotated[str, typer.Option(help="As a mapping: '{minReplicas: 1, maxReplicas: 3}'.")]
Env = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--env", metavar="NAME=VALUE", help="Literal variable; may be repeated."),
]
Context = Annotated[str, typer.Option(help="Context of the kubeconfig; default: the current one.")]
Force = Annotated[bool, typer.Option("--force", help="Take over fields that others own.")]
Tolerated = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--tolerate", metavar="REASON", help="A verdict that is no failure; may be repeated."
    ),
]
UnschedulableSeconds = Annotated[
    float,
    typer.Option(
        "--unschedulable-seconds",
        min=0,
        metavar="SECONDS",
        help="How long the scheduler may find no node.",
    ),
]


@app.command(
    epilog="Example: kfp-bento deploy render registry.example.com/ml/credit@sha256:... "
    "--bento ./bento --to ./manifests"
)
def render(
    image: Image = "",
    bento: BentoDirectory = None,
    target: TargetName = "bento-deployment",
    to: To = Path("manifests"),
    options: OptionsFile = None,
    set_: Settings = None,
    name: Name = "",
    namespace: Namespace = "",
    resources: Resources = "",
    autoscaling: Autoscaling = "",
    env: Env = None,
    json: Json = False,
) -> None:
    """Write the manifests of a release; touch no cluster."""
    from kfp_bento.runtime import deployments

    with working("rendering", quiet=json):
        named = _named(name, namespace, resources, autoscaling)
        release = _release(target, image, bento, options, set_, named, env)
        deployed = deployments.deploy(release, to, mode="render")
    if json:
        print_json(deployed_document(deployed) | {"directory": str(to)})
    else:
        show_deployed(deployed)


@app.command(
    epilog="Example: kfp-bento deploy diff registry.example.com/ml/credit@sha256:... "
    "--bento ./bento -n models"
)
def diff(
    image: Image = "",
    bento: BentoDirectory = None,
    target: TargetName = "bento-deployment",
    options: OptionsFile = None,
    set_: Settings = None,
    name: Name = "",
    namespace: Namespace = "",
    resources: Resources = "",
    autoscaling: Autoscaling = "",
    env: Env = None,
    context: Context = "",
    force: Force = False,
    markdown: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--markdown", help="Also write it to this file, as Markdown."),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if something would change.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what an apply would change, by a dry run of the cluster's own; change nothing."""
    from kfp_bento.runtime import deployments, reports

    with working("asking the cluster", quiet=json):
        named = _named(name, namespace, resources, autoscaling)
        release = _release(target, image, bento, options, set_, named, env)
        found = deployments.diff_release(release, context=context, force=force)
    if markdown:
        reports.write_text(reports.diff_summary(found), markdown)
    if json:
        print_json(diff_document(found))
    else:
        show_diff(found)
    if exit_code and found.changed:
        raise typer.Exit(1)


@app.command(
    epilog="Example: kfp-bento deploy apply registry.example.com/ml/credit@sha256:... "
    "--bento ./bento -n models"
)
def apply(
    image: Image = "",
    bento: BentoDirectory = None,
    target: TargetName = "bento-deployment",
    to: To = Path("manifests"),
    options: OptionsFile = None,
    set_: Settings = None,
    name: Name = "",
    namespace: Namespace = "",
    resources: Resources = "",
    autoscaling: Autoscaling = "",
    env: Env = None,
    context: Context = "",
    force: Force = False,
    wait_seconds: Annotated[
        float,
        typer.Option(
            "--wait-seconds",
            min=0,
            metavar="SECONDS",
            help="How long it may take to serve; 0: do not wait.",
        ),
    ] = 600.0,
    roll_back: Annotated[
        bool,
        typer.Option(
            "--roll-back-on-failure", help="Restore the last good release if it does not."
        ),
    ] = False,
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="Keep it as the good one once it serves, without a check."),
    ] = False,
    tolerate: Tolerated = None,
    unschedulable_seconds: UnschedulableSeconds = 30.0,
    json: Json = False,
) -> None:
    """Apply a release to the configured cluster, server-side, and wait until it serves.

    It is on trial until check release and promote, or release confirm, keep it as the good one.
    """
    from kfp_bento.runtime import deployments

    with waiting("applying", quiet=json) as progress:
        named = _named(name, namespace, resources, autoscaling)
        release = _release(target, image, bento, options, set_, named, env)
        with stopped_before_the_verdict():
            deployed = deployments.deploy(
                release,
                to,
                mode="apply",
                waiting=deployments.Waiting(
                    wait_seconds,
                    tolerated=tolerate or (),
                    unschedulable=unschedulable_seconds,
                    progress=progress,
                ),
                roll_back_on_failure=roll_back,
                confirm=confirm,
                force=force,
                context=context,
            )
    if json:
        print_json(deployed_document(deployed) | {"directory": str(to)})
    else:
        show_deployed(deployed)
        if deployed.failed:
            out.print()
    deployed.raise_if_failed()


@app.command("options", epilog="Example: kfp-bento deploy options workload")
def options_(
    target: Annotated[str, typer.Argument(help=f"{TARGETS}.")],
    json: Json = False,
) -> None:
    """List the options of a target: what --options and --set take."""
    from kfp_bento.runtime import deployments

    documented = deployments.option_docs(deployments.target_of(target).options_type)
    if json:
        print_json([one._asdict() for one in documented])
        return
    print_table(("option", "type", "default", "meaning"), documented)


def _named(name: str, namespace: str, resources: str, autoscaling: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "resources": mapping_of("--resources", resources),
        "autoscaling": mapping_of("--autoscaling", autoscaling),
    }


def _release(
    target: str,
    image: str,
    bento: Path | None,
    file: Path | None,
    settings: list[str] | None,
    named: dict[str, Any],
    variables: list[str] | None,
) -> Release:
    from kfp_bento.runtime import bentos, deployments

    require_extra("runtime")
    kind = deployments.target_of(target)
    values = option_values(
        kind.options_type,
        file=file,
        settings=settings or (),
        named=named,
        variables=variables or (),
    )
    return kind.render(image, bentos.load_bento(bento) if bento else None, values)
