"""kfp-bento release: what runs on a cluster, looked at, rolled back, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kfp_bento.runtime.cli.deploy import Context, Force, Tolerated, UnschedulableSeconds
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.model import TrackingUri
from kfp_bento.runtime.cli.output import (
    Json,
    Yes,
    err,
    foreign,
    out,
    print_facts,
    print_json,
    print_table,
    require_confirmable,
    waiting,
    working,
)
from kfp_bento.runtime.cli.output import confirm as ask
from kfp_bento.runtime.cli.release_facts import (
    check_place,
    diff_document,
    names,
    rollout_document,
    rollout_facts,
    short_digest,
    show_applied,
    show_diff,
    status_facts,
    stopped_before_the_verdict,
    verdict_document,
)
from kfp_bento.runtime.cli.release_make import Releases, make

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import Rollout

app = typer.Typer(
    cls=Releases,
    help="Releases: make one of a model, look at them, go back, delete.",
    no_args_is_help=True,
)
app.command(
    "make",
    epilog="Example: kfp-bento release make models:/credit@candidate "
    "--to registry.example.com/ml/credit --target workload -n models --promote prod",
)(make)

Name = Annotated[str, typer.Argument(help="Name of the release.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")]
TargetName = Annotated[
    str, typer.Option("--target", "-t", help="Its kind of target; default: found by the name.")
]
WaitSeconds = Annotated[
    float, typer.Option("--wait-seconds", min=0, metavar="SECONDS", help="How long it may take.")
]


@app.command("list", epilog="Example: kfp-bento release list -n models")
def list_(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where to look.")] = "default",
    context: Context = "",
    json: Json = False,
) -> None:
    """List the releases of a namespace."""
    from kfp_bento.runtime import deployments

    require_extra("runtime")
    check_place(namespace)
    with working("asking the cluster", quiet=json):
        found = deployments.list_releases(namespace, context=context)
    if json:
        print_json([one.to_dict() for one in found])
    elif found:
        headings = ("name", "target", "ready", "on trial", "image", "revision", "last good")
        rows = [
            (
                one.name,
                one.target,
                "yes" if one.ready else "no",
                "yes" if one.on_trial else "no",
                short_digest(one.image),
                one.revision,
                one.last_good,
            )
            for one in found
        ]
        print_table(headings, rows)
    else:
        err.print(f"Namespace {namespace} has no releases.")


@app.command(epilog="Example: kfp-bento release status credit -n models")
def status(
    name: Name,
    namespace: Namespace = "default",
    target: TargetName = "",
    context: Context = "",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if it does not serve.")
    ] = False,
    json: Json = False,
) -> None:
    """Say how a release stands right now."""
    from kfp_bento.runtime import deployments

    with working("asking the cluster", quiet=json):
        target = _target(name, target, namespace, context)
        found = deployments.release_status(
            name, target=target, namespace=namespace, context=context
        )
    if json:
        print_json(found.to_dict())
    else:
        state = "serves" if found.ready else "does not serve" if found.exists else "is not there"
        print_facts(f"{name} {state}", status_facts(found))
    if exit_code and not found.ready:
        raise typer.Exit(1)


@app.command(epilog="Example: kfp-bento release wait credit -n models --wait-seconds 300")
def wait(
    name: Name,
    namespace: Namespace = "default",
    target: TargetName = "",
    wait_seconds: WaitSeconds = 600.0,
    tolerate: Tolerated = None,
    unschedulable_seconds: UnschedulableSeconds = 30.0,
    context: Context = "",
    json: Json = False,
) -> None:
    """Wait until a release serves; fail as soon as it is known that it will not."""
    from kfp_bento.runtime import deployments

    with waiting("asking the cluster", quiet=json) as progress:
        target = _target(name, target, namespace, context)
        verdict = deployments.wait_for_release(
            name,
            target=target,
            namespace=namespace,
            waiting=deployments.Waiting(
                wait_seconds,
                tolerated=tolerate or (),
                unschedulable=unschedulable_seconds,
                progress=progress,
            ),
            context=context,
        )
    if json:
        facts = {"name": name, "namespace": namespace, "target": target}
        print_json(facts | verdict_document(verdict))
    elif verdict.ready:
        print_facts(f"{name} serves", {"verdict": verdict.message})
    if not verdict.ready:
        raise verdict.error(name, hint="kfp-bento release roll-back goes to the last good one.")


@app.command(epilog="Example: kfp-bento release confirm credit -n models")
def confirm(
    name: Name,
    namespace: Namespace = "default",
    target: TargetName = "",
    context: Context = "",
    json: Json = False,
) -> None:
    """Keep a release on trial as the good one, on your own word: a roll back goes to it."""
    from kfp_bento.runtime import deployments

    with working("asking the cluster", quiet=json):
        target = _target(name, target, namespace, context)
        found = deployments.release_facts(name, target=target, namespace=namespace, context=context)
        settled = deployments.confirm_release(found)
    if json:
        print_json(found.to_dict() | {"outcome": settled.outcome})
    else:
        print_facts(f"{name} is good", {"now": settled.message, "image": found.image})


@app.command("roll-back", epilog="Example: kfp-bento release roll-back credit -n models")
def roll_back(
    name: Name,
    namespace: Namespace = "default",
    target: TargetName = "",
    leaving_image: Annotated[
        str,
        typer.Option(metavar="IMAGE", help="Only if this image is the one applied, by its digest."),
    ] = "",
    to: Annotated[
        str,
        typer.Option(
            "--to-revision", metavar="REVISION", help="A good one on record, see release status."
        ),
    ] = "",
    alias: Annotated[
        str, typer.Option(help="Registry alias of its models that follows, such as prod.")
    ] = "",
    tracking_uri: TrackingUri = "",
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
    wait_seconds: WaitSeconds = 600.0,
    force: Force = False,
    tolerate: Tolerated = None,
    unschedulable_seconds: UnschedulableSeconds = 30.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what it would change.")
    ] = False,
    context: Context = "",
    json: Json = False,
) -> None:
    """Go back to the last good release, from a good one to the one before; an alias follows.

    What changes is printed first. Of what is on record nothing is applied that kfp-bento would
    not have rendered for this release.
    """
    from kfp_bento.runtime import deployments, promotion

    with waiting("asking the cluster", quiet=json) as progress:
        target = _target(name, target, namespace, context)
        with stopped_before_the_verdict():
            back = promotion.roll_back_release(
                name,
                target=target,
                namespace=namespace,
                alias=alias,
                tracking_uri=tracking_uri,
                why=why,
                leaving=leaving_image,
                to=to,
                waiting=deployments.Waiting(
                    wait_seconds,
                    tolerated=tolerate or (),
                    unschedulable=unschedulable_seconds,
                    progress=progress,
                ),
                context=context,
                force=force,
                before=None if json else show_diff,
                dry_run=dry_run,
            )
    rollout = back.rollout
    left = (rollout.left.revision, rollout.left.image) if rollout.left else ("", "")
    if json:
        print_json(
            {
                "diff": diff_document(rollout.diff) if rollout.diff else None,
                "name": name,
                "namespace": namespace,
                "target": target,
                "from": {"revision": left[0], "image": left[1]},
                "to": {"revision": rollout.revision, "image": rollout.image},
                **rollout_document(rollout),
                "alias": alias,
                "models": [vars(model) for model in back.models],
            }
        )
    elif not dry_run:
        _show_way(name, left, rollout)
    if alias and not json:
        would = "would be" if dry_run else "is"
        for model in back.models:
            was = f" (was {model.previous or 'none'})" if model.changed else ""
            out.print(f"{alias} of {foreign(model.name)} {would} on version {model.version}{was}")
    if not dry_run:
        rollout.raise_if_failed(name)


def _show_way(name: str, left: tuple[str, str], rollout: Rollout) -> None:
    came = (rollout.revision, rollout.image)
    title = f"{name} went back"
    if left == came:
        title = f"{name} was " + ("restored" if rollout.changed else "left as it is")
    if rollout.changed:
        show_applied(rollout.applied)
    way = {"from": _place(*left), "to": _place(*came)}
    print_facts(title, ({"at": _place(*came)} if left == came else way) | rollout_facts(rollout))


def _place(revision: str, image: str) -> str:
    return f"revision {revision or 'unknown'}\n{image}".rstrip()


@app.command(epilog="Example: kfp-bento release delete credit -n models")
def delete(
    name: Name,
    namespace: Namespace = "default",
    target: TargetName = "",
    wait_seconds: Annotated[
        float,
        typer.Option(
            "--wait-seconds", min=0, metavar="SECONDS", help="How long its objects may take."
        ),
    ] = 120.0,
    yes: Yes = False,
    context: Context = "",
    json: Json = False,
) -> None:
    """Delete a release with all that belongs to it, and wait until it is gone."""
    from kfp_bento.runtime import deployments

    require_extra("runtime")
    require_confirmable(yes=yes)
    target = _target(name, target, namespace, context)
    if not yes:
        found = deployments.release_status(
            name, target=target, namespace=namespace, context=context
        )
        ask(f"Delete {name} ({target}) in {namespace}, {len(found.objects)} objects?")
    with working(f"deleting {name}", quiet=json):
        deleted = deployments.delete_release(
            name, target=target, namespace=namespace, context=context, seconds=wait_seconds
        )
    if json:
        print_json(
            {
                "removed": [str(ref) for ref in deleted.removed],
                "kept": [str(ref) for ref in deleted.kept],
            }
        )
    elif deleted.removed or deleted.kept:
        facts = {"removed": names(deleted.removed), "kept, not ours": names(deleted.kept)}
        print_facts(f"{name} is deleted" if deleted.removed else f"{name} is kept", facts)
    else:
        out.print(f"{name} was not there: nothing was deleted.")


def _target(name: str, target: str, namespace: str, context: str) -> str:
    """Give the kind of target that was named, or that the cluster knows by the name."""
    from kfp_bento.runtime import deployments

    require_extra("runtime")
    check_place(namespace, name)
    if target:
        return deployments.target_of(target).kind
    return deployments.find_release(name, namespace=namespace, context=context)
