"""kfp-bento demo, run and compile: whole pipelines."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import mapping_in
from kfp_bento.runtime.cli.output import (
    Json,
    err,
    foreign,
    out,
    print_facts,
    print_json,
    steps,
    stopwatch,
)
from kfp_bento.runtime.reports import human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfp_bento.runtime.local import LocalTarget, Run

Network = Annotated[
    str,
    typer.Option(
        "--network",
        help="What the served model reaches: host, or none (it needs podman or docker).",
        envvar="KFP_BENTO_LOCAL_NETWORK",
    ),
]


def demo(
    to: Annotated[Path, typer.Option("--to", help="Directory that receives everything.")] = Path(
        "build/demo"
    ),
    base: Annotated[
        str,
        typer.Option(
            help="Base image; default: python:<minor>-slim if its registry answers, else host.",
            envvar="KFP_BENTO_BASE_IMAGE",
        ),
    ] = "",
    network: Network = "host",
    json: Json = False,
) -> None:
    """Run the whole road on this machine: train, register, build, serve, check, promote."""
    from kfp_bento.runtime.local import run_demo

    require_extra("local")
    with steps(quiet=json) as on_step:
        finished = run_demo(to, base=base, network=network, on_step=on_step)
    if json:
        print_json(finished.summary)
        return
    _print_demo(finished.summary)
    directory = foreign(str(to))
    tag = foreign(finished.summary["image"]["tags"][0])
    out.print(
        f"\n  report     {directory}/report.html"
        f"\n  summary    {directory}/summary.json"
        f"\n  manifests  {directory}/manifests/\n\n[bold]Try next[/]"
    )
    for command in next_commands(directory, tag):
        out.print(f"  {command}", soft_wrap=True)


def next_commands(directory: str, tag: str) -> list[str]:
    """Give what can be done with what a demo has made, as far as the programs are here."""
    image = f"oci:{directory}/image:{tag}"
    found = {
        "xdg-open": f"xdg-open {directory}/report.html",
        "podman": f"podman run --rm --network host {image}",
        "": f"kfp-bento image sbom {image}",
        "kubectl": f"kubectl apply --server-side --dry-run=server -f {directory}/manifests/",
    }
    return [command for program, command in found.items() if not program or which(program)]


def _print_demo(summary: dict[str, Any]) -> None:
    image, release, promoted = summary["image"], summary["release"], summary["promoted"]
    prediction = summary["prediction"]
    same = "the same" if prediction["served"] == prediction["expected"] else "within tolerance"
    layers = len(image["layers"])
    size = human_bytes(sum(layer["size"] for layer in image["layers"]))
    note = release["runtime_note"]
    runtime = f"{release['runtime']} ({note})" if note else release["runtime"]
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in {
        "model": [f"{model['uri']}  {model['digest'][:19]}" for model in summary["models"]],
        "bento": summary["bento"]["tag"],
        "image": f"{image['digest'][:19]}  {size}, {layers} layers on {image['base']}",
        "release": f"{release['name']} as {runtime}",
        "checks": ", ".join(
            f"{check['name']} {'passed' if check['passed'] else 'FAILED'}"
            for check in summary["checks"]
        ),
        "served": f"{prediction['served']}",
        "registry": f"{prediction['expected']}  ({same})",
        "promoted": [
            f"{promoted['alias']} -> version {one['version']}"
            + (f" (was {one['previous']})" if one["previous"] else "")
            for one in promoted["models"]
        ],
        "time": f"{summary['seconds']['total']:.1f} s",
    }.items():
        table.add_row(name, foreign("\n".join(value) if isinstance(value, list) else value))
    out.print()
    out.print(table)


def run(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A shipped pipeline (serve_model, ...), a compiled YAML file, or module:attribute."
        ),
    ],
    param: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            "--param", "-p", help="Parameter key=value; dicts and lists of several as JSON."
        ),
    ] = None,
    param_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="YAML or JSON mapping of parameters; --param wins."),
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", help="Directory that receives the run's outputs.")
    ] = Path("build/run"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the release serving until Ctrl-C.")
    ] = False,
    network: Network = "host",
    json: Json = False,
) -> None:
    """Run a pipeline on this machine with kfp.local, its release served here."""
    from kfp_bento.runtime.local import load_pipeline, local_arguments

    require_extra("runtime")
    file = mapping_in(param_file, "--param-file") if param_file else {}
    arguments = local_arguments(load_pipeline(pipeline), param or (), file)
    run_here(pipeline, arguments, to, network=network, keep=keep, json=json)


def run_here(
    pipeline: str,
    arguments: Mapping[str, Any],
    to: Path,
    *,
    network: str,
    keep: bool,
    json: bool,
) -> None:
    """Run a pipeline on this machine, and tell what became of it.

    Args:
        pipeline: See `load_pipeline`.
        arguments: Its parameters, as `local_arguments` gives them.
        to: Directory that receives the run's outputs.
        network: What a model that is served here reaches.
        keep: Whether what is served here goes on until Ctrl-C.
        json: Whether to tell it as JSON.
    """
    from kfp_bento.runtime.local import (
        ADDRESS_VARIABLE,
        RunFailed,
        deploys,
        load_pipeline,
        local_target,
        run_pipeline,
    )

    report = to / "report.html" if deploys(load_pipeline(pipeline)) else None
    took = stopwatch()
    with local_target(to.resolve() / "service", network=network) as target:
        environment = {ADDRESS_VARIABLE: target.address}
        try:
            with steps(quiet=json) as on_step:
                finished = run_pipeline(
                    pipeline, arguments, to, environment=environment, on_step=on_step
                )
        except RunFailed as failed:
            if report is not None:
                _report(to, failed.run, target, took(), failure=failed.message)
                err.print(f"The report is in {foreign(report)}.", soft_wrap=True)
            raise
        if report is not None:
            _report(to, finished, target, took())
        _tell_run(finished, report, target, keep=keep, json=json)
        if keep and target.serving:
            _until_interrupted(target.serving.url)


def _tell_run(
    finished: Run, report: Path | None, target: LocalTarget, *, keep: bool, json: bool
) -> None:
    # It goes on only if it was kept, and until this command ends.
    going_on = [target.serving.url] if keep and target.serving else []
    facts = {
        "directory": str(finished.directory),
        "report": str(report or ""),
        "seconds": {name: round(value, 2) for name, value in finished.seconds.items()},
        "services": going_on,
    }
    if json:
        print_json(facts)
        return
    ended = "" if going_on or not target.serving else "no longer: --keep lets it go on"
    shown = {"outputs": facts["directory"], "report": facts["report"]}
    print_facts("Done", shown | {"serving": " ".join(going_on) or ended})


def _report(to: Path, run: Run, target: LocalTarget, took: float, *, failure: str = "") -> None:
    from kfp_bento.runtime.local import run_summary, write_summary

    seconds = {**run.seconds, "total": took}
    write_summary(to, run, run_summary(run, target.serving, seconds, failure=failure))


def _until_interrupted(url: str) -> None:
    import threading

    err.print(f"Serving on {url} until Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def compile_(
    pipeline: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Argument(help="Pipelines to compile; default: all that are shipped."),
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Directory for the pipelines' YAML.")] = Path(),
    components: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also compile every component into DIRECTORY/<name>/component.yaml."),
    ] = None,
    image: Annotated[
        str,
        typer.Option(help="Default of the parameter runtime_image.", envvar="KFP_BENTO_IMAGE"),
    ] = "",
    training_image: Annotated[
        str,
        typer.Option(help="Image that trainers run in.", envvar="KFP_BENTO_TRAINING_IMAGE"),
    ] = "",
    json: Json = False,
) -> None:
    """Compile pipelines to YAML for the Kubeflow Pipelines UI."""
    if image:
        os.environ["KFP_BENTO_IMAGE"] = image  # components read it when they are imported
    if training_image:
        os.environ["KFP_BENTO_TRAINING_IMAGE"] = training_image
    from kfp_bento.runtime.local import compile_components, compile_pipelines

    written = compile_pipelines(pipeline or (), to)
    if components:
        written += compile_components(components)
    if json:
        print_json([str(path) for path in written])
    else:
        none = "none yet: each run has to give runtime_image (kfp-bento install pushes one)"
        told = image or none
        print_facts("Compiled", {path.stem: path for path in written} | {"steps' image": told})
