"""Answers requests to bentos in-process, one fork per bento: quick, and really over ASGI.

Reads lines of JSON `{"bento": directory, "requests": [[method, path, body], …]}` and writes for
each a line with the list of `[status, answer]`, or `{"error": text}`.

A job with `"whole": true` has requests `{"method", "path", "headers", "body", "chunks"}` with texts
in latin-1, or `{"write": path, "content": text}`; its answer is `{"answers": [{"status", "headers",
"text"}, …], "log": text}`. Its `"environment"` holds while the service is loaded and asked.
"""

import contextlib
import gc
import importlib
import io
import json
import logging
import os
import sys
from pathlib import Path

import bentoml
from bentoml._internal.log import SERVER_LOGGING_CONFIG, configure_server_logging
from starlette.testclient import TestClient

LOADED_ONCE = (
    *("_bentoml_impl.client", "_bentoml_impl.loader", "_bentoml_impl.server.app"),
    *("anyio._backends._asyncio", "bentoml._internal.runner.container"),
    *("mlflow.pyfunc", "mlflow.sklearn", "opentelemetry.instrumentation.asgi"),
    *("pandas", "pyarrow.pandas_compat", "skops.io", "sklearn.linear_model"),
)
"""Modules that every bento would load anew, a second of work with scikit-learn's."""


def answers(job):
    service = bentoml.load(job["bento"], standalone_load=True)
    with TestClient(service.to_asgi(), raise_server_exceptions=False) as client:
        for method, path, body in job["requests"]:
            content = body if isinstance(body, str) else json.dumps(body)
            response = client.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
            try:
                yield [response.status_code, response.json()]
            except ValueError:
                yield [response.status_code, response.text]


def whole_answers(job):
    os.environ.update(job["environment"])
    log = io.StringIO()
    configure_server_logging()
    for logger in (logging.getLogger(), *map(logging.getLogger, SERVER_LOGGING_CONFIG["loggers"])):
        for handler in logger.handlers:
            handler.setStream(log)
    service = bentoml.load(job["bento"], standalone_load=True)
    base = job["base"]
    given = []
    with TestClient(service.to_asgi(), base_url=base, raise_server_exceptions=False) as client:
        for request in job["requests"]:
            if "write" in request:
                Path(request["write"]).write_text(request["content"])
                continue
            body = request["body"].encode("latin-1")
            size = request.get("chunks")
            pieces = (body[n : n + size] for n in range(0, len(body), size)) if size else body
            made = client.build_request(
                request["method"],
                request["path"],
                content=pieces,
                headers={name: text.encode("latin-1") for name, text in request["headers"].items()},
            )
            response = client.send(made, follow_redirects=False)
            given.append(
                {
                    "status": response.status_code,
                    "headers": dict(response.headers),
                    "text": response.content.decode("latin-1"),
                }
            )
    return {"answers": given, "log": log.getvalue()}


def main():
    channel = os.dup(1)
    os.dup2(2, 1)  # what a model prints must not get between the answers
    for name in LOADED_ONCE:
        importlib.import_module(name)
    gc.freeze()  # what is not looked at is not copied
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                job = json.loads(line)
                result = whole_answers(job) if job.get("whole") else list(answers(job))
            except BaseException as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            data = (json.dumps(result) + "\n").encode()
            while data:
                data = data[os.write(channel, data) :]
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            os.wait()


if __name__ == "__main__":
    main()
