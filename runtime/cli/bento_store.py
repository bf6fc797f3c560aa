"""kfp-bento bento list, show, delete and prune: bentos where they are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape

from kfp_bento.runtime.cli.deploy import Context
from kfp_bento.runtime.cli.extras import require_extra
from kfp_bento.runtime.cli.output import (
    Json,
    Yes,
    confirm,
    err,
    out,
    print_facts,
    print_json,
    print_table,
    require_confirmable,
    transfer,
    working,
)
from kfp_bento.runtime.cli.release_facts import check_place, short_digest
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.reports import human_bytes

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoDescription, BentoModel, StoredBento
    from kfp_bento.runtime.deployments import ReleaseStatus

app = typer.Typer()

_AGE = re.compile(r"([0-9]{1,5})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

Store = Annotated[
    str,
    typer.Argument(
        metavar="[STORE]",
        help="A folder, s3://bucket/folder/ or minio://bucket/folder/; default: BentoML's own.",
        show_default=False,
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="BENTO",
        help="The bento's folder, an archive or its address, or name:version of BentoML's store.",
    ),
]
Namespaces = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates it
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="Ask the cluster what its releases there serve; may be repeated.",
    ),
]


@app.command("list", epilog="Example: kfp-bento bento list s3://models/bentos/")
def list_(
    store: Store = "", namespace: Namespaces = None, context: Context = "", json: Json = False
) -> None:
    """List the bentos of a store, the newest first; archives are not fetched."""
    from kfp_bento.runtime import bentos

    require_extra("runtime")
    with working("looking", quiet=json):
        opened = bentos.open_store(store)
        found = bentos.newest_first(opened.list())
        served = _served(namespace or (), context)
    if json:
        print_json([_document(bento, served, asked=bool(namespace)) for bento in found])
    elif found:
        _show_table(found, served, asked=bool(namespace))
    else:
        err.print(escape(f"{opened.address} has no bentos."))


@app.command(epilog="Example: kfp-bento bento show s3://models/bentos/wine-1f0c.bento")
def show(source: Source, json: Json = False) -> None:
    """Say what a bento is: models, routes, lock, wishes and whether it is proven."""
    from kfp_bento.runtime import bentos

    require_extra("runtime")
    with (
        transfer(f"fetching {source}", quiet=json) as progress,
        bentos.opened_bento(source, progress=progress) as bento,
    ):
        described = bentos.describe_bento(bento)
        golden = _golden(described)
    if bento.note:
        err.print(escape(bento.note))
    if json:
        print_json({**described.to_dict(), "golden": golden})
    else:
        _show_description(described, golden)


@app.command(epilog="Example: kfp-bento bento delete wine:1f0c ./bentos")
def delete(
    bento: Annotated[
        str, typer.Argument(metavar="BENTO", help="name:version, or a place as it is listed.")
    ],
    store: Store = "",
    yes: Yes = False,
    namespace: Namespaces = None,
    context: Context = "",
    json: Json = False,
) -> None:
    """Delete a bento from a store, unless a release of the namespaces that are named serves it."""
    from kfp_bento.runtime import bentos

    require_extra("runtime")
    require_confirmable(yes=yes)
    with working("looking", quiet=json):
        opened = bentos.open_store(store)
        going = bentos.chosen_bentos(opened.list(), bento, opened.address)
        bentos.require_unused(going, _names(_served(namespace or (), context)))
    if not yes:
        _show_table(going, {}, asked=False)
        confirm(f"Delete {_total(going)} from {opened.address}?")
    with working("deleting", quiet=json):
        for one in going:
            opened.delete(one)
    _tell_deleted(going, json=json)


@app.command(epilog="Example: kfp-bento bento prune ./bentos --keep 3 --older-than 30d --dry-run")
def prune(
    store: Store = "",
    keep: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=0, help="How many versions of each name stay. Default: 1, beside --older-than."
        ),
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE", help="Only what is in the store for longer goes: 12h, 30d, 8w."
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and delete nothing.")
    ] = False,
    yes: Yes = False,
    namespace: Namespaces = None,
    context: Context = "",
    json: Json = False,
) -> None:
    """Delete all but the newest versions of each bento; what releases serve stays."""
    from kfp_bento.runtime import bentos

    require_extra("runtime")
    age = _age(older_than)
    if keep is None and age is None:
        raise InvalidInput(
            "Nothing says what may go.",
            hint="--keep 3 keeps three versions of each name; --older-than 30d what is younger.",
        )
    require_confirmable(yes=yes or dry_run)
    with working("looking", quiet=json):
        opened = bentos.open_store(store)
        served = _served(namespace or (), context)
        going = [
            one
            for one in bentos.expendable_bentos(
                opened.list(),
                datetime.now(UTC),
                keep=1 if keep is None else keep,
                older_than=age,
            )
            if one.facts.tag not in served
        ]
    if going and not json:
        _show_table(going, {}, asked=False)
    if dry_run or not going:
        _tell_deleted(going, json=json, dry_run=True)
        return
    if not yes:
        confirm(f"Delete {_total(going)} from {opened.address}?")
    with working("deleting", quiet=json):
        for one in going:
            opened.delete(one)
    _tell_deleted(going, json=json)


def _age(text: str) -> timedelta | None:
    found = _AGE.fullmatch(text)
    if text and found is None:
        raise InvalidInput(
            f"--older-than {text} is no age.", hint="Write hours, days or weeks: 12h, 30d, 8w."
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def _served(namespaces: Iterable[str], context: str) -> dict[str, list[ReleaseStatus]]:
    """Give the releases of some namespaces by the tag of the bento that they serve."""
    from kfp_bento.runtime import deployments

    found: dict[str, list[ReleaseStatus]] = {}
    for namespace in namespaces:
        check_place(namespace)
        for release in deployments.list_releases(namespace, context=context):
            if release.bento:
                found.setdefault(release.bento, []).append(release)
    return found


def _names(served: Mapping[str, Sequence[ReleaseStatus]]) -> dict[str, list[str]]:
    return {
        tag: [f"{release.namespace}/{release.name}" for release in releases]
        for tag, releases in served.items()
    }


def _document(
    bento: StoredBento, served: Mapping[str, Sequence[ReleaseStatus]], *, asked: bool
) -> dict[str, Any]:
    if not asked:
        return bento.to_dict()
    releases = [
        {"namespace": one.namespace, "name": one.name, "image": one.image, "ready": one.ready}
        for one in served.get(bento.facts.tag, ())
    ]
    return {**bento.to_dict(), "releases": releases}


def _show_table(
    bentos: Iterable[StoredBento],
    served: Mapping[str, Sequence[ReleaseStatus]],
    *,
    asked: bool,
) -> None:
    headings = ["bento", "size", "there since (UTC)", "Python", "models"]
    headings += ["releases", "image"] if asked else []
    print_table([*headings, "place"], [_row(one, served, asked=asked) for one in bentos])


def _row(
    bento: StoredBento, served: Mapping[str, Sequence[ReleaseStatus]], *, asked: bool
) -> list[str]:
    facts = bento.facts
    row = [
        facts.tag or "unknown",
        human_bytes(bento.size),
        f"{bento.modified:%Y-%m-%d %H:%M}",
        facts.python_version or "unknown",
        "unknown" if facts.models is None else ", ".join(facts.models) or "none",
    ]
    if asked:
        releases = served.get(facts.tag, ())
        images = dict.fromkeys(short_digest(release.image) for release in releases)
        row += [", ".join(_names({"": releases})[""]), ", ".join(images)]
    return [*row, bento.place]


def _total(bentos: Sequence[StoredBento]) -> str:
    count = f"{len(bentos)} bento{'' if len(bentos) == 1 else 's'}"
    return f"{count} ({human_bytes(sum(bento.size for bento in bentos))})"


def _tell_deleted(bentos: Sequence[StoredBento], *, json: bool, dry_run: bool = False) -> None:
    if json:
        size = sum(bento.size for bento in bentos)
        places = [{"tag": one.facts.tag or None, "place": one.place} for one in bentos]
        print_json({"dry_run": dry_run and bool(bentos), "deleted": places, "size": size})
    elif not bentos:
        out.print("Nothing is to go.")
    else:
        out.print(f"{'Would delete' if dry_run else 'Deleted'} {_total(bentos)}.")


def _golden(described: BentoDescription) -> dict[str, Any] | None:
    """Give what the golden answers beside a bento say; None where there are none of this bento."""
    from kfp_bento.runtime import bentos, proof

    file = bentos.golden_file(described.bento.directory.absolute())
    if not file.is_file():
        return None
    try:
        golden = proof.Golden.load(file)
    except CheckError as error:
        return {"verified": "unknown", "reason": error.message, "requests": 0}
    if golden.bento != described.bento.tag:
        return None
    return {
        "verified": golden.verified,
        "reason": golden.reason,
        "requests": len(golden.requests),
    }


def _show_description(described: BentoDescription, golden: Mapping[str, Any] | None) -> None:
    bento, lock = described.bento, described.lock
    hashed = "" if lock is None or lock.hashed else ", without hashes"
    print_facts(
        bento.tag,
        {
            "digest": bento.digest,
            "service": bento.service,
            "routes": "\n".join(f"{one.path}  {one.name}" for one in described.routes),
            "speaks also": ", ".join(described.protocols),
            "models": "\n".join(map(_model_line, bento.models)),
            "Python": bento.python_version,
            "BentoML": bento.bentoml_version,
            "lock": lock and f"{lock.packages} packages, {human_bytes(lock.size)}{hashed}",
            "base image": described.base_image,
            "system packages": ", ".join(described.system_packages),
            "variables": ", ".join(described.variables),
            "size": human_bytes(described.size),
            "verified": golden and f"{golden['verified']}: {golden['reason']}",
        },
    )


def _model_line(model: BentoModel) -> str:
    origin = model.provenance
    name, version, uri = (origin.get(key, "") for key in ("name", "version", "uri"))
    registered = f"version {version} of {name}" if name and version else uri
    return f"{model.tag}  {registered}".rstrip()
