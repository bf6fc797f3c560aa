"""Load and contract of bentos that BentoML itself serves."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_models import ROWS, make_golden
from kfp_bento_command import kfp_bento_here as kfp_bento
from servers import free_port, running
from small_models import COLUMNS, TWICE, small_model

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.checks import CheckReport, check_contract, contract_of
from kfp_bento.runtime.proof import Content

TOWN = {"type": "string", "name": "town", "required": True}


@contextmanager
def served(folder: Path, **model: Any) -> Iterator[str]:
    """The URL of a model's generated bento."""
    bento = build_bento([small_model(folder / "pair", **model)], folder / "bento")
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1"]
    command += ["--port", url.rpartition(":")[2], "--working-dir", str(bento.directory)]
    environment = {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    with running(command, f"{url}/readyz", folder / "log", **environment):
        yield url


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model of one column, which it doubles."""
    with served(tmp_path_factory.mktemp("first")) as url:
        yield url


def test_a_generated_service_answers_many_at_once_as_it_should(first: str, tmp_path: Path) -> None:
    golden = make_golden(lambda row: row["a"] * 2)
    rows = Content.json({"inputs": [{"a": row["a"]} for row in ROWS]})
    golden = replace(golden, requests=(replace(golden.requests[0], content=rows),))
    golden.save(tmp_path / "golden.json")
    command = ["check", "load", first, "--golden", tmp_path / "golden.json", "--max-requests", 200]
    command += ["--ramp-seconds", 0, "--users", 3, "--limit", "p95_ms=0.001", "--json"]
    command += ["--report", tmp_path / "report.json", "--html", tmp_path / "page.html"]
    done = kfp_bento(*command)
    assert done.returncode == 1, done.stderr
    report = CheckReport.load(tmp_path / "report.json")
    assert json.loads(done.stdout) == report.to_dict()
    assert (report.measures["requests"], report.measures["failures"]) == (200, 0)
    assert "<h1>" in (tmp_path / "page.html").read_text()


def test_a_generated_service_holds_its_own_contract(first: str, tmp_path: Path) -> None:
    contract = tmp_path / "contract.json"
    done = kfp_bento("check", "contract", first, "--save", contract, "--json")
    assert done.returncode == 0, done.stderr
    assert "no earlier contract" in json.loads(done.stdout)["summary"]
    assert len(zlib.compress(contract.read_bytes())) < 2_500
    kept = json.loads(contract.read_text())
    assert kept == contract_of(first)
    again = kfp_bento("check", "contract", first, "--against", contract)
    assert again.returncode == 0, again.stdout
    assert "go on working" in again.stdout
    kept["paths"]["/other"] = kept["paths"]["/predict"]
    contract.write_text(json.dumps(kept))
    broken = kfp_bento("check", "contract", first, "--against", contract)
    assert broken.returncode == 1
    assert "POST /other" in broken.stdout


@pytest.mark.slow
def test_another_signature_breaks_clients_and_another_version_does_not(
    first: str, tmp_path: Path
) -> None:
    before = contract_of(first)
    with served(tmp_path / "again", source=TWICE.replace("* 2", "* 3")) as url:
        report = check_contract(url, before)
        assert report.passed, report.evidence
        assert report.measures["additions"] == 0
    with served(tmp_path / "town", inputs=[*COLUMNS, TOWN], example=None) as url:
        report = check_contract(url, before)
        (broken,) = [one for one in report.evidence if "reason" in one]
        assert broken["request"].endswith("inputs[].town")
        assert broken["reason"] == "is new, and required"
        back = check_contract(url, contract_of(url), served=before)
        assert "inputs[].town is gone" in back.summary
