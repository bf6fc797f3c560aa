"""What Kubeflow's launcher does inside a step's container, played; it runs in the step's Python.

    launcher.py ENDPOINT BUCKET RESULT EXECUTOR_INPUT COMMAND...

It brings input artifacts from object storage to the paths that their URIs stand for, makes the
folders of the outputs, runs the command with its output in a log, and brings the output artifacts
back. Of a command that fails only the log is kept. What the real one tells the API server lies in
the object RESULT. Facts: `backend/src/v2/component/launcher_v2.go` of Kubeflow Pipelines 2.17.
"""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

SECRET = "mlpipeline-minio-artifact"
LOG = "executor-logs"
FOLDERS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}


def path_of(uri: str) -> Path | None:
    """Where an artifact lies in the container; None for what is not in object storage."""
    for scheme, folder in FOLDERS.items():
        if uri.startswith(scheme):
            return Path(folder + uri.removeprefix(scheme))
    return None


class Bucket:
    """The bucket of the run, with the credentials of the namespace's Secret."""

    def __init__(self, endpoint: str, name: str) -> None:
        import boto3
        from kubernetes import client, config

        config.load_incluster_config()
        account = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        namespace = account.read_text()
        found = client.CoreV1Api().read_namespaced_secret(SECRET, namespace).data
        self._name = name
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=b64decode(found["accesskey"]).decode(),
            aws_secret_access_key=b64decode(found["secretkey"]).decode(),
            region_name="us-east-1",
        )

    def key_of(self, uri: str) -> str:
        """The key of an artifact; one elsewhere is refused, as by the real launcher."""
        start = f"minio://{self._name}/"
        if not uri.startswith(start):
            raise ValueError(f"{uri} is not in {start}")
        return uri.removeprefix(start)

    def fetch(self, uri: str, to: Path) -> None:
        key = self.key_of(uri)
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._name, Prefix=key):
            for one in page.get("Contents", []):
                rest = one["Key"].removeprefix(key)
                if rest == "" or rest.startswith("/"):
                    place = to / rest.removeprefix("/") if rest else to
                    place.parent.mkdir(parents=True, exist_ok=True)
                    self._client.download_file(self._name, one["Key"], str(place))

    def store(self, source: Path, uri: str) -> None:
        """Uploads a file, or all files of a folder; an output that was not made is none."""
        key = self.key_of(uri)
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        for file in files:
            if file.is_file():
                place = key if file == source else f"{key}/{file.relative_to(source).as_posix()}"
                self._client.upload_file(str(file), self._name, place)

    def tell(self, key: str, what: Any) -> None:
        self._client.put_object(Bucket=self._name, Key=key, Body=json.dumps(what).encode())


def artifacts_of(side: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: given["artifacts"][0] for name, given in side.get("artifacts", {}).items()}


def run(command: list[str], log: Path) -> int:
    """Runs a step; its output goes on and is kept."""
    with (
        log.open("wb") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as step,
    ):
        assert step.stdout is not None
        while part := step.stdout.read1():
            kept.write(part)
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
    return step.returncode


def results(outputs: dict[str, Any]) -> dict[str, Any]:
    """Parameters and artifacts as the step has told them, the rest from its files."""
    told = Path(outputs["outputFile"])
    found = json.loads(told.read_text()) if told.exists() else {}
    parameters = found.get("parameterValues", {})
    for name, given in outputs.get("parameters", {}).items():
        if name not in parameters:
            parameters[name] = Path(given["outputFile"]).read_text()
    artifacts = artifacts_of(outputs)
    for name, told_of in artifacts_of(found).items():
        artifacts[name]["uri"] = told_of.get("uri") or artifacts[name]["uri"]
        artifacts[name]["metadata"].update(told_of.get("metadata") or {})
    return {"parameters": parameters, "artifacts": artifacts}


def main(endpoint: str, name: str, result: str, given: str, *command: str) -> int:
    executor_input = json.loads(given)
    inputs, outputs = executor_input["inputs"], executor_input["outputs"]
    bucket = Bucket(endpoint, name)
    for artifact in artifacts_of(inputs).values():
        if path := path_of(artifact["uri"]):
            bucket.fetch(artifact["uri"], path)
    for parameter in outputs.get("parameters", {}).values():
        Path(parameter["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
    made = artifacts_of(outputs)
    for artifact in made.values():
        path = path_of(artifact["uri"])
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
    log = made.pop(LOG)
    place = path_of(log["uri"])
    assert place is not None
    code = run(list(command), place)
    bucket.store(place, log["uri"])
    if code == 0:
        told = results(outputs)
        for artifact in told["artifacts"].values():
            if path := path_of(artifact["uri"]):
                bucket.store(path, artifact["uri"])
        bucket.tell(result, told)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
