"""A stub of a Kubernetes API server: discovery and PATCH, and a note of every request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

KINDS = {
    "resources.yatai.ai": ("v1alpha1", "bentoes", "Bento"),
    "serving.yatai.ai": ("v2alpha1", "bentodeployments", "BentoDeployment"),
}


@dataclass
class ApiServer:
    """What the stub knows, what it shall answer to PATCH, and what it was asked."""

    groups: tuple[str, ...] = tuple(KINDS)
    # (plural, whether a dry run) -> status and body of the refusal
    refusals: dict[tuple[str, bool], tuple[int, dict[str, Any]]] = field(default_factory=dict)
    patches: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    # Answered one by one before anything else: status, reason and headers; 0 cuts the connection.
    passing: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    # The only token that is taken; any when empty.
    token: str = ""
    versions: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    # Plurals that may not be listed.
    forbidden: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    # Further kinds, by API version: plural -> kind.
    kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    # Who has applied an object.
    owners: dict[str, str] = field(default_factory=dict)
    # Annotations that came by merge patches.
    noted: dict[str, dict[str, str]] = field(default_factory=dict)

    def plurals(self) -> set[str]:
        return {plural for kinds in self.kinds.values() for plural in kinds}

    def _chosen(self, plural: str, query: str) -> list[dict[str, Any]]:
        """The objects of a collection that have the labels of a selector such as a=b,c=d."""
        selector = parse_qs(query).get("labelSelector", [""])[0]
        pairs = [part.partition("=") for part in selector.split(",") if part]

        def has(one: dict[str, Any], name: str, equals: str, value: str) -> bool:
            labels = one["metadata"].get("labels") or {}
            return name in labels and (not equals or labels[name] == value)

        return [
            self.live(key, one)
            for key, one in self.objects.items()
            if key.startswith(f"{plural}/") and all(has(one, *pair) for pair in pairs)
        ]

    def delete(self, path: str) -> tuple[int, dict[str, Any]]:
        key = "/".join(path.split("/")[-2:])
        self.deleted.append(key)
        return 200, self.objects.pop(key)

    def discovery(self, path: str) -> dict[str, Any] | None:
        for version, kinds in self.kinds.items():
            if path == (f"/apis/{version}" if "/" in version else f"/api/{version}"):
                entries = [{"name": plural, "kind": kind} for plural, kind in kinds.items()]
                return {"kind": "APIResourceList", "groupVersion": version, "resources": entries}
        if path == "/version":
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/api/v1":
            return {"kind": "APIResourceList", "groupVersion": "v1", "resources": []}
        if path == "/apis":
            return {"kind": "APIGroupList", "groups": [self._group(name) for name in self.groups]}
        for name in self.groups:
            version, plural, kind = KINDS[name]
            if path == f"/apis/{name}/{version}":
                verbs = ["create", "get", "patch"]
                entry = {"name": plural, "kind": kind, "namespaced": True, "verbs": verbs}
                group = f"{name}/{version}"
                return {"kind": "APIResourceList", "groupVersion": group, "resources": [entry]}
        return None

    @staticmethod
    def _group(name: str) -> dict[str, Any]:
        version = {"groupVersion": f"{name}/{KINDS[name][0]}", "version": KINDS[name][0]}
        return {"name": name, "versions": [version], "preferredVersion": version}

    def patch(self, target: str, content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        *_, plural, name = parts.path.split("/")
        content = yaml.safe_load(body)
        noted = {"path": parts.path, "plural": plural, "query": query, "body": content}
        self.patches.append({**noted, "content_type": content_type})
        trial = query.get("dryRun") == "All"
        refusal = self.refusals.get((plural, trial))
        if refusal and not (refusal[0] == 409 and query.get("force") == "True"):
            return refusal
        key = f"{plural}/{name}"
        others = self.noted.get(key, {})
        if "merge-patch" in content_type:
            marks = (content.get("metadata") or {}).get("annotations") or {}
            content = _merged(self.objects.get(key, {}), content)
            others = _merged(others, marks)
        else:
            self.owners[key] = query.get("fieldManager", "")
            # An apply leaves what another field manager has set.
            metadata = content["metadata"]
            annotations = {**others, **(metadata.get("annotations") or {})}
            more = {"annotations": annotations} if annotations else {}
            content = {**content, "metadata": {**metadata, **more}}
        if not trial:
            if self.objects.get(key) != content:
                self.versions[key] = self.versions.get(key, 0) + 1
            self.objects[key] = content
            self.noted[key] = others
        return 200, self.live(key, content)

    def live(self, key: str, content: dict[str, Any]) -> dict[str, Any]:
        """An object as the server gives it: with a version that moves when it changes."""
        version = str(self.versions.get(key, 0))
        more = {"resourceVersion": version, **self.managed(key)}
        return {**content, "metadata": {**content["metadata"], **more}}

    def managed(self, key: str) -> dict[str, Any]:
        """Who has applied an object, and its uid, where that is to be told."""
        if key not in self.owners:
            return {}
        entry = {"manager": self.owners[key], "operation": "Apply"}
        return {"managedFields": [entry], "uid": f"uid-{key}"}

    def get(self, path: str, query: str = "") -> dict[str, Any] | None:
        self.asked.append(path)
        plural = path.rpartition("/")[2]
        if plural in self.plurals():
            return {"kind": "List", "items": self._chosen(plural, query)}
        key = "/".join(path.split("/")[-2:])
        if key in self.objects:
            return self.live(key, self.objects[key])
        return self.discovery(path)


def _merged(old: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7396)."""
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value) if isinstance(value, dict) else value
    return made


def conflict(*causes: tuple[str, str]) -> tuple[int, dict[str, Any]]:
    """The answer of a real API server when other managers own fields."""
    told = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner}" using serving.yatai.ai/v2alpha1',
            "field": path,
        }
        for owner, path in causes
    ]
    return refusal(409, "Conflict", "Apply failed with conflicts", {"causes": told})


def refusal(
    status: int, reason: str, message: str, details: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
    return status, {**body, "reason": reason, "message": message, "details": details or {}}


@contextmanager
def serve_api(server: ApiServer) -> Iterator[ApiServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self._struck():
                return
            if urlsplit(self.path).path.rpartition("/")[2] in server.forbidden:
                self._answer(*refusal(403, "Forbidden", "not for you"))
                return
            found = server.get(urlsplit(self.path).path, urlsplit(self.path).query)
            self._answer(200 if found else 404, found or refusal(404, "NotFound", "no such")[1])

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self._struck():
                return
            self._answer(*server.patch(self.path, self.headers["Content-Type"], body))

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(*server.delete(self.path))

        def _struck(self) -> bool:
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if server.token and given != server.token:
                self._answer(*refusal(401, "Unauthorized", "Unauthorized"))
                return True
            if not server.passing:
                return False
            status, headers = server.passing.pop(0)
            if status:
                self._answer(*refusal(status, "Passing", "it will pass"), headers)
            return True

        def _answer(
            self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listener.server_port}"
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def write_kubeconfig(path: Path, url: str, token: str = "none") -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stub",
        "clusters": [{"name": "stub", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "me"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path
