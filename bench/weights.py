"""Take a model with random weights to an image, step by step and in one step, and count its bytes.

`python -m bench.weights` writes build/bench/weights.json and prints a table. Each step is a process
of its own with a folder of its own; its artifacts go through a real S3 server as Kubeflow's
launcher carries them, one file at a time, up after a step and down before the next. A real MLflow
server has the model, a real registry gets the image. Packages come from one cache of uv's for all,
which a first round fills that does not count; after it the registry knows the packages' layers,
too. What is measured is what the weights cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from bench.process import Usage, run
from bench.registry import Registry
from kfp_bento.runtime.local import tracking_server

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "build" / "bench" / "weights.json"
LONG, SHORT = "step by step", "package_model"
LOADER = """\
def _load_pyfunc(path):
    return Model()

class Model:
    def predict(self, inputs):
        return (inputs["a"] * 2).to_numpy()
"""
EXAMPLE = {"dataframe_split": {"columns": ["a"], "data": [[1.0], [2.5]]}}
_CHUNK = 16 << 20
_KEY, _SECRET, _BUCKET = "bench", "bench-secret", "pipelines"


@dataclass
class Step:
    """What one step cost.

    Attributes:
        usage: Of its process.
        down: Bytes of artifacts that were fetched for it.
        up: Bytes of artifacts that it left.
        carrying: Seconds that both took.
        disk: The most bytes that its folder held.
        outputs: Its artifacts (key and metadata) and parameters.
    """

    usage: Usage
    down: int = 0
    up: int = 0
    carrying: float = 0.0
    disk: int = 0
    outputs: dict[str, Any] = field(default_factory=dict)


class Storage:
    """The pipeline's bucket, on a real SeaweedFS."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_SECRET,
            region_name="us-east-1",
        )

    def prepare(self) -> None:
        """Make the bucket."""
        self._client.create_bucket(Bucket=_BUCKET)
        self._client.put_object(Bucket=_BUCKET, Key="first", Body=b"first")

    def store(self, source: Path, key: str) -> int:
        """Put a file or a folder; give its bytes."""
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        total = 0
        for file in (file for file in files if file.is_file()):
            place = key if file == source else f"{key}/{file.relative_to(source).as_posix()}"
            self._client.upload_file(str(file), _BUCKET, place)
            total += file.stat().st_size
        return total

    def fetch(self, key: str, to: Path) -> int:
        """Get a file or a folder; give its bytes."""
        total = 0
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET, Prefix=key)
        for one in (one for page in pages for one in page.get("Contents", [])):
            rest = one["Key"].removeprefix(key)
            if rest and not rest.startswith("/"):
                continue
            place = to / rest.removeprefix("/") if rest else to
            place.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(_BUCKET, one["Key"], str(place))
            total += one["Size"]
        return total


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2048, help="Of weights.")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-weights-"))
    try:
        rounds = list(_rounds(work, options.megabytes << 20, options.rounds))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = {
        "processors": len(os.sched_getaffinity(0)),
        "weights": options.megabytes << 20,
        "rounds": options.rounds,
        "figures": {
            road: {
                name: statistics.median(one[road][name] for one in rounds)
                for name in rounds[0][road]
            }
            for road in (LONG, SHORT)
        },
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    _show(report)


def _rounds(work: Path, weights: int, rounds: int) -> Iterator[dict[str, dict[str, float]]]:
    with (
        _storage(work / "storage") as storage,
        Registry(work / "registry") as registry,
        tracking_server(work / "mlflow") as tracking,
    ):
        tracking.wait()
        os.environ.update(
            tracking.environment,
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_TRACKING_URI=tracking.address,
        )
        common = {
            **os.environ,
            "UV_CACHE_DIR": str(work / "uv"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for number in range(rounds + 1):
            # New weights each time: nothing of them is known anywhere.
            version = _registered(work / f"model-{number}", weights if number else 1 << 20)
            found = {}
            roads = (LONG, SHORT) if number % 2 else (SHORT, LONG)
            for road in roads:
                repository = f"{registry.address}/{road.replace(' ', '-')}/weights"
                place = work / f"{number}-{road.replace(' ', '-')}"
                with registry.counted() as counts:
                    steps = _road(road, version, repository, place, storage, common)
                found[road] = _figures(steps, counts[0].bytes_sent)
                shutil.rmtree(place)
            if number:
                yield found


def _registered(folder: Path, weights: int) -> str:
    """Register a model whose weights nobody reads; give its URI."""
    import mlflow

    (folder / "code").mkdir(parents=True)
    (folder / "code" / "bench_loader.py").write_text(LOADER)
    signature = {"inputs": [{"type": "double", "name": "a", "required": True}]}
    signature["outputs"] = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]
    flavor = {"loader_module": "bench_loader", "code": "code"}
    texts = {key: json.dumps(value) for key, value in signature.items()}
    model = {"flavors": {"python_function": flavor}, "signature": texts}
    (folder / "MLmodel").write_text(yaml.safe_dump(model))
    (folder / "requirements.txt").write_text(f"mlflow=={mlflow.__version__}\n")
    (folder / "serving_input_example.json").write_text(json.dumps(EXAMPLE))
    with (folder / "weights.bin").open("wb") as file:
        for start in range(0, weights, _CHUNK):
            file.write(os.urandom(min(_CHUNK, weights - start)))
    with mlflow.start_run() as active:
        mlflow.log_artifacts(str(folder), "model")
    made = mlflow.register_model(f"runs:/{active.info.run_id}/model", "weights")
    shutil.rmtree(folder)
    return f"models:/weights/{made.version}"


def _road(
    road: str,
    version: str,
    repository: str,
    place: Path,
    storage: Storage,
    environment: Mapping[str, str],
) -> list[Step]:
    image = {"destination": f"{repository}:v1", "base": "host"}

    def step(name: str, parameters: dict[str, Any], **inputs: Any) -> Step:
        return _step(name, parameters, inputs, place / name, storage, environment)

    if road == SHORT:
        return [step("package_model", {"model_uris": [version], **image})]
    pulled = step("pull_model", {"model_uris": [version]})
    models = pulled.outputs["models"]
    scanned = step("scan_model", {}, models=models)
    verdict = {"scan_verdict": scanned.outputs["verdict"]}
    built = step("build_bento", verdict, models=models)
    return [pulled, scanned, built, step("build_image", image, bento=built.outputs["bento"])]


def _step(
    name: str,
    parameters: dict[str, Any],
    inputs: dict[str, Any],
    place: Path,
    storage: Storage,
    environment: Mapping[str, str],
) -> Step:
    """Run a step as its pod would be: inputs fetched, outputs stored, and nothing else in it."""
    text = (ROOT / "components" / name / "component.yaml").read_text()
    specification = next(yaml.safe_load_all(text))
    key = name.replace("_", "-")
    component = specification["components"][f"comp-{key}"]
    container = specification["deploymentSpec"]["executors"][f"exec-{key}"]["container"]
    place.mkdir(parents=True)
    began, down, artifacts = time.monotonic(), 0, {}
    for one, (stored, metadata) in inputs.items():
        target = place / "in" / one
        down += storage.fetch(stored, target)
        artifacts[one] = _artifact(one, target, metadata)
    carrying = time.monotonic() - began
    wanted = component["outputDefinitions"].get("artifacts", {})
    made = {one: _artifact(one, place / "out" / one, {}) for one in wanted}
    (place / "out").mkdir()
    told = place / "told.json"
    given = _defaults(component) | parameters
    executor_input = {
        "inputs": {"parameterValues": given, "artifacts": artifacts},
        "outputs": {"artifacts": made, "outputFile": str(told)},
    }
    arguments = [one.replace("{{$}}", json.dumps(executor_input)) for one in container["args"]]
    temporary = place / "tmp"
    temporary.mkdir()
    variables = {**environment, "TMPDIR": str(temporary), "HOME": str(temporary)}
    with _watched(place) as most:
        usage = run(
            [*container["command"], *arguments],
            variables,
            place / "log",
            cwd=place,
            watch_memory=True,
        )
    found = json.loads(told.read_text())
    outputs = dict(found.get("parameterValues", {}))
    began, up = time.monotonic(), 0
    for one in wanted:
        metadata = found.get("artifacts", {}).get(one, {}).get("artifacts", [{}])[0]
        stored = f"{place.parent.name}/{name}/{one}"
        up += storage.store(place / "out" / one, stored)
        outputs[one] = (stored, metadata.get("metadata", {}))
    carrying += time.monotonic() - began
    return Step(usage, down, up, carrying, most[0], outputs)


def _artifact(name: str, place: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    kind = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
    return {"artifacts": [{"name": name, "type": kind, "uri": str(place), "metadata": metadata}]}


def _defaults(component: Mapping[str, Any]) -> dict[str, Any]:
    found = component.get("inputDefinitions", {}).get("parameters", {})
    return {key: one["defaultValue"] for key, one in found.items() if "defaultValue" in one}


@contextlib.contextmanager
def _watched(place: Path) -> Iterator[list[int]]:
    """Look how much a folder holds, until the end of the block; the list has the most."""
    most, end = [0], threading.Event()

    def look() -> None:
        while not end.wait(0.25):
            most[0] = max(most[0], _held(place))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        end.set()
        watcher.join()


def _held(place: Path) -> int:
    """Bytes on the disk below a folder; what is linked twice counts once."""
    found: dict[int, int] = {}
    for folder, _, files in os.walk(place):
        for file in files:
            with contextlib.suppress(OSError):
                status = Path(folder, file).lstat()
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _figures(steps: list[Step], sent: int) -> dict[str, float]:
    seconds = sum(step.usage.seconds for step in steps)
    carrying = sum(step.carrying for step in steps)
    return {
        "seconds": round(seconds + carrying, 2),
        "seconds of carrying artifacts": round(carrying, 2),
        "CPU seconds": round(sum(step.usage.cpu_seconds for step in steps), 2),
        "MB through the pipeline's storage": round(sum(s.up + s.down for s in steps) / 1e6, 1),
        "MB to the registry": round(sent / 1e6, 1),
        "MB of disk, the largest step": round(max(step.disk for step in steps) / 1e6, 1),
        "MB of memory, the largest step": round(max(s.usage.peak_rss for s in steps) / 1e6, 1),
    }


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[Storage]:
    """Run SeaweedFS, which Kubeflow Pipelines ships."""
    binary = Path(sys.executable).with_name("weed")
    folder.mkdir(parents=True)
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    port = _free_port()
    command = [str(binary), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    command += ["-filer", "-s3", f"-s3.config={folder}/s3.json", "-master.telemetry=false"]
    command += [f"-s3.port={port}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    for option in ("master", "volume", "filer"):
        command += [f"-{option}.port={_free_port()}", f"-{option}.port.grpc={_free_port()}"]
    command += [f"-s3.port.grpc={_free_port()}", "-volume.max=100", "-volume.preStopSeconds=0"]
    command += [f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait(f"{endpoint}/healthz", server)
        storage = Storage(endpoint)
        storage.prepare()
        yield storage
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError("The object store did not start.")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _show(report: dict[str, Any]) -> None:
    weights = report["weights"] >> 20
    table = Table(f"{weights} MiB of weights", LONG, SHORT, "ratio")
    long, short = (report["figures"][road] for road in (LONG, SHORT))
    for name, value in long.items():
        ratio = round(short[name] / value, 3) if value else ""
        table.add_row(name, str(value), str(short[name]), str(ratio))
    Console().print(table)


if __name__ == "__main__":
    main()
