"""The command line as a whole: its groups, and how failures end."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, NoReturn, Optional

import typer
from typer.core import TyperGroup

from kfp_bento.runtime.cli import (
    approve,
    bento,
    bento_archives,
    bento_batch,
    bento_serve,
    bento_store,
    check,
    check_data,
    check_served,
    deploy,
    image,
    image_documents,
    image_moves,
    image_signatures,
    install,
    model,
    monitoring,
    pipelines,
    promote,
    rbac,
    release,
    requests,
    submit,
    watch,
)
from kfp_bento.runtime.cli.about import (
    Shell,
    offer_completion,
    print_beginning,
    print_completion,
    print_version,
)
from kfp_bento.runtime.cli.output import print_error
from kfp_bento.runtime.errors import KfpBentoError

FAILURE = 2
HERE, CLUSTER, STEPS, RELEASES = "On this machine", "On Kubeflow", "Step by step", "Releases"
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Application(TyperGroup):
    """A command group whose expected failures end in a sentence and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        as_json = "--json" in sys.argv
        try:
            return super().invoke(ctx)
        except KfpBentoError as error:
            print_error(error, as_json=as_json)
        except KeyboardInterrupt:
            stopped = KfpBentoError("Stopped before the end.", hint="Nothing is left running.")
            print_error(stopped, as_json=as_json)
        except OSError as error:
            if not error.errno:
                raise
            place = f" ({error.filename})" if error.filename else ""
            print_error(KfpBentoError(f"{error.strerror}{place}."), as_json=as_json)
        raise typer.Exit(FAILURE)


app = typer.Typer(
    cls=Application,
    help="From an MLflow model to a running, verified service on Kubeflow.\n\n"
    "Start with [bold]kfp-bento demo[/]: the whole road on this machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", rich_help_panel=HERE, epilog="Example: kfp-bento demo --to ./demo")(
    pipelines.demo
)
app.command(
    "run",
    rich_help_panel=HERE,
    epilog="Example: kfp-bento run serve_model -p model_uris=models:/credit@prod",
)(pipelines.run)
app.command(
    "submit",
    rich_help_panel=CLUSTER,
    epilog="Example: kfp-bento submit serve_model -p model_uris=models:/credit@candidate "
    "-p image_destination=registry.example.com/ml/credit -p promote_alias=prod "
    "-p runtime_image=registry.example.com/ml/runtime-python:0.1.0 "
    "--host https://kubeflow.example.com/pipeline -n models --follow",
)(submit.submit)
app.command(
    "follow",
    rich_help_panel=CLUSTER,
    epilog="Example: kfp-bento follow 3f0e2c51-5a0b-4d1e-9d57-0f0c2d5b8a11 "
    "--host https://kubeflow.example.com/pipeline",
)(submit.follow)
app.command(
    "watch",
    rich_help_panel=CLUSTER,
    epilog="Example: kfp-bento watch models:/credit@candidate --submit serve_model "
    "-p image_destination=registry.example.com/ml/credit -p promote_alias=prod "
    "-p runtime_image=registry.example.com/ml/runtime-python:0.1.0 "
    "--host https://kubeflow.example.com/pipeline -n models --every 60",
)(watch.watch)
app.command(
    "compile", rich_help_panel=CLUSTER, epilog="Example: kfp-bento compile --to ./compiled"
)(pipelines.compile_)
app.command(
    "install",
    rich_help_panel=CLUSTER,
    epilog="Example: kfp-bento install --registry registry.example.com/ml --namespace models "
    "--host https://kubeflow.example.com/pipeline",
)(install.install)
app.add_typer(model.app, name="model", rich_help_panel=STEPS)
bento.app.add_typer(bento_archives.app)
bento.app.add_typer(bento_batch.app)
bento.app.add_typer(bento_store.app)
bento.app.add_typer(bento_serve.app)
app.add_typer(bento.app, name="bento", rich_help_panel=STEPS)
check.app.add_typer(check_served.app)
check.app.add_typer(check_data.app)
app.add_typer(check.app, name="check", rich_help_panel=STEPS)
app.add_typer(requests.app, name="requests", rich_help_panel=STEPS)
image.app.add_typer(image_documents.app)
image.app.add_typer(image_signatures.app)
app.add_typer(image.app, name="image", rich_help_panel=STEPS)
image_moves.add_moves(image.app)
app.add_typer(deploy.app, name="deploy", rich_help_panel=STEPS)
release.app.add_typer(monitoring.app)
app.add_typer(release.app, name="release", rich_help_panel=RELEASES)
app.command(
    "promote",
    rich_help_panel=RELEASES,
    epilog="Example: kfp-bento promote models:/credit/3 --alias prod --reports reports.json",
)(promote.promote)
app.command(
    "approve",
    rich_help_panel=RELEASES,
    epilog="Example: kfp-bento approve models:/credit/7 --alias prod --why 'Looks good'",
)(approve.approve)
app.command(
    "roll-back",
    rich_help_panel=RELEASES,
    epilog="Example: kfp-bento roll-back credit -n models --alias prod",
)(release.roll_back)
app.command(
    "rbac", rich_help_panel=CLUSTER, epilog="Example: kfp-bento rbac -t workload -n models"
)(rbac.rbac)


@app.callback(invoke_without_command=True)
def about(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version, and end."
        ),
    ] = False,
    completion: Annotated[
        Optional[Shell],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="SHELL",
            callback=print_completion,
            is_eager=True,
            help="Print what completes commands and options in bash, zsh or fish, and end.",
        ),
    ] = None,
) -> None:
    """Take options that are for no command; without any command say where to begin."""
    if context.invoked_subcommand is None:
        print_beginning()


def main() -> NoReturn:
    """Run the command; a request to terminate ends it as cleanly as Ctrl-C does."""
    # Set even where SIGINT was ignored, as for a command that a shell starts in the background.
    for number in STOPPING:
        signal.signal(number, _interrupt)
    offer_completion()
    sys.exit(app())


def _interrupt(*_: object) -> NoReturn:
    for number in STOPPING:  # once is enough: a second one would cut the clean-up short
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
