"""Answers requests to bentos in-process, one fork per bento: quick, and really over ASGI.

Reads lines of JSON `{"bento": directory, "requests": [[method, path, body], …]}` and writes for
each a line with the list of `[status, answer]`, or `{"error": text}`.
"""

import contextlib
import json
import os
import sys

import bentoml
import mlflow.pyfunc  # noqa: F401 (loaded once, before the forks)
import numpy  # noqa: F401
import pandas  # noqa: F401
import sklearn.linear_model  # noqa: F401
from starlette.testclient import TestClient


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


def main():
    channel = os.dup(1)
    os.dup2(2, 1)  # what a model prints must not get between the answers
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                result = list(answers(json.loads(line)))
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
