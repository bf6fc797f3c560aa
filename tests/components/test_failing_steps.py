"""What the log of a step ends with, run by the command that Kubeflow runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def log_of(component: str, parameters: dict[str, Any], folder: Path) -> str:
    """Run a component's container as Kubeflow does, which has to fail; give what it printed."""
    specification = next(
        yaml.safe_load_all((ROOT / f"components/{component}/component.yaml").read_text())
    )
    (executor,) = specification["deploymentSpec"]["executors"].values()
    (found,) = (one for one in specification["components"].values() if "executorLabel" in one)
    outputs = {
        name: {
            "artifacts": [
                {
                    "name": name,
                    "type": one["artifactType"],
                    "uri": str(folder / name),
                    "metadata": {},
                }
            ]
        }
        for name, one in found["outputDefinitions"].get("artifacts", {}).items()
    }
    given = {
        "inputs": {"parameterValues": parameters},
        "outputs": {"artifacts": outputs, "outputFile": str(folder / "told.json")},
    }
    container = executor["container"]
    arguments = [one.replace("{{$}}", json.dumps(given)) for one in container["args"]]
    done = subprocess.run(
        [*container["command"], *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("component", "parameters"),
    [
        ("pull_model", {"model_uris": ["models:/"]}),
        ("package_model", {"model_uris": ["/nowhere"], "destination": "wine"}),
        ("deploy_bento", {"target": "none"}),
    ],
)
def test_an_expected_failure_is_told_in_the_last_lines_without_a_traceback(
    component: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    log = log_of(component, parameters, tmp_path)
    assert "Traceback" not in log
    *_, told, hint = log.strip().splitlines()
    assert told.startswith("kfp_bento.runtime.errors.")
    assert hint.startswith("Hint: ")


def test_a_failure_that_nobody_expected_keeps_its_traceback(tmp_path: Path) -> None:
    code = (
        "import os; os.environ['_KFP_RUNTIME'] = 'true'\n"
        "import kfp_bento.runtime\nraise ValueError('unexpected')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.startswith("Traceback")
    assert done.stderr.strip().endswith("ValueError: unexpected")
