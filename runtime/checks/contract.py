"""The contract of a service: clients of an earlier release go on working with this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.check_report import CheckReport, json_value
from kfp_bento.runtime.checks.contract_reduction import METHODS, NoContract, path_key, reduced
from kfp_bento.runtime.checks.contract_schemas import Change, Comparison, Side
from kfp_bento.runtime.checks.served_model import service_root, service_token
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.files import parse_json, read_small_file, reading
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError, ask

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden

NAME = "check_contract"
LARGEST_CONTRACT = 16 << 20
"""Bytes of an OpenAPI document; those of models with thousands of columns have some."""

Route = tuple[str, Mapping[str, Any]]
Parameters = Mapping[tuple[str, str], Mapping[str, Any]]

_SECONDS = 60.0
_MOST_SHOWN = 50
_NOT_ONE = "Give an OpenAPI document as JSON, such as the contract of an earlier check."


def check_contract(
    url: str,
    earlier: Mapping[str, Any] | None,
    *,
    served: Mapping[str, Any] | None = None,
    golden: Golden | None = None,
) -> CheckReport:
    """Compare the API that a service describes with an earlier one.

    Breaking are: routes, methods, fields, media types and answers that are gone; requests that take
    less than before (a type, a value, an optional field that is required now, a narrower bound);
    new fields that are required; and answers that give what they never gave (another type, null,
    a field that may be left out). What was added is told.

    Args:
        url: Root of the service, as a release names it.
        earlier: An OpenAPI document, whole or as `contract_of` gives it; None where there is none
            yet, and then everything is taken.
        served: What `contract_of` gave just now, so that it is not asked for twice.
        golden: What the bento was proven with: whose report this is.

    Returns:
        The report, with the measures `routes`, `breaking` and `additions`. Its evidence is the
        breaking changes, each with a `reason`, and one entry with what was `added`.

    Raises:
        CheckError: There is no URL, nothing answers there, it describes no API, or `earlier` does
            not.
    """
    root = service_root(url)
    now = _reduced(contract_of(url) if served is None else served, f"What {root} describes")
    changes: list[Change] = []
    if earlier is not None:
        was = _reduced(earlier, "The earlier contract")
        try:
            changes = list(_changes(was, now))
        except NoContract as error:
            raise CheckError(
                f"The contracts cannot be compared: {error}.", hint="Look at both of them."
            ) from error
    return _report(root, now, changes, golden, first=earlier is None)


def contract_of(url: str) -> dict[str, Any]:
    """Give what clients depend on of the API that a service describes at `/docs.json`.

    Returns:
        An OpenAPI document without titles, descriptions and examples, in a canonical order: small
        enough to be kept beside a release.

    Raises:
        CheckError: There is no URL, nothing answers there, or it describes no API.
    """
    root = service_root(url)
    token = service_token()
    try:
        answer = ask(
            "GET",
            f"{root}/docs.json",
            seconds=_SECONDS,
            largest=LARGEST_CONTRACT,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        if answer.status != 200:
            raise ValueError(answer.shown())
        return _reduced(parse_json(answer.body), f"What {root} describes")
    except NoConnectionError as error:
        raise CheckError(
            f"Nothing answers at {root}/docs.json: {error}",
            hint="Wait until the release is ready (smoke_test does) and check its URL.",
        ) from error
    except (NoAnswerError, ValueError) as error:
        raise CheckError(
            f"The service does not describe its API at /docs.json: {error}.",
            hint="BentoML describes every service; a gateway before it may hide that.",
        ) from error


def load_contract(path: Path) -> dict[str, Any]:
    """Read an OpenAPI document.

    Raises:
        CheckError: It cannot be read, or describes no API.
    """
    with reading(f"There is no contract in {path}", CheckError, hint=_NOT_ONE):
        document = parse_json(read_small_file(Path(path), LARGEST_CONTRACT))
    return _reduced(document, f"The document {path}")


def load_given_contract(artifact: Any) -> dict[str, Any] | None:
    """Read the contract of an input artifact; None where the step was given none."""
    return load_contract(Path(artifact.path)) if artifact is not None else None


def _reduced(document: Mapping[str, Any], whose: str) -> dict[str, Any]:
    try:
        return reduced(document)
    except NoContract as error:
        raise CheckError(f"{whose} is no API: {error}.", hint=_NOT_ONE) from error


def _changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    comparison = Comparison(_side(was), _side(now))
    before, after = _routes(was), _routes(now)
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            yield Change(before[key][0], "is gone", True)
        elif key not in before:
            yield Change(after[key][0], "is new", False)
        else:
            yield from _operation(comparison, before[key], after[key])


def _side(document: Mapping[str, Any]) -> Side:
    return Side(document.get("components", {}).get("schemas", {}))


def _routes(document: Mapping[str, Any]) -> dict[tuple[str, str], Route]:
    """Give name and operation of each route, by what tells it from others."""
    return {
        (path_key(path), method): (f"{method.upper()} {path}", item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def _operation(comparison: Comparison, earlier: Route, later: Route) -> Iterator[Change]:
    yield from _parameters(comparison, _by_name(earlier), _by_name(later), later[0])
    (_, was), (name, now) = earlier, later
    yield from _body(comparison, was.get("requestBody"), now.get("requestBody"), f"{name} request")
    before, after = was["responses"], now["responses"]
    for status in sorted(before.keys() | after.keys()):
        where = f"{name} answer {status}"
        if status not in after:
            # How a service refuses is told by its status; that it does is no promise.
            yield Change(where, "is gone", status.startswith("2"))
        elif status not in before:
            yield Change(where, "is new", False)
        else:
            yield from _content(comparison, before[status], after[status], where, answer=True)


def _parameters(
    comparison: Comparison, before: Parameters, after: Parameters, name: str
) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key), after.get(key)
        where = f"{name} {key[0]} parameter {key[1]}"
        if other is None:
            yield Change(where, "is gone", True)
            continue
        if other["required"] and not (one and one["required"]):
            what = "is required now" if one else "is new, and required"
            yield Change(where, what, True)
        elif one is None:
            yield Change(where, "is new", False)
        if one is not None:
            yield from comparison.changes(one["schema"], other["schema"], where, answer=False)


def _by_name(route: Route) -> Parameters:
    """Give parameters by place and name; those of the path by their order in it."""
    path = route[0].partition(" ")[2]
    found = {}
    for one in route[1].get("parameters", ()):
        name = one["name"]
        if one["in"] == "path":
            name = str(path[: path.find(f"{{{name}}}")].count("{") + 1)
        found[one["in"], name] = one
    return found


def _body(
    comparison: Comparison,
    was: Mapping[str, Any] | None,
    now: Mapping[str, Any] | None,
    where: str,
) -> Iterator[Change]:
    if now is None:
        if was is not None:
            yield Change(where, "is gone: there is no body any more", True)
        return
    if now["required"] and not (was and was["required"]):
        yield Change(where, "is required now" if was else "is new, and required", True)
    elif was is None:
        yield Change(where, "is new", False)
    if was is not None:
        yield from _content(comparison, was, now, where, answer=False)


def _content(
    comparison: Comparison,
    was: Mapping[str, Any],
    now: Mapping[str, Any],
    where: str,
    *,
    answer: bool,
) -> Iterator[Change]:
    before, after = was["content"], now["content"]
    for media_type in sorted(before.keys() | after.keys()):
        at = f"{where} {media_type}"
        if media_type not in after:
            yield Change(at, "is not given any more" if answer else "is not taken any more", True)
        elif media_type not in before:
            yield Change(at, "is new", False)
        else:
            yield from comparison.changes(
                before[media_type]["schema"], after[media_type]["schema"], at, answer=answer
            )


def _report(
    root: str,
    now: Mapping[str, Any],
    changes: list[Change],
    golden: Golden | None,
    *,
    first: bool,
) -> CheckReport:
    breaking = [_fact(one) for one in changes if one.breaking]
    added = [f"{one.where}: {one.what}" for one in changes if not one.breaking]
    routes = len(_routes(now))
    more = ({"added": added[:_MOST_SHOWN]},) if added else ()
    return CheckReport(
        name=NAME,
        passed=not breaking,
        summary=_summary(routes, breaking, added, first=first),
        measures={
            "routes": float(routes),
            "breaking": float(len(breaking)),
            "additions": float(len(added)),
        },
        evidence=tuple(json_value(one) for one in (*breaking[:_MOST_SHOWN], *more)),
        model_digests=golden.digests if golden else (),
        url=root,
    )


def _fact(change: Change) -> dict[str, Any]:
    """Give a breaking change in the form in which reports show differences."""
    return {
        "request": change.where,
        "path": "",
        "served": change.now,
        "expected": change.was,
        "reason": change.what,
    }


def _summary(routes: int, breaking: list[dict[str, Any]], added: list[str], *, first: bool) -> str:
    has = "1 route" if routes == 1 else f"{routes} routes"
    if first:
        return f"There is no earlier contract to compare with; the service has {has} now."
    more = f" {len(added)} other changes break nobody." if len(added) > 1 else ""
    if len(added) == 1:
        more = f" One other change breaks nobody: {added[0]}."
    if not breaking:
        return f"Clients of the earlier contract go on working, in {has}.{more}"
    one = breaking[0]
    count = "One change breaks" if len(breaking) == 1 else f"{len(breaking)} changes break"
    verb = "it" if len(breaking) == 1 else "the first"
    return (
        f"{count} clients of the earlier contract; {verb}: {one['request']} {one['reason']}.{more}"
    )
