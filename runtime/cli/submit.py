"""kfp-bento submit and follow: runs on Kubeflow Pipelines."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.option_values import mapping_in
from kfp_bento.runtime.cli.output import (
    Json,
    err,
    foreign,
    print_facts,
    print_json,
    steps,
    stopwatch,
    working,
)
from kfp_bento.runtime.errors import KfpBentoError

if TYPE_CHECKING:
    from kfp_bento.runtime.runs import PipelinesApi

FAILED = 1

Host = Annotated[
    str,
    typer.Option(
        help="Kubeflow Pipelines, such as https://HOST/pipeline; in a pod: the cluster's.",
        envvar="KF_PIPELINES_ENDPOINT",
    ),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of the run, where there are many users.")
]
TokenFile = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="File with the token; else KFP_BENTO_KFP_TOKEN, or the pod's own for pipelines.",
    ),
]
Ca = Annotated[
    str,
    typer.Option(metavar="FILE", help="Certificates that are trusted; default: SSL_CERT_FILE."),
]
Experiment = Annotated[str, typer.Option(help="Experiment of the run; default: the server's.")]
ServiceAccount = Annotated[
    str, typer.Option(help="Account of the steps' pods; default: the namespace's.")
]
Caching = Annotated[
    bool,
    typer.Option(
        "--enable-caching/--no-caching",
        help="Whether steps may be cached; those that act outside never are.",
    ),
]
Param = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates it
    typer.Option("--param", "-p", help="Parameter key=value; dicts and lists of several as JSON."),
]
ParamFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="YAML or JSON mapping of parameters; --param wins."),
]
Look = Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at the run.")]


def submit(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A shipped pipeline (serve_model, ...), a compiled YAML file, or module:attribute."
        ),
    ],
    param: Param = None,
    param_file: ParamFile = None,
    host: Host = "",
    namespace: Namespace = "",
    experiment: Experiment = "",
    run_name: Annotated[
        str,
        typer.Option(
            help="Name of the run; one that has it already is not submitted again. "
            "Default: the pipeline's, and the time."
        ),
    ] = "",
    service_account: ServiceAccount = "",
    caching: Caching = True,
    follow_it: Annotated[
        bool, typer.Option("--follow", help="Wait for the end, step by step; Ctrl-C leaves it.")
    ] = False,
    every: Look = 5.0,
    token_file: TokenFile = "",
    ca: Ca = "",
    json: Json = False,
) -> None:
    """Submit a pipeline to Kubeflow Pipelines, its parameters checked before anything is sent.

    With --follow the exit code is 0 where the run ended well, and 1 where it did not.
    """
    from kfp_bento.runtime import runs
    from kfp_bento.runtime.local import load_pipeline, typed_arguments

    require_extra("runtime")
    loaded = load_pipeline(pipeline)
    given = mapping_in(param_file, "--param-file") if param_file else {}
    arguments = typed_arguments(loaded, param or (), given)
    name = run_name or f"{loaded.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    server = runs.choose_server(host, namespace=namespace, ca=ca, token_file=token_file)
    submission = runs.Submission(
        loaded, experiment=experiment, service_account=service_account, caching=caching
    )
    with working("submitting", quiet=json):
        api = runs.PipelinesApi(server)
        made = runs.submit_run(api, submission, arguments, name)
    facts = {"run_id": made.run_id, "name": made.name, "url": made.url, "found": made.found}
    if follow_it:
        _follow(api, facts, every, json)
        return
    if json:
        print_json(facts)
        return
    again = _command(api, made.run_id)
    title = "It was submitted already" if made.found else "Submitted"
    print_facts(title, {"run": made.name, "id": made.run_id, "page": made.url, "follow it": again})


def follow(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The run's id.")],
    host: Host = "",
    namespace: Namespace = "",
    every: Look = 5.0,
    token_file: TokenFile = "",
    ca: Ca = "",
    json: Json = False,
) -> None:
    """Follow a run on Kubeflow Pipelines to its end, step by step; Ctrl-C leaves it going.

    The exit code is 0 where it ended well, and 1 where it did not.
    """
    from kfp_bento.runtime import runs

    require_extra("runtime")
    server = runs.choose_server(host, namespace=namespace, ca=ca, token_file=token_file)
    api = runs.PipelinesApi(server)
    name = api.state(run_id).name
    _follow(api, {"run_id": run_id, "name": name, "url": api.page(run_id)}, every, json)


def _follow(api: PipelinesApi, facts: dict[str, Any], every: float, json: bool) -> None:
    from kfp_bento.runtime import runs

    run_id, seconds, taken = str(facts["run_id"]), stopwatch(), dict[str, float]()
    if not json:
        err.print(f"[bold]Run[/]  {foreign(facts['url'])}", soft_wrap=True)
    try:
        with steps(quiet=json) as on_step:

            def note(step: Any) -> None:
                if step.seconds is not None:
                    taken[step.name] = round(step.seconds, 2)
                on_step(step)

            ended = runs.follow_run(api, run_id, every=every, on_step=note)
    except KeyboardInterrupt:
        raise KfpBentoError(
            f"The run goes on: {facts['url']}",
            hint=f"{_command(api, run_id)} follows it again.",
        ) from None
    step, message = ("", "") if ended.succeeded else ended.failure
    facts |= {"state": ended.state, "seconds": taken, "failed_step": step, "message": message}
    if json:
        print_json(facts)
    elif ended.succeeded:
        print_facts(
            "Done", {"run": ended.name, "page": facts["url"], "after": f"{seconds():.0f} s"}
        )
    else:
        where = f"step {step} failed" if step else f"it is {ended.state}"
        told = {"where": where, "message": message, "page": facts["url"]}
        print_facts(f"The run {ended.name} did not end well", told)
    if not ended.succeeded:
        raise typer.Exit(FAILED)


def _command(api: PipelinesApi, run_id: str) -> str:
    """Give the command that follows a run; a token is never part of it."""
    server = api.server
    words = ["kfp-bento", "follow", run_id, "--host", server.host]
    for option, value in (
        ("--namespace", server.namespace),
        ("--token-file", server.token_file),
        ("--ca", server.ca),
    ):
        words += [option, value] if value else []
    return shlex.join(words)
