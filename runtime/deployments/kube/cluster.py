"""A connection to a Kubernetes cluster that outlives its hiccups."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kfp_bento.runtime.deployments.kube.client import open_client
from kfp_bento.runtime.deployments.kube.errors import (
    Refused,
    UnknownKind,
    is_apply_conflict,
    refusal,
    retry_after,
    silence,
)
from kfp_bento.runtime.deployments.kube.live_shapes import LiveList, live_problem
from kfp_bento.runtime.deployments.kube.objects import (
    FIELD_MANAGER,
    Manifest,
    ObjectRef,
    checked_object,
)
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.files import parse_json_value
from kfp_bento.runtime.programs import cleaned

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 30.0
# An API server needs about this long to restart.
PATIENCE_SECONDS = 30.0
# A cluster that never answered is more likely misnamed than restarting.
FIRST_CONTACT_SECONDS = 3.0

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# One object has 1.5 MiB at most; a list of all releases of a namespace is the largest answer.
LARGEST_ANSWER = 64 << 20
_TRANSIENT = frozenset((408, 409, 425, 429, 500, 502, 503, 504))

# Names of the objects that we look for: DNS names, and `:` of built-in ones.
_SEGMENT = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(frozen=True)
class _Request:
    """One request, with what an error calls its object and which statuses may pass."""

    method: str
    path: str
    subject: str
    query: Sequence[tuple[str, str]] = ()
    body: Any = None
    content_type: str = "application/json"
    transient: frozenset[int] = _TRANSIENT


@contextmanager
def connect(
    context: str = "", *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[ClusterConnection]:
    """Open a connection to the configured cluster.

    Args:
        context: Context of the kubeconfig; the current one, or the pod's own, when empty.
        patience_seconds: How long one request is tried again when the API server restarts,
            is overloaded (429, with its Retry-After) or fails (5xx).

    Raises:
        DeploymentError: No cluster is configured.
    """
    connection = ClusterConnection(context, patience_seconds=patience_seconds)
    try:
        yield connection
    finally:
        connection.close()


class ClusterConnection:
    """Requests to one API server, tried again while that makes sense.

    Every request here may be repeated without harm: reads, server-side apply, merge patches
    of one value, deletions by uid.

    Attributes:
        answered: Whether the API server has answered at all.
        host: Its address.

    Args:
        context: Context of the kubeconfig.
        patience_seconds: How long one request is tried again.
        clock: Seconds, monotonic.
        sleep: Waits for that many seconds.
    """

    def __init__(
        self,
        context: str = "",
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.patience_seconds = patience_seconds
        self._context = context
        self._clock, self._sleep = clock, sleep
        self._kinds: dict[tuple[str, str], str] = {}
        self.answered = False
        self._client, self._proxy = open_client(context)
        self.host = str(self._client.configuration.host)

    def close(self) -> None:
        """Let the sockets go."""
        self._client.client.close()

    def get(self, ref: ObjectRef) -> dict[str, Any] | None:
        """Give an object as it is now; None when there is none."""
        found = self._get(self._path(ref), f"{ref}")
        return found and checked_object(found, str(ref))

    def select(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[dict[str, Any]]:
        """Give the objects of a kind that a label and a field selector choose."""
        items, _ = self.select_at(api_version, kind, namespace, labels=labels, fields=fields)
        return items

    def select_at(
        self, api_version: str, kind: str, namespace: str, *, labels: str = "", fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        """Like `select`, with the resource version that a watch can go on from."""
        path = self._collection(api_version, kind, namespace)
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        found = self._get(path, f"The list of {kind}", [pair for pair in query if pair[1]]) or {}
        if problem := live_problem(found, LiveList, f"The list of {kind}"):
            raise DeploymentError(f"{problem}.", hint="Check that the address is an API server's.")
        items = [
            checked_object({"apiVersion": api_version, "kind": kind, **item}, kind)
            for item in found.get("items") or []
        ]
        return items, str((found.get("metadata") or {}).get("resourceVersion") or "")

    def apply(
        self,
        manifest: Manifest,
        *,
        trial: bool = False,
        force: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Any:
        """Apply one manifest as a field manager, ours by default, and give the result."""
        ref = ObjectRef.of(manifest)
        query = [
            ("fieldManager", manager),
            ("force", str(force)),
            # An API server that would prune a field says so instead (Kubernetes 1.25).
            ("fieldValidation", "Strict"),
            *((("dryRun", "All"),) if trial else ()),
        ]
        form = "application/apply-patch+yaml"
        return self._json(_Request("patch", self._path(ref), f"{ref}", query, dict(manifest), form))

    def merge(self, ref: ObjectRef, patch: Manifest, *, manager: str) -> Any:
        """Send a JSON merge patch; an object that is gone stays gone.

        A `resourceVersion` in the patch makes it fail (409) when the object has changed.
        """
        request = _Request(
            "patch",
            self._path(ref),
            f"{ref}",
            [("fieldManager", manager)],
            dict(patch),
            "application/merge-patch+json",
            _TRANSIENT - {409},
        )
        return self._json(request)

    def delete(self, live: Manifest, *, propagation: str = "Foreground") -> None:
        """Delete exactly this object (by uid); one that is gone is fine.

        What it owns goes first (Foreground), after it (Background), or stays (Orphan).
        """
        ref = ObjectRef.of(live)
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": live["metadata"]["uid"]},
        }
        try:
            self._json(
                _Request(
                    "delete", self._path(ref), f"{ref}", body=body, transient=_TRANSIENT - {409}
                )
            )
        except Refused as refused:
            # 409: another object has the name by now, and it is not ours to delete.
            if refused.status not in (404, 409):
                raise

    def knows(self, api_version: str, kind: str) -> bool:
        """Say whether the cluster serves a kind."""
        try:
            self._plural(api_version, kind)
        except UnknownKind:
            return False
        return True

    def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool) -> str:
        """Give the last lines that a container wrote."""
        query = [("container", container), ("tailLines", str(lines)), ("limitBytes", str(1 << 20))]
        if previous:
            query.append(("previous", "true"))
        request = _Request(
            "get",
            f"/api/v1/namespaces/{_segment(namespace)}/pods/{_segment(pod)}/log",
            f"The log of pod {namespace}/{pod}",
            query,
            transient=_TRANSIENT - {500},  # how a kubelet says that there is no log
        )
        return self._send(request).decode("utf-8", "replace")

    def watch_once(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        *,
        labels: str,
        version: str,
        seconds: float,
    ) -> None:
        """Return at the first event after `version`, or when the time is up.

        A hint to look again, and no more: a watch that is refused or cut just ends the
        pause early, and is no error.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        query = [("watch", "true"), ("resourceVersion", version), ("labelSelector", labels)]
        query.append(("timeoutSeconds", str(max(1, int(seconds)))))
        begun = self._clock()
        with suppress(ApiException, HTTPError, OSError, ValueError, DeploymentError):
            stream = self._client.request(
                "get",
                self._collection(api_version, kind, namespace),
                query_params=query,
                serialize=False,
                _request_timeout=(CONNECT_SECONDS, seconds),
            )
            try:
                if stream.read(1):
                    return
            finally:
                stream.close()
        self._sleep(max(0.0, min(1.0, seconds) - (self._clock() - begun)))

    def _json(self, request: _Request) -> Any:
        """Send a request and give the JSON of the answer.

        Raises:
            Refused: For good; the message has the server's words.
            ClusterSilent: No answer within the patience.
        """
        raw = self._send(request)
        try:
            return parse_json_value(raw)
        except ValueError as error:
            raise DeploymentError(
                f"{request.subject}: the answer of {self.host} is no JSON: {cleaned(str(error))}",
                hint="Check that the address is an API server's.",
            ) from error

    def _send(self, request: _Request) -> bytes:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        begun, pause, renewed = self._clock(), _FIRST_PAUSE, False
        while True:
            wait = 0.0
            failure: DeploymentError
            try:
                answer = self._client.request(
                    request.method,
                    request.path,
                    query_params=list(request.query),
                    body=request.body,
                    content_type=request.content_type,
                    serialize=False,
                    # A single float would be ignored by version 30 of the client.
                    _request_timeout=(CONNECT_SECONDS, REQUEST_SECONDS),
                )
                self.answered = True
                return self._read(answer, request.subject)
            except ApiException as error:
                if not error.status:  # how the client reports a broken TLS handshake
                    failure = silence(self.host, error, self._proxy)
                else:
                    self.answered = True
                    refused = refusal(error, request.subject)
                    if error.status == HTTPStatus.UNAUTHORIZED and not renewed:
                        renewed = True
                        self._renew()
                        continue
                    if error.status not in request.transient or is_apply_conflict(error):
                        raise refused from error
                    wait = retry_after(error)
                    failure = refused
            except (HTTPError, OSError, ValueError) as error:
                failure = silence(self.host, error, self._proxy)
            spent = self._clock() - begun
            patience = self.patience_seconds
            if not self.answered:
                patience = min(patience, FIRST_CONTACT_SECONDS)
            pause_now = max(wait, pause)
            if spent + pause_now > patience:
                raise failure
            self._sleep(pause_now)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _read(self, answer: Any, subject: str) -> bytes:
        """Read an answer whole, if it is of a size that an API server gives."""
        try:
            raw = bytes(answer.read(LARGEST_ANSWER + 1, decode_content=True))
        finally:
            answer.close()
        if len(raw) > LARGEST_ANSWER:
            raise DeploymentError(
                f"{subject}: the answer of {self.host} has more than {LARGEST_ANSWER} bytes.",
                hint="Check that the address is an API server's.",
            )
        return raw

    def _renew(self) -> None:
        """Read token, kubeconfig or credential plugin anew: what was read may have expired."""
        fresh = open_client(self._context)
        self._client.client.close()
        self._client, self._proxy = fresh

    def _get(
        self, path: str, subject: str, query: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Any] | None:
        try:
            found = self._json(_Request("get", path, subject, query))
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return found if isinstance(found, dict) else None

    def _path(self, ref: ObjectRef) -> str:
        collection = self._collection(ref.api_version, ref.kind, ref.namespace)
        return f"{collection}/{_segment(ref.name)}"

    def _collection(self, api_version: str, kind: str, namespace: str) -> str:
        plural = self._plural(api_version, kind)
        return f"{_group_path(api_version)}/namespaces/{_segment(namespace)}/{plural}"

    def _plural(self, api_version: str, kind: str) -> str:
        if not self._kinds.get((api_version, kind)):
            found = self._get(_group_path(api_version), f"The API {api_version}") or {}
            for entry in found.get("resources") or []:
                if "/" not in entry["name"]:
                    self._kinds[api_version, entry["kind"]] = entry["name"]
        try:
            return self._kinds[api_version, kind]
        except KeyError:
            raise UnknownKind(api_version, kind) from None


def _segment(name: str) -> str:
    """Give a name as one segment of a path: it may come from a field that anybody could write.

    Raises:
        DeploymentError: No object can have this name (apimachinery, IsValidPathSegmentName).
    """
    if not name or name in (".", "..") or not _SEGMENT.fullmatch(name):
        raise DeploymentError(
            f"{cleaned(name)[:80]!r} is the name of no object.",
            hint="Some object refers to it: find out who wrote that, and correct it.",
        )
    return name


def _group_path(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
