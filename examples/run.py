"""Run examples, from a registry to checked answers: `python examples/run.py [NAME ...]`.

For each one its models are trained and registered at a tracking server of this run, a pipeline
(`serve_model`, or that of the folder) takes them to a release on this machine, and the release is
asked what `requests.yaml` says. The answers are held against those that the registry's models give
without BentoML, by `expected.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from uv import find_uv_bin

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.local import ADDRESS_VARIABLE, Step, local_target, run_pipeline
from kfp_bento.runtime.local.mlflow_server import tracking_server
from kfp_bento.runtime.local.runs import Run
from kfp_bento.runtime.local.target import LocalTarget
from kfp_bento.runtime.proof import Golden

HERE = Path(__file__).parent
NAMES = sorted(file.parent.name for file in HERE.glob("*/arguments.yaml"))
ON_A_CLUSTER = sorted(file.parent.name for file in HERE.glob("*/cluster.yaml"))
LONGEST_LINE = 100
QUIET = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
RIGHT = ("the same", "a picture", "refused")
"""Verdicts on answers that are as they should be."""


@dataclass(frozen=True)
class Answer:
    """What a release answered to a request.

    Attributes:
        label: The request's name in requests.yaml.
        path: Where it went.
        asked: What was asked, for people.
        status: The HTTP status.
        media_type: Of the body.
        body: The bytes.
        expected: What the registry's models make of it, if they were asked.
    """

    label: str
    path: str
    asked: str
    status: int
    media_type: str
    body: bytes
    expected: Any = None

    @property
    def value(self) -> Any:
        """The body as a JSON value."""
        return json.loads(self.body)

    @property
    def verdict(self) -> str:
        """How it compares with what the registry's models give."""
        if self.expected is not None:
            right = self.status == 200 and same(self.value, self.expected)
            return "the same" if right else f"OTHERWISE: {json.dumps(self.expected)}"
        if self.media_type.startswith("image/") and self.status == 200:
            return "a picture"
        return "refused" if self.status == 400 else f"NOT REFUSED, but {self.status}"


