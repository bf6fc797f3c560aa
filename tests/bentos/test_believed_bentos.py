"""What lies in a directory is read again, and a record from elsewhere is no provenance."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from test_load_bento import CURRENT

from kfp_bento.runtime.bentos import (
    BentoModel,
    changed_models,
    load_bento,
    load_given_bento,
)
from kfp_bento.runtime.bentos.bento import bento_record, write_facts, write_record
from kfp_bento.runtime.bentos.bento_file import read_bento_file
from kfp_bento.runtime.bentos.build import _settled
from kfp_bento.runtime.bentos.tree import finish_files
from kfp_bento.runtime.errors import BentoError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfp_bento.runtime.bentos import Bento

PROVENANCE = {"uri": "models:/credit@prod", "name": "credit", "version": "3"}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_STATE_HOME", "KFP_BENTO_RECORD_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def another_user(tmp_path: Path) -> Callable[[], None]:
    def become() -> None:
        os.environ["HOME"] = str(tmp_path / "another home")

    return become


@pytest.fixture
def bento(tmp_path: Path) -> Bento:
    """A bento with a record of its own, as `build_bento` leaves it."""
    directory = tmp_path / "bento"
    for name, text in {
        "bento.yaml": CURRENT,
        "src/service.py": "answer = 1\n",
        "models/a/1/weights": "1",
        "models/a/1/deep/more": "2",
        "models/a/1/model.yaml": "name: a\n",
        "models/b/2/weights": "1",
        "models/a/latest": "1",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    loaded = load_bento(directory)
    models = tuple(replace(model, provenance=PROVENANCE) for model in loaded.models)
    made = replace(loaded, models=models)
    write_record(made)
    return made


# --- facts


def test_facts_of_a_bento_are_the_bento_without_its_models(bento: Bento, tmp_path: Path) -> None:
    record = write_facts(bento, tmp_path / "facts")
    artifact = SimpleNamespace(path=str(tmp_path / "facts"), metadata={"record": record})
    found = load_given_bento(artifact, facts=True)
    assert found is not None and replace(found, directory=bento.directory) == bento
    there = sorted(path.name for path in (tmp_path / "facts").rglob("*") if path.is_file())
    assert there == [".kfp-bento.json", "bento.yaml", "latest", "model.yaml", "service.py"]


def test_facts_are_no_bento_to_build_of(bento: Bento, tmp_path: Path) -> None:
    write_facts(bento, tmp_path / "facts")
    assert {model.digest for model in load_bento(tmp_path / "facts").models} == {""}
    deferred = load_bento(tmp_path / "facts", deferred=True)
    assert {model.digest for model in deferred.models} == {""}


def test_models_elsewhere_are_believed_of_our_own_record_alone(
    bento: Bento, tmp_path: Path, another_user: Callable[[], None]
) -> None:
    write_facts(bento, tmp_path / "facts")
    another_user()
    found = load_bento(tmp_path / "facts", facts=True)
    assert {model.digest for model in found.models} == {""}
    assert "is not one of ours" in found.note


# --- provenance


def test_a_record_of_our_own_says_where_the_models_came_from(bento: Bento) -> None:
    loaded = load_bento(bento.directory)
    assert loaded == bento and loaded.note == ""
    assert loaded.models[0].provenance == PROVENANCE


def test_a_record_from_elsewhere_is_no_provenance(
    bento: Bento, another_user: Callable[[], None]
) -> None:
    another_user()
    loaded = load_bento(bento.directory)
    assert [model.provenance for model in loaded.models] == [{}, {}]
    assert [model.digest for model in loaded.models] == [model.digest for model in bento.models]
    assert "not one of ours" in loaded.note


def test_a_record_without_a_seal_is_no_provenance(bento: Bento) -> None:
    file = bento.directory / ".kfp-bento.json"
    file.write_text(json.dumps(bento.to_dict()))
    loaded = load_bento(bento.directory)
    assert loaded.models[0].provenance == {} and loaded.note


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"models": 5}', b"[" * 9999])
def test_what_is_no_record_is_none(bento: Bento, content: bytes) -> None:
    (bento.directory / ".kfp-bento.json").write_bytes(content)
    assert load_bento(bento.directory).models[0].provenance == {}


def test_the_step_that_built_it_tells_the_next_one_by_the_artifact(
    bento: Bento, another_user: Callable[[], None]
) -> None:
    told = bento_record(bento)
    another_user()
    given = SimpleNamespace(path=str(bento.directory), metadata={"record": told})
    loaded = load_given_bento(given)
    assert loaded is not None and loaded.models[0].provenance == PROVENANCE
    (bento.directory / ".kfp-bento.json").write_text(
        json.dumps({**bento.to_dict(), "models": [{**bento.models[0].to_dict()}]})
    )
    changed = load_given_bento(given)
    assert changed is not None and changed.models[0].provenance == {}


def test_a_record_is_about_the_bento_beside_it(bento: Bento) -> None:
    file = bento.directory / "bento.yaml"
    file.write_text(file.read_text().replace("version: v1", "version: v2"))
    assert load_bento(bento.directory).models[0].provenance == {}


def test_a_model_that_was_changed_has_no_provenance_any_more(bento: Bento) -> None:
    (bento.directory / "models/a/1/weights").write_text("stolen")
    first, second = load_bento(bento.directory).models
    assert (first.provenance, second.provenance) == ({}, PROVENANCE)
    assert first.digest != bento.models[0].digest


# --- digests


def test_digests_are_those_of_the_files_and_not_of_the_record(bento: Bento) -> None:
    facts = bento.to_dict()
    lie = f"sha256:{'0' * 64}"
    facts["models"] = [{**model, "digest": lie} for model in facts["models"]]
    write_record(replace(bento, models=tuple(BentoModel(**model) for model in facts["models"])))
    loaded = load_bento(bento.directory)
    assert [model.digest for model in loaded.models] == [model.digest for model in bento.models]
    assert loaded.digest == bento.digest


def test_digests_may_wait_for_whoever_reads_the_files_anyway(bento: Bento) -> None:
    loaded = load_bento(bento.directory, deferred=True)
    assert loaded == bento and all(model.claimed for model in loaded.models)
    assert changed_models(loaded, {}) == []
    (bento.directory / "models/a/1/deep/more").write_text("3")
    changed = load_bento(bento.directory, deferred=True)
    assert changed == bento
    assert changed_models(changed, {}) == ["a:1"]


def test_digests_wait_for_no_record_from_elsewhere(
    bento: Bento, another_user: Callable[[], None]
) -> None:
    another_user()
    (bento.directory / "models/a/1/weights").write_text("stolen")
    loaded = load_bento(bento.directory, deferred=True)
    assert loaded.models[0].digest not in ("", bento.models[0].digest)
    assert not any(model.claimed for model in loaded.models)


# --- what is there already


def tampered(directory: Path, what: str) -> None:
    if what == "service":
        (directory / "src/service.py").write_text("import os; os.system('owned')\n")
    elif what == "model":
        (directory / "models/a/1/weights").write_text("9")
    elif what == "more":
        (directory / "src/sitecustomize.py").write_text("owned = True\n")
    elif what == "less":
        (directory / "src/service.py").unlink()
    elif what == "link":
        (directory / "src/link.py").symlink_to("/etc/passwd")
    elif what == "yaml":
        with (directory / "bento.yaml").open("a") as file:
            file.write("labels: {a: b}\n")
    elif what == "broken":
        (directory / "bento.yaml").write_text("[")


@pytest.mark.parametrize("what", ["service", "model", "more", "less", "link", "yaml", "broken"])
def test_a_bento_that_was_changed_after_it_was_built_is_replaced(
    bento: Bento, tmp_path: Path, what: str
) -> None:
    there = tmp_path / "there"
    shutil.copytree(bento.directory, there)
    tampered(there, what)
    settled = _settled(bento, there)
    assert not settled.reused
    assert "changed after it was built" in settled.note
    assert load_bento(there) == replace(bento, directory=there)


def test_a_bento_that_is_there_already_stays(bento: Bento, tmp_path: Path) -> None:
    there = tmp_path / "there"
    shutil.copytree(bento.directory, there)
    inode = there.stat().st_ino
    settled = _settled(bento, there)
    assert settled.reused and settled.note == "" and there.stat().st_ino == inode


def test_writing_the_record_follows_no_link(bento: Bento, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (bento.directory / ".kfp-bento.json.partial").symlink_to(victim)
    write_record(bento)
    assert victim.read_text() == "mine"


# --- bento.yaml


def test_a_bento_follows_the_umask(tmp_path: Path) -> None:
    content = {"name": "a", "version": "unversioned", "service": "s:S", "image": {}}
    modes: dict[int, set[int]] = {}
    for mask in (0o022, 0o077):
        folder = tmp_path / str(mask)
        (folder / "env/python").mkdir(parents=True)
        (folder / "bento.yaml").write_text(yaml.safe_dump(content))
        (folder / "run.sh").write_text("")
        usual = os.umask(mask)
        try:
            finish_files(folder, "v1", "six==1\n")
        finally:
            os.umask(usual)
        modes[mask] = {path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}
    assert modes == {0o022: {0o755, 0o644}, 0o077: {0o700, 0o600}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "a\x1b[2J"}, "version holds control characters"),
        ({"name": None}, "name is missing"),
        ({"version": None}, "version is missing"),
        ({"service": ["a"]}, "service is no text"),
        ({"image": [1]}, "image is no mapping"),
        ({"image": {"commands": {"a": 1}}}, "image.commands is no list"),
        ({"image": {"commands": [[1]]}}, "image.commands.0 is no text"),
        ({"services": [5]}, "services.0 is no mapping"),
        ({"services": [{"models": [{"tag": "a\r\nAll is well"}]}]}, "tag holds control characters"),
        ({"models": [{}]}, "models.0.tag is missing"),
        ({"runners": {"a": 1}}, "runners is no list"),
        ({"envs": [{"name": "A", "value": [1]}]}, "envs.0 is no text"),
        ({"docker": {"env": [1]}}, "docker.env is no mapping"),
    ],
)
def test_a_bento_yaml_of_the_wrong_kind_names_the_field(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    content = {"name": "a", "version": "v1", "service": "s:S", **change}
    (tmp_path / "bento.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BentoError) as caught:
        read_bento_file(tmp_path)
    assert reason in caught.value.message and "\x1b" not in caught.value.message
