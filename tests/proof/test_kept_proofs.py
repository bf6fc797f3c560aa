"""What was proven is not asked again, unless something could change an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import small_model

from kfp_bento.runtime.bentos import Bento, build_bento
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.proof import Golden, golden_answers, kept, proving
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import MODEL, GoldenModel, GoldenRequest

_FACTS = dict.fromkeys(("service", "bentoml_version"), "")
BENTO = Bento(
    *("a", "1", Path("/nowhere")),
    python_version="3.11",
    models=(),
    runners=(),
    digest="sha256:aa",
    **_FACTS,
)
ASKED = (GoldenRequest("given 1", "given"),)


def at(**other: Any) -> Path | None:
    """Where the golden answers of a bento are kept, of which a test changes something."""
    usual = {"models": (), "asked": ASKED, "tolerance": Tolerance(0, 0), "interpreter": "python"}
    return kept.kept_at(**{"bento": BENTO, **usual, **other})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFP_BENTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "keeps_from_network", lambda: True)
    return tmp_path / "cache/proofs"


@pytest.fixture
def built(tmp_path: Path) -> tuple[Bento, list[ModelVersion]]:
    models = [small_model(tmp_path / "small")]
    return build_bento(models, tmp_path / "bento"), models


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bentos that were started."""
    started: list[str] = []
    ask = proving._ask_both

    def noted(bento: Bento, *others: object) -> object:
        started.append(bento.tag)
        return ask(bento, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(proving, "_ask_both", noted)
    return started


def test_the_same_bento_is_asked_the_same_only_once(
    built: tuple[Bento, list[ModelVersion]], asked: list[str], tmp_path: Path, cache: Path
) -> None:
    told: list[str] = []
    first, again = (golden_answers(*built, tell=told.append) for _ in range(2))
    assert again == first
    assert told[-1] == "proven before on this machine"
    assert len(asked) <= 1  # another test may have had the same model


def test_answers_that_were_changed_are_asked_for_again(place: Path) -> None:
    file = at()
    assert file is not None
    golden = Golden("a:1", (), ASKED, "on", "so it was", Tolerance(0, 0))
    kept.keep(golden, file)
    assert kept.load_kept(file) == golden
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"reason": "so it was not"}))
    assert kept.load_kept(file) is None


ANOTHER = {
    "bento": {"bento": replace(BENTO, digest="sha256:bb")},
    "model": {"models": (GoldenModel("m:1", "u", "", "d"),)},
    "request": {"asked": (GoldenRequest("given 2", "given"),)},
    "tolerance": {"tolerance": Tolerance(0, 1)},
    "interpreter": {"interpreter": "another"},
}


@pytest.mark.parametrize("another", ANOTHER.values(), ids=ANOTHER)
def test_what_can_change_an_answer_asks_anew(place: Path, another: dict[str, Any]) -> None:
    assert at() == at() is not None
    assert at(**another) != at()


def test_variables_that_models_are_computed_with_ask_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = at()
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert at() == plain
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert at() != plain


def test_nothing_is_kept_of_what_could_reach_a_network(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "keeps_from_network", lambda: False)
    assert at() is None


def test_of_many_the_latest_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    for number in range(4):
        tolerance = Tolerance(0, number)
        golden = Golden("a:1", (), ASKED, "on", MODEL, tolerance)
        kept.keep(golden, at(tolerance=tolerance))
    assert len(list(place.iterdir())) == 2


def test_a_proof_that_failed_is_not_kept(
    built: tuple[Bento, list[ModelVersion]], monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    def fails(*_: object) -> None:
        raise BentoError("It does not start.")

    monkeypatch.setattr(proving, "_ask_both", fails)
    monkeypatch.setenv("KFP_BENTO_CACHE", str(place.parent))
    with pytest.raises(BentoError, match="does not start"):
        golden_answers(*built)
    assert not list(place.iterdir())