def same(served: Any, expected: Any) -> bool:
    """Say whether two JSON values are equal but for the rounding of floats."""
    if isinstance(served, float) and isinstance(expected, int | float):
        return math.isclose(served, expected, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(served, dict) and isinstance(expected, dict):
        return served.keys() == expected.keys() and all(
            same(value, expected[key]) for key, value in served.items()
        )
    if isinstance(served, list) and isinstance(expected, list):
        return len(served) == len(expected) and all(map(same, served, expected))
    return bool(served == expected)


def in_its_environment(
    name: str, script: str, variables: Mapping[str, str], *arguments: str | Path
) -> str:
    """Run a script of an example with its own requirements and nothing of ours; give its output."""
    folder = HERE / name
    uv = [find_uv_bin(), "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable]
    uv += ["--with-requirements", str(folder / "requirements.txt")]
    done = subprocess.run(
        [*uv, "python", folder / script, *arguments],
        env={**os.environ, **QUIET, **variables},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{folder / script} failed:\n{done.stderr}")
    return done.stdout


def prepare(name: str, directory: Path, variables: Mapping[str, str]) -> str:
    """Train and register, and where a bento is built beforehand build it; give what was said."""
    said = in_its_environment(name, "train.py", variables)
    if (HERE / name / "build.py").exists():
        directory.mkdir(parents=True, exist_ok=True)
        store = {"BENTOML_HOME": str((directory / "store").resolve())}
        Path(store["BENTOML_HOME"]).mkdir(exist_ok=True)
        said += in_its_environment(name, "build.py", {**variables, **store}, archive(directory))
    return said


def archive(directory: Path) -> Path:
    """Say where the bento lies that an example builds beforehand."""
    return directory.resolve() / "built.bento"


def serve(
    name: str,
    directory: Path,
    variables: Mapping[str, str],
    target: LocalTarget,
    base: str,
) -> Run:
    """Run the pipeline of an example with its arguments, and with those of this machine."""
    given = yaml.safe_load((HERE / name / "arguments.yaml").read_text())
    given |= {
        "image_base": base,
        "image_destination": f"oci:{directory.resolve() / 'image'}",
        "deploy_mode": "local",
    }
    pipeline = "serve_model"
    if (HERE / name / "pipeline.py").exists():
        pipeline = f"examples.{name}.pipeline:serve"
        given["bento_uri"] = archive(directory).as_uri()
    return run_pipeline(
        pipeline,
        given,
        directory / "run",
        environment={**variables, ADDRESS_VARIABLE: target.address},
        on_step=_print_step,
    )


def ask(name: str, run: Run, url: str, expected: Mapping[str, Any]) -> Iterator[Answer]:
    """Ask a release what the bento was proven with."""
    (place,) = run.directory.glob("*-bento/golden")
    golden = Golden.load(place)
    written = yaml.safe_load((HERE / name / "requests.yaml").read_text())
    for request, asked in zip(golden.requests, written, strict=True):
        content = request.content
        assert content is not None  # noqa: S101 - every request of the examples has a body
        status, media_type, body = _sent(
            f"{url}{request.path}", content.to_bytes(), content.media_type
        )
        shown = json.dumps(asked.get("body") or asked["multipart"])
        label = request.label
        yield Answer(label, request.path, shown, status, media_type, body, expected.get(label))


def _sent(url: str, body: bytes, media_type: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": media_type})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - on this machine
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


def run_example(name: str, directory: Path, variables: Mapping[str, str], base: str) -> bool:
    """Run one example and print what was asked and answered; say whether all is as it should be."""
    print(f"\n{name}\n  training …", flush=True)
    print(textwrap.indent(prepare(name, directory, variables), "  "), end="", flush=True)
    with local_target(directory / "service", cache=directory.parent / "cache") as target:
        run = serve(name, directory, variables, target, base)
        expected = json.loads(in_its_environment(name, "expected.py", variables))
        answers = list(ask(name, run, target.services[-1].url, expected))
    for answer in answers:
        _print_answer(answer, directory)
    if (run.directory / "promote-model").exists():
        promoted = run.record("promote-model")
        names = ", ".join(f"{one['name']} {one['version']}" for one in promoted["models"])
        print(f"\n  {promoted['alias']} is now {names}")
    return all(answer.verdict in RIGHT for answer in answers)


def run_on_a_cluster(name: str, directory: Path, variables: Mapping[str, str]) -> None:
    """Run an example that needs a cluster where one is configured; say so elsewhere."""
    from kfp_bento.runtime.deployments.kube.cluster import cluster_configured, connect

    print(f"\n{name}", flush=True)
    if not cluster_configured():
        print("  left out: it needs a cluster, and none is configured; see its README")
        return
    with connect() as cluster:
        if not cluster.knows("resources.yatai.ai/v1alpha1", "BentoRequest"):
            print("  left out: the cluster that is configured has no BentoRequest; see its README")
            return
    print(textwrap.indent(prepare(name, directory, variables), "  "), end="", flush=True)
    given = yaml.safe_load((HERE / name / "cluster.yaml").read_text())
    run_pipeline(
        "serve_with_yatai_builder",
        given,
        directory / "run",
        environment=variables,
        on_step=_print_step,
    )


def _print_step(step: Step) -> None:
    if step.seconds is not None:
        print(
            f"  {'ok' if step.succeeded else 'FAILED':6} {step.name:20} {step.seconds:6.1f} s",
            flush=True,
        )


def _print_answer(answer: Answer, directory: Path) -> None:
    if answer.media_type.startswith("image/"):
        suffix = answer.media_type.partition("/")[2]
        place = directory / f"{answer.label.replace(' ', '-')}.{suffix}"
        place.write_bytes(answer.body)
        shown = str(place)
    else:
        shown = answer.body.decode()
    print(f"\n  {answer.label}: POST {answer.path}")
    print(f"    asked     {_short(answer.asked)}")
    print(f"    answered  {answer.status} {_short(shown)}")
    print(f"    registry  {answer.verdict}")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…"


def main(arguments: Sequence[str]) -> int:
    """Run the examples that were named, or all of them."""
    parser = argparse.ArgumentParser(description="Run examples from registry to checked answers.")
    known = [*NAMES, *ON_A_CLUSTER]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--to", type=Path, default=Path("build/examples"), help="receives all")
    parser.add_argument("--base", default="host", help="the base image; default: this machine")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.names} - {*known}):
        parser.error(f"there is no example {unknown[0]}; there are {', '.join(known)}")
    os.chdir(HERE.parent)  # where the paths in arguments.yaml begin
    wrong = []
    with tracking_server(given.to / "mlflow") as tracking:
        variables = {
            **tracking.environment,
            "MLFLOW_TRACKING_URI": tracking.address,
            "KFP_BENTO_CACHE": str((given.to / "cache").resolve()),
        }
        tracking.wait()
        for name in given.names or known:
            if name in ON_A_CLUSTER:
                run_on_a_cluster(name, given.to / name, variables)
            elif not run_example(name, given.to / name, variables, given.base):
                wrong.append(name)
    print(f"\n{'Wrong: ' + ', '.join(wrong) if wrong else 'All answers are right.'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KfpBentoError as error:
        sys.exit(str(error))
