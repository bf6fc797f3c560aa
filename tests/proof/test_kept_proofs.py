"""What was proven is not asked again, unless something could change an answer."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
GOLDEN = Golden("a:1", (), ASKED, "on", "so it was", Tolerance(0, 0))
DAY = timedelta(days=1)


def proofs(**other: Any) -> kept.KeptProofs:
    """Where the golden answers of a bento are kept, of which a test changes something."""
    usual = {"models": (), "asked": ASKED, "tolerance": Tolerance(0, 0)}
    return kept.kept_at(**{"bento": BENTO, "interpreter": sys.executable, **usual, **other})


def at(**other: Any) -> tuple[Path | None, str]:
    """The file on this machine, and the key that others know it by."""
    found = proofs(**other)
    return found.file, found.key


class Shared:
    """What other machines have."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def find(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def keep(self, key: str, content: bytes) -> None:
        self.kept[key] = content


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
    assert told[-1].endswith("in an earlier run, and not asked again")
    assert again.earlier in told[-1]
    assert again.earlier in again.told
    assert again.to_dict() == first.to_dict()
    assert len(asked) <= 1  # another test may have had the same model


def test_what_was_proven_can_be_asked_anew(
    built: tuple[Bento, list[ModelVersion]], asked: list[str], cache: Path
) -> None:
    once = golden_answers(*built)
    before = len(asked)
    again = golden_answers(*built, anew=True)
    assert len(asked) == before + 1
    assert (again, again.earlier) == (once, "")


def test_answers_that_were_changed_are_asked_for_again(place: Path) -> None:
    file = proofs().file
    assert file is not None
    proofs().keep(GOLDEN)
    assert proofs().find() == GOLDEN
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"golden": facts["golden"] | {"reason": "not so"}}))
    assert proofs().find() is None


def test_another_machine_finds_what_was_proven_and_when(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = Shared()
    proofs(shared=shared).keep(GOLDEN)
    monkeypatch.setenv("KFP_BENTO_CACHE", str(tmp_path / "another"))
    assert proofs().find() is None
    found = proofs(shared=shared).find()
    assert found == GOLDEN
    assert found.earlier in (str(datetime.now(UTC).date()), str((datetime.now(UTC) - DAY).date()))
    # From now on this machine knows it as well.
    assert proofs().find() == GOLDEN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"golden": {}, "proven": "2026-12-01"}',
        b'{"golden": 1, "proven": 2}',
        json.dumps(kept.content_of(replace(GOLDEN, earlier="yesterday"))).encode(),
        json.dumps(kept.content_of(replace(GOLDEN, bento="b:1", earlier="2026-12-01"))).encode(),
    ],
)
def test_what_is_no_proof_of_this_bento_is_none(place: Path, content: bytes) -> None:
    shared = Shared()
    shared.kept[proofs().key] = content
    assert proofs(shared=shared).find() is None


def test_another_interpreter_is_known_on_this_machine_alone(place: Path) -> None:
    shared = Shared()
    other = proofs(shared=shared, interpreter="/opt/python3.10")
    other.keep(GOLDEN)
    assert (other.find(), shared.kept) == (GOLDEN, {})


def test_another_release_of_python_asks_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = proofs().key
    monkeypatch.setattr(kept.platform, "python_version", lambda: "3.11.99")
    assert proofs().key not in ("", key)


ANOTHER = {
    "bento": {"bento": replace(BENTO, digest="sha256:bb")},
    "model": {"models": (GoldenModel("m:1", "u", "", "d"),)},
    "request": {"asked": (GoldenRequest("given 2", "given"),)},
    "tolerance": {"tolerance": Tolerance(0, 1)},
    "interpreter": {"interpreter": "another"},
}


@pytest.mark.parametrize("another", ANOTHER.values(), ids=ANOTHER)
def test_what_can_change_an_answer_asks_anew(place: Path, another: dict[str, Any]) -> None:
    (file, key), (other_file, other_key) = at(), at(**another)
    assert (file, key) == at()
    assert file != other_file
    assert key != other_key


def test_variables_that_models_are_computed_with_ask_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = at()
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert at() == plain
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not set(at()) & set(plain)


def test_nothing_is_kept_of_what_could_reach_a_network(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "keeps_from_network", lambda: False)
    shared = Shared()
    proofs(shared=shared).keep(GOLDEN)
    assert at() == (None, "")
    assert (proofs(shared=shared).find(), shared.kept) == (None, {})


def test_of_many_the_latest_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    for number in range(4):
        tolerance = Tolerance(0, number)
        golden = Golden("a:1", (), ASKED, "on", MODEL, tolerance)
        proofs(tolerance=tolerance).keep(golden)
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
