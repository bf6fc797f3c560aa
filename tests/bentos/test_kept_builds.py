"""BentoML builds the same generated service once; a service of one's own it builds each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import TWICE, small_model

from kfp_bento.runtime.bentos import build, build_bento
from kfp_bento.runtime.bentos.isolation import run_bentoml
from kfp_bento.runtime.models import tree_digest

SERVICE = "import bentoml\n\n@bentoml.service\nclass Greeter:\n    pass\n"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFP_BENTO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/builds"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services that BentoML built."""
    built: list[str] = []

    def noted(*asked: object) -> Path:
        built.append(str(asked[2]))
        return run_bentoml(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "run_bentoml", noted)
    return built


def test_a_kept_build_gives_the_same_bytes_unless_somebody_changed_it(
    tmp_path: Path, kept: Path, builds: list[str]
) -> None:
    models = [small_model(tmp_path / "small")]
    first, again = (build_bento(models, tmp_path / name) for name in ("first", "again"))
    assert len(builds) == 1
    assert (again.tag, again.digest) == (first.tag, first.digest)
    everything = frozenset[str]()
    assert tree_digest(tmp_path / "again", leave_out=everything) == tree_digest(
        tmp_path / "first", leave_out=everything
    )
    script = "env/docker/entrypoint.sh"
    modes = [(tmp_path / name / script).stat().st_mode for name in ("first", "again")]
    assert modes[0] == modes[1]
    (file,) = kept.iterdir()
    facts = json.loads(file.read_text())
    facts["files"]["src/kfp_bento_service.py"]["content"] = ""
    file.write_text(json.dumps(facts))
    third = build_bento(models, tmp_path / "third")
    assert len(builds) == 2
    assert third.digest == first.digest


@pytest.mark.slow
def test_other_models_and_other_wishes_are_built(
    tmp_path: Path, kept: Path, builds: list[str]
) -> None:
    models = [small_model(tmp_path / "small")]
    build_bento(models, tmp_path / "one")
    build_bento(models, tmp_path / "two", options={"labels": {"team": "a"}})
    build_bento([small_model(tmp_path / "other", TWICE + "\n")], tmp_path / "three")
    assert len(builds) == 3


@pytest.mark.slow
def test_a_service_of_ones_own_is_built_each_time(
    tmp_path: Path, kept: Path, builds: list[str]
) -> None:
    for name in ("first", "again"):
        build_bento([], tmp_path / name, service=SERVICE)
    assert len(builds) == 2
    assert not kept.exists()
