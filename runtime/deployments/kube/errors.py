"""What an API server answers when it will not, told with the way out."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.programs import cleaned
from kfp_bento.runtime.proxies import Proxy, proxy_trouble

_LONGEST_REFUSAL = 4000


class ClusterSilent(DeploymentError):
    """The API server gave no answer, or only passing failures, for as long as was waited."""


class Refused(DeploymentError):
    """The API server refused a request for good.

    Args:
        message: What was refused and the server's words.
        hint: What the reader can do next.
        status: HTTP status.
        conflicts: Fields that other field managers own, where that was the reason.
    """

    def __init__(
        self, message: str, *, hint: str = "", status: int = 0, conflicts: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.conflicts = conflicts


class UnknownKind(DeploymentError):
    """The cluster serves no such kind: its CRD is not installed.

    Args:
        api_version: Of the kind.
        kind: Its name.
    """

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(
            f"The cluster does not know {api_version} {kind}.",
            hint="Install what brings this kind, or use mode 'render'.",
        )
        self.group = api_version.partition("/")[0]


def silence(host: str, error: BaseException, proxy: Proxy | None) -> ClusterSilent:
    """Give the error for an API server that does not answer, or is not reached by its proxy."""
    if proxy and (trouble := proxy_trouble(error, host, proxy)):
        return ClusterSilent(trouble.message, hint=trouble.hint)
    return ClusterSilent(
        f"The API server {host} does not answer: {_first_line(error)}",
        hint="Check that the cluster runs and that the kubeconfig's context is right.",
    )


def refusal(error: Any, subject: str) -> Refused:
    """Give the error for an answer that is a refusal, with what can be done about it."""
    status = _status_body(error)
    told = str(status.get("message") or error.reason or "no reason given")
    message = cleaned(told).strip()[:_LONGEST_REFUSAL]
    if error.status == HTTPStatus.CONFLICT and (owners := _conflicts(status)):
        told = "; ".join(f"{owner} owns {', '.join(fields)}" for owner, fields in owners.items())
        return Refused(
            f"{subject} was not applied: other field managers own fields of it: {told}.",
            hint="Remove these fields from one of the two sides, or apply with force to take "
            "them over.",
            status=409,
            conflicts=tuple(field for fields in owners.values() for field in fields),
        )
    hints = {
        400: "Check the CRDs' generation: the API server does not know a field.",
        401: "Log in again: the credentials of the kubeconfig or the service account are refused.",
        403: "The identity needs more rights: kfp-bento rbac prints "
        "them, and kfp_bento/runtime/deployments/rbac has a kustomize base for each target.",
        404: "Create the namespace first, and check that the CRDs are still installed.",
        422: "The API server names the field above.",
    }
    hint = hints.get(error.status, "Nothing is lost: applying again is safe.")
    if "admission webhook" in message:
        hint = "An admission webhook of the cluster has decided that; its words are above."
    return Refused(
        f"{subject} was refused ({error.status}): {message}",
        hint=hint,
        status=int(error.status),
    )


def is_apply_conflict(error: Any) -> bool:
    """Say whether a 409 means that other field managers own fields."""
    return error.status == HTTPStatus.CONFLICT and bool(_conflicts(_status_body(error)))


def _conflicts(status: Mapping[str, Any]) -> dict[str, list[str]]:
    """Give each owner with the fields it holds, from the causes of a 409."""
    owners: dict[str, list[str]] = {}
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") != "FieldManagerConflict":
            continue
        told = cleaned(str(cause.get("message") or ""))
        owner = told.split('"')[1] if told.count('"') >= 2 else told
        owners.setdefault(owner, []).append(str(cause.get("field") or "?"))
    return owners


def retry_after(error: Any) -> float:
    """Give the seconds that a server asks to be left alone; 0 where it says nothing."""
    try:
        seconds = float((error.headers or {}).get("Retry-After") or 0)
    except ValueError:  # a date, which no API server sends
        return 0.0
    return max(0.0, seconds)


def _status_body(error: Any) -> dict[str, Any]:
    try:
        body = error.body or ""
        return parse_json(body if isinstance(body, bytes) else str(body).encode())
    except ValueError:
        return {}


def _first_line(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return (str(reason).splitlines() or [type(error).__name__])[0]
