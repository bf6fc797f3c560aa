"""Steps run in pods that share no key: the pulling step tells the others which records count."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kfp_bento.components import build_bento, promote_model, pull_model
from kfp_bento.runtime.checks import CheckReport, ReleaseReports
from kfp_bento.runtime.deployments import ReleaseFacts
from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import ModelVersion


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("HOME", "XDG_STATE_HOME", "KFP_BENTO_RECORD_KEY"):
        monkeypatch.delenv(name, raising=False)

    def made(name: str) -> Any:
        return SimpleNamespace(path=str(tmp_path / name), metadata={})

    return made


@pytest.fixture
def pulled(wine_model: ModelVersion, artifact: Any) -> Any:
    """The facts that pull_model leaves behind in a pod without a home."""
    facts = artifact("facts")
    pull_model.python_func(model_uris=["models:/wine/1"], models=artifact("models"), facts=facts)
    return facts


def test_the_building_step_takes_another_python(
    artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_bento.runtime.bentos.build.lock_requirements", lambda *_: "six==1.0\n")
    model, bento = artifact("model"), artifact("bento")
    rest = {"golden": artifact("golden"), "facts": artifact("bento-facts")}
    Path(model.path).mkdir()
    old = "{loader_module: x, python_version: 3.8.5}"
    (Path(model.path) / "MLmodel").write_text(f"flavors: {{python_function: {old}}}\n")
    with pytest.raises(InvalidInput, match=r"Python '3\.8'"):
        build_bento.python_func(models=model, bento=bento, **rest)
    build_bento.python_func(
        models=model,
        bento=bento,
        **rest,
        python_version="3.11",
        verify=False,
    )
    assert bento.metadata["python_version"] == "3.11"


def promote(models: Any, artifact: Any, wine_model: ModelVersion) -> Any:
    release = ReleaseFacts("workload", "rendered", "wine", "default", "0" * 16)
    made = [
        CheckReport(name, True, "", {}, (), (wine_model.digest,), "", release=release.title)
        for name in ("smoke_test", "compare_predictions")
    ]
    reports = artifact("reports.json")
    record = ReleaseReports(release, tuple(made)).save(Path(reports.path))
    reports.metadata["record"] = record
    return promote_model.python_func(
        models=models,
        reports=reports,
        alias="tested",
        record=artifact("record.json"),
        summary=artifact("summary.md"),
        page=artifact("page.html"),
    )


def test_the_model_that_the_pulling_step_tells_of_is_promoted(
    pulled: Any, artifact: Any, wine_model: ModelVersion
) -> None:
    assert pulled.metadata["record"].startswith("sha256:")
    assert promote(pulled, artifact, wine_model) == ({"wine": "1"},)


def test_a_model_whose_step_told_nothing_is_not_promoted(
    pulled: Any, artifact: Any, wine_model: ModelVersion
) -> None:
    del pulled.metadata["record"]
    with pytest.raises(ModelError, match="are not what the step wrote"):
        promote(pulled, artifact, wine_model)


def test_a_record_that_was_changed_in_object_storage_is_refused(
    pulled: Any, artifact: Any, wine_model: ModelVersion
) -> None:
    record = Path(pulled.path)
    record.write_text(record.read_text().replace('"1"', '"2"'))
    with pytest.raises(ModelError, match="are not what the step wrote"):
        promote(pulled, artifact, wine_model)
