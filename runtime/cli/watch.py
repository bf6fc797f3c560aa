"""kfp-bento watch: a pipeline is submitted when an alias moves."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.model import TrackingUri
from kfp_bento.runtime.cli.option_values import mapping_in
from kfp_bento.runtime.cli.output import Json, print_facts, print_json
from kfp_bento.runtime.cli.submit import (
    FAILED,
    Ca,
    Caching,
    Experiment,
    Host,
    Namespace,
    Param,
    ParamFile,
    ServiceAccount,
    TokenFile,
)
from kfp_bento.runtime.errors import InvalidInput, plain_text

if TYPE_CHECKING:
    from kfp_bento.runtime.runs import Trigger, Watch

_SECRET = 4096


def watch(
    models: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Argument(metavar="MODEL@ALIAS...", help="What is watched: models:/NAME@ALIAS."),
    ] = None,
    pipeline: Annotated[
        str, typer.Option("--submit", metavar="PIPELINE", help="What is submitted, as submit says.")
    ] = "serve_model",
    tagged: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KEY=VALUE", help="Watch all registered models with this tag."),
    ] = None,
    alias: Annotated[str, typer.Option(help="The alias of those models.")] = "",
    param: Param = None,
    param_file: ParamFile = None,
    model_parameter: Annotated[
        str, typer.Option(help="The parameter that gets the version's URI.")
    ] = "model_uris",
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 60.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, and end: 1 where something failed.")
    ] = False,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Take MLflow's signed webhooks there, too.")
    ] = "",
    webhook_secret_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="What they are signed with; KFP_BENTO_WEBHOOK_SECRET."),
    ] = None,
    render: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Write a Deployment that does this, and do nothing."),
    ] = None,
    image: Annotated[
        str, typer.Option(help="Image of that Deployment and of steps.", envvar="KFP_BENTO_IMAGE")
    ] = "",
    host: Host = "",
    namespace: Namespace = "",
    experiment: Experiment = "",
    service_account: ServiceAccount = "",
    caching: Caching = True,
    tracking_uri: TrackingUri = "",
    token_file: TokenFile = "",
    ca: Ca = "",
    json: Json = False,
) -> None:
    """Submit a pipeline when an alias moves: once for each version, whatever restarts.

    What was submitted stands in the registry, as a tag of the version.
    """
    from kfp_bento.runtime import runs

    require_extra("runtime")
    watched = runs.read_watched(models or (), tagged or (), alias)
    given = mapping_in(param_file, "--param-file") if param_file else {}
    submission = (experiment, service_account, caching)
    given = {**_steps_image(pipeline, image), **given}
    trigger = _trigger(watched, pipeline, param or (), given, model_parameter, submission)
    if render is not None:
        chosen = {
            "--host": host or runs.IN_CLUSTER,
            "--namespace": namespace,
            "--experiment": experiment,
        }
        chosen |= {"--service-account": service_account, "--tracking-uri": tracking_uri}
        chosen |= {"--alias": alias, "--submit": pipeline, "--model-parameter": model_parameter}
        words = _words(chosen, models or (), tagged or (), trigger, every, listen)
        words += [] if caching else ["--no-caching"]
        _render(render, words, image, namespace, listen, json)
        return
    _require_runnable(trigger)
    server = runs.choose_server(host, namespace=namespace, ca=ca, token_file=token_file)
    made = runs.Watch(trigger, runs.Registry(tracking_uri), server, tell=_teller(json))
    if once:
        if made.look():
            raise typer.Exit(FAILED)
        return
    with _until_told(made), _listening(made, listen, webhook_secret_file):
        made.tell({"event": "watching", "what": " ".join([*(models or ()), *(tagged or ())])})
        made.run(every)
    made.tell({"event": "stopped"})


def _trigger(
    watched: Sequence[Any],
    pipeline: str,
    given: Sequence[str],
    file: Mapping[str, Any],
    model_parameter: str,
    submission: tuple[str, str, bool],
) -> Trigger:
    from kfp_bento.runtime import runs
    from kfp_bento.runtime.local import load_pipeline, typed_arguments

    loaded = load_pipeline(pipeline)
    kinds = {key: str(one.type) for key, one in (loaded.component_spec.inputs or {}).items()}
    if kinds.get(model_parameter) not in ("List", "String"):
        raise InvalidInput(
            f"{loaded.name} has no parameter {model_parameter} that takes a model.",
            hint="Name the one that does: --model-parameter.",
        )
    as_list = kinds[model_parameter] == "List"
    example: Any = ["models:/name/1"] if as_list else "models:/name/1"
    if model_parameter in file or any(one.startswith(f"{model_parameter}=") for one in given):
        raise InvalidInput(f"{model_parameter} is what the watch fills in.", hint="Leave it out.")
    arguments = typed_arguments(loaded, given, {**file, model_parameter: example})
    del arguments[model_parameter]
    experiment, account, caching = submission
    made = runs.Submission(loaded, experiment, account, caching)
    return runs.Trigger(watched, loaded.name, made, arguments, model_parameter, as_list)


def _steps_image(pipeline: str, image: str) -> dict[str, str]:
    """Give the parameter of a shipped pipeline that says in which image its steps run."""
    from kfp_bento.runtime.local import load_pipeline, values_here

    return dict.fromkeys(values_here(load_pipeline(pipeline)), image) if image else {}


def _require_runnable(trigger: Trigger) -> None:
    """Find out before the first alias moves whether the pipeline can run on a cluster."""
    from kfp_bento.runtime import runs

    with TemporaryDirectory(prefix="kfp-bento-watch-") as scratch:
        runs.make_package(trigger.submission.pipeline, Path(scratch) / "pipeline.yaml")


def _teller(as_json: bool) -> Callable[[Mapping[str, str]], None]:
    """Give what prints an event as one line, at once."""

    def tell(event: Mapping[str, str]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        shown = {key: " ".join(plain_text(value).split()) for key, value in event.items() if value}
        if as_json:
            typer.echo(json_module.dumps({"at": now, **shown}))
            return
        name = shown.pop("event")
        told = " ".join(f"{key}={json_module.dumps(value)}" for key, value in shown.items())
        typer.echo(f"{now} {name:<9} {told}".rstrip())

    return tell


@contextlib.contextmanager
def _until_told(made: Watch) -> Iterator[None]:
    """End cleanly when asked to: what is being submitted is finished and noted first."""
    before = {
        number: signal.signal(number, lambda *_: made.stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _listening(made: Watch, address: str, secret_file: Path | None) -> Iterator[None]:
    from kfp_bento.runtime import runs

    if not address:
        yield
        return
    secret = os.environ.get(runs.SECRET, "")
    if secret_file is not None:
        with secret_file.open("rb") as file:
            secret = file.read(_SECRET).decode("utf-8", "replace").strip()
    bell = runs.Bell(runs.require_secret(secret), made.wake.set)
    refused = runs.seldom(lambda why: made.tell({"event": "refused", "message": why}))
    with runs.listening(address, bell, refused=refused) as place:
        made.tell({"event": "listening", "what": place})
        yield


def _words(
    chosen: Mapping[str, str],
    models: Sequence[str],
    tagged: Sequence[str],
    trigger: Trigger,
    every: float,
    listen: str,
) -> list[str]:
    """Give the command that a Deployment runs; its arguments with their types settled."""
    words = ["watch", *models]
    for option, value in chosen.items():
        words += [option, value] if value else []
    for one in tagged:
        words += ["--tagged", one]
    for key, value in trigger.arguments.items():
        text = value if isinstance(value, str) else json_module.dumps(value)
        words += ["-p", f"{key}={text}"]
    words += ["--every", f"{every:g}", *(["--listen", listen] if listen else []), "--json"]
    return words


def _render(
    folder: Path, command: Sequence[str], image: str, namespace: str, listen: str, json: bool
) -> None:
    import yaml

    from kfp_bento.runtime import runs

    if not image or not namespace:
        raise InvalidInput(
            f"--render: {'--image' if not image else '--namespace'} is missing.",
            hint="--image is that of the steps (kfp-bento install), --namespace where it runs.",
        )
    if listen:
        runs.read_address(listen)
    pod = runs.WatchPod("kfp-bento-watch", namespace, image, command, listen)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, manifest in runs.watch_manifests(pod).items():
        written.append(str(folder / name))
        (folder / name).write_text(yaml.safe_dump(manifest, sort_keys=False))
    if json:
        print_json(written)
    else:
        print_facts("Written", {"manifests": "\n".join(written)})
