"""A stub of Kubeflow Pipelines' API, version v2beta1: experiments, runs and their steps.

No API server of theirs runs without a cluster. What comes in was sent by the real client, and what
goes out is read by its models; runs go on by one look each, through the states that a test plays.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "/apis/v2beta1/"
Answer = tuple[int, Any]


def step(name: str, state: str, *, error: str = "", seconds: int = 3) -> dict[str, Any]:
    """One task as GetRun lists it."""
    made: dict[str, Any] = {
        "task_id": f"task-{name}",
        "display_name": name,
        "state": state,
        "create_time": "2026-11-30T12:00:00Z",
        "start_time": "2026-11-30T12:00:00Z",
        # Go's zero time, as the server sends it for what has not ended.
        "end_time": "0001-01-01T00:00:00Z",
    }
    if state in ("SUCCEEDED", "FAILED"):
        made["end_time"] = f"2026-11-30T12:00:{seconds:02}Z"
    if error:
        made["error"] = {"code": 13, "message": error}
    return made


@dataclass
class KubeflowPipelines:
    """What the stub knows and was asked."""

    url: str = ""
    multi_user: bool = False
    namespaces: tuple[str, ...] = ("team",)
    # The only token that is taken; any when empty.
    token: str = ""
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    pipeline_versions: list[dict[str, Any]] = field(default_factory=list)
    # What the looks at a run show, one after the other; the last one stays.
    looks: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    # Answered one by one before anything else: status and body; 0 cuts, -1 hangs.
    passing: list[Answer] = field(default_factory=list)
    # Called when a run was made, before anybody is told.
    on_made: Callable[[], Any] = lambda: None
    # Answers to the next creations that are lost, though the run is made.
    lost: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, target: str, body: Any) -> Answer:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        kind, _, name = parts.path.removeprefix(PREFIX).partition("/")
        if kind == "healthz":
            return 200, {"multi_user": self.multi_user}
        sent = body if isinstance(body, dict) else {}
        namespace = query.get("namespace", "") or sent.get("namespace", "")
        if self.multi_user and not name and not (method == "POST" and kind == "runs"):
            if not namespace:
                return refusal(400, 3, "In multi-user mode, the namespace must be given.")
            if namespace not in self.namespaces:
                return refusal(403, 7, f"User is not authorized for namespace {namespace}.")
        if kind == "experiments":
            return self.experiment(body) if method == "POST" else self.listed(kind, query)
        if kind == "runs" and method == "POST":
            return self.make(body)
        if kind == "pipelines":
            return self.pipeline(name, query, body)
        if kind == "runs" and name:
            return self.look(name)
        return self.listed(kind, query) if kind == "runs" else (404, "404 page not found")

    def experiment(self, body: dict[str, Any]) -> Answer:
        self.experiments.append(body | {"experiment_id": str(uuid.uuid4())})
        return 200, self.experiments[-1]

    def pipeline(self, name: str, query: dict[str, str], body: Any) -> Answer:
        told = {"display_name": query.get("name"), "description": query.get("description", "")}
        if name == "upload":
            made = {"pipeline_id": str(uuid.uuid4()), "namespace": query.get("namespace", "")}
            self.pipelines.append(told | made | {"package": body})
            return 200, self.pipelines[-1]
        if name == "upload_version":
            made = {"pipeline_id": query["pipelineid"], "pipeline_version_id": str(uuid.uuid4())}
            self.pipeline_versions.append(told | made | {"package": body})
            return 200, self.pipeline_versions[-1]
        if not name:
            return self.listed("pipelines", query)
        return self.listed("pipeline_versions", query, pipeline_id=name.partition("/")[0])

    def listed(self, kind: str, query: dict[str, str], **of: str) -> Answer:
        """What there is of a kind in the asked namespace, of the given owner, as filtered."""
        if "namespace" in query:
            of["namespace"] = query["namespace"]
        known: list[dict[str, Any]] = getattr(self, kind)
        # A run has its experiment's.
        kept = [one for one in known if all(one.get(key, to) == to for key, to in of.items())]
        predicates = json.loads(query.get("filter") or "{}").get("predicates", [])
        for one in predicates:
            assert one["operation"] in (1, "EQUALS")  # by number, or by name
            kept = [entry for entry in kept if entry[one["key"]] == one["stringValue"]]
        if query.get("sort_by", "").endswith(" desc"):
            kept = kept[::-1]  # they were made in the order in which they are kept
        page = kept[: int(query.get("page_size", "10"))]
        return 200, {kind: page, "total_size": len(kept)} if kept else {}

    def make(self, body: dict[str, Any]) -> Answer:
        known = {one["experiment_id"] for one in self.experiments}
        if body["experiment_id"] not in known:
            return refusal(404, 5, "There is no such experiment.")
        made = {"run_id": str(uuid.uuid4()), "state": "PENDING"}
        self.runs.append(body | made)
        self.on_made()
        if self.lost:
            self.lost -= 1
            return 0, None
        return 200, self.runs[-1]

    def look(self, run_id: str) -> Answer:
        for run in self.runs:
            if run["run_id"] == run_id:
                if self.looks:
                    run |= self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
                return 200, run
        return refusal(404, 5, f"Run {run_id} not found.")


def refusal(status: int, code: int, message: str) -> Answer:
    return status, {"error": message, "code": code, "message": message, "details": []}


@contextmanager
def serve_pipelines(api: KubeflowPipelines | None = None) -> Iterator[KubeflowPipelines]:
    served = api or KubeflowPipelines()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            served.asked.append(f"{self.command} {self.path}")
            length = int(self.headers.get("Content-Length") or 0)
            body: Any = self.rfile.read(length).decode() if length else None
            if body and not self.headers["Content-Type"].startswith("multipart/"):
                body = json.loads(body)
            given = self.headers.get("authorization", "")
            if served.passing:
                status, content = served.passing.pop(0)
            elif served.token and given != f"Bearer {served.token}":
                status, content = refusal(401, 16, "Request header error: there is no user.")
            else:
                status, content = served.answer(self.command, self.path, body)
            if status <= 0:
                if status < 0:
                    served.over.wait(60)
                self.close_connection = True
                return
            text = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "https://login.example.com/")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = respond  # noqa: N815 - the names that the server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        served.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
