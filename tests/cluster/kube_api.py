"""A plain client of the Kubernetes API, for tests: JSON in, JSON out.

It shares no code with the client library that the product uses, so both are checked by the
same server independently.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
SECONDS = 30.0


class Refused(Exception):
    """The API server said no: `status` is the HTTP status, `body` the Status object."""

    def __init__(self, status: int, body: Any, request: str) -> None:
        self.status = status
        self.body = body
        told = body.get("message") if isinstance(body, dict) else body
        super().__init__(f"{request}: {status} {told}")


class KubeApi:
    """Requests as the user of one kubeconfig; safe to share between threads."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self.url = cluster["server"]
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        self._http = urllib3.PoolManager(
            ca_certs=cluster["certificate-authority"], retries=False, maxsize=8, timeout=SECONDS
        )
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **query: Any,
    ) -> Any:
        """Gives the answer's JSON (text where it is none).

        Raises:
            Refused: Any answer of 400 and above.
            urllib3.exceptions.HTTPError: No answer.
        """
        headers = self._headers | ({"Content-Type": content_type} if body is not None else {})
        answer = self._http.request(
            method,
            self._address(path, query),
            headers=headers,
            body=None if body is None else json.dumps(body),
        )
        told: Any = answer.data.decode(errors="replace")
        if "json" in answer.headers.get("Content-Type", ""):
            told = json.loads(told)
        if answer.status >= 400:
            raise Refused(answer.status, told, f"{method} {path}")
        return told

    def watch(self, path: str, version: str, seconds: float) -> Iterator[dict[str, Any]]:
        """Gives events until the server closes the watch after about these seconds."""
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": int(seconds)}
        answer = self._http.request(
            "GET", self._address(path, query), headers=self._headers, preload_content=False
        )
        try:
            if answer.status >= 400:
                raise Refused(answer.status, answer.read().decode(), f"watch {path}")
            for line in answer:
                if line.strip():
                    yield json.loads(line)
        finally:
            answer.close()

    def apply(
        self,
        manifest: Mapping[str, Any],
        *,
        manager: str = "test",
        force: bool = False,
        dry_run: bool = False,
        validation: str = "Strict",
    ) -> dict[str, Any]:
        """Server-side apply; gives the object as it is then."""
        metadata = manifest["metadata"]
        path = self.path(
            manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"]
        )
        query = {"dryRun": "All"} if dry_run else {}
        answer: dict[str, Any] = self.request(
            "PATCH",
            path,
            dict(manifest),
            content_type=APPLY,
            fieldManager=manager,
            force=str(force).lower(),
            fieldValidation=validation,
            **query,
        )
        return answer

    def get(
        self, api_version: str, kind: str, namespace: str | None, name: str
    ) -> dict[str, Any] | None:
        """Gives the object, None where there is none."""
        try:
            answer: dict[str, Any] = self.request(
                "GET", self.path(api_version, kind, namespace, name)
            )
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise
        return answer

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[dict[str, Any]]:
        """Gives all objects of a kind, in one namespace or in all."""
        query = {"labelSelector": selector} if selector else {}
        path = self.path(api_version, kind, namespace)
        items: list[dict[str, Any]] = self.request("GET", path, **query)["items"]
        return items

    def merge(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        name: str,
        change: Mapping[str, Any],
        *,
        subresource: str = "",
        manager: str = "test",
    ) -> dict[str, Any]:
        """JSON merge patch, of the object or of a subresource such as `status`."""
        path = self.path(api_version, kind, namespace, name)
        answer: dict[str, Any] = self.request(
            "PATCH",
            f"{path}/{subresource}" if subresource else path,
            dict(change),
            content_type=MERGE,
            fieldManager=manager,
        )
        return answer

    def delete(self, api_version: str, kind: str, namespace: str | None, name: str) -> None:
        """Deletes in the background; it is no error if there is nothing."""
        path = self.path(api_version, kind, namespace, name)
        try:
            self.request("DELETE", path, propagationPolicy="Background")
        except Refused as refusal:
            if refusal.status != 404:
                raise

    def path(
        self, api_version: str, kind: str, namespace: str | None = None, name: str = ""
    ) -> str:
        """Gives the path of a collection or of an object, by discovery."""
        plural, namespaced = self._plural(api_version, kind)
        root = f"/{'apis' if '/' in api_version else 'api'}/{api_version}"
        place = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{root}{place}/{plural}{f'/{name}' if name else ''}"

    def _plural(self, api_version: str, kind: str) -> tuple[str, bool]:
        with self._lock:
            known = self._plurals.get((api_version, kind))
        if known:
            return known
        root = f"/{'apis' if '/' in api_version else 'api'}/{api_version}"
        for entry in self.request("GET", root)["resources"]:
            if entry["kind"] == kind and "/" not in entry["name"]:
                found = (str(entry["name"]), bool(entry["namespaced"]))
                with self._lock:
                    self._plurals[(api_version, kind)] = found
                return found
        raise LookupError(f"{api_version} has no {kind}")

    def _address(self, path: str, query: Mapping[str, Any]) -> str:
        return f"{self.url}{path}{f'?{urlencode(query)}' if query else ''}"
