"""The notebook runs from training to a promoted answer, and submits where there is a cluster."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from pipelines_api import serve_pipelines

NOTEBOOK = Path(__file__).parents[2] / "examples/notebook.ipynb"


def said(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_the_outputs_that_are_kept_are_those_of_a_whole_run() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [*range(1, len(counts) + 1)]
    assert "champion is version" in said(notebook)
    assert "failed" not in said(notebook)
    assert not {"/tmp", "/home", "/root"} & {*re.findall(r"/\w+", said(notebook))}


@pytest.mark.slow
def test_it_runs_to_a_promoted_answer_and_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with serve_pipelines() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        place = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=800, kernel_name="python3", resources=place).execute()
        (run,) = server.runs
    # Beside it kfp.Client sends what only Kubernetes knows, such as Secrets.
    specification = run["pipeline_spec"]["pipeline_spec"]
    assert specification["pipelineInfo"]["name"] == "serve-model"
    assert run["runtime_config"]["parameters"]["promote_alias"] == "champion"
    assert "champion is version 1" in said(notebook)
