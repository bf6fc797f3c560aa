"""Any bento can be read, whoever built it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from kfp_bento.runtime.bentos import load_bento, load_given_bento, sample_request
from kfp_bento.runtime.errors import BentoError

if TYPE_CHECKING:
    from pathlib import Path

LEGACY = """
service: service:svc
name: fraud
version: abc
bentoml_version: 1.1.11
creation_time: '2024-01-01T00:00:00+00:00'
spec: 1
models:
- {tag: 'fraud_model:one', module: bentoml.sklearn, creation_time: '2024-01-01T00:00:00+00:00'}
runners:
- {name: fraud_runner, runnable_type: SklearnRunnable, models: ['fraud_model:one']}
docker: {distro: debian, python_version: '3.10'}
services: []
"""

CURRENT = """
service: service:Own
name: own
version: v1
bentoml_version: 1.4.39
spec: 2
models: []
services:
- name: inner
  models: [{tag: 'a:1'}, {tag: 'b:2'}]
- name: outer
  models: [{tag: 'a:1'}]
image: {base_image: 'python:3.12-slim', python_version: 3.12.4}
"""


def test_a_legacy_bento_has_runners(tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text(LEGACY)
    bento = load_bento(tmp_path)
    assert (bento.tag, bento.python_version) == ("fraud:abc", "3.10")
    assert [runner["name"] for runner in bento.runners] == ["fraud_runner"]
    assert [model.tag for model in bento.models] == ["fraud_model:one"]


def test_a_bento_that_was_left_out_is_none(tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text(CURRENT)
    given = SimpleNamespace(path=str(tmp_path))
    assert load_given_bento(given) == load_bento(tmp_path)
    assert load_given_bento(None) is None


def test_only_a_generated_service_has_a_sample_request(tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text(CURRENT)
    source = tmp_path / "src"
    source.mkdir()
    (source / "example.json").write_text('{"inputs": [1]}')
    assert sample_request(load_bento(tmp_path)) is None
    (source / "pyfunc_json.py").write_text("")
    assert sample_request(load_bento(tmp_path)) == {"inputs": [1]}
    (source / "example.json").unlink()
    assert sample_request(load_bento(tmp_path)) is None
    assert sample_request(None) is None


def test_a_bento_of_today_has_models_under_its_services(tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text(CURRENT)
    model = tmp_path / "models/a/1"
    model.mkdir(parents=True)
    (model / "model.yaml").write_text("name: a\n")
    (model / "weights").write_text("1")
    bento = load_bento(tmp_path)
    assert [(m.tag, bool(m.digest)) for m in bento.models] == [("a:1", True), ("b:2", False)]
    assert (bento.runners, bento.python_version) == ((), "3.12")
    (model / "weights").write_text("2")
    assert load_bento(tmp_path).digest != bento.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a bento"),
        ("a: [", "not valid YAML"),
        ("- a", "not a mapping"),
        ("name: x", "not one that BentoML wrote"),
        ("{name: x, version: y, service: z, services: 5}", "not one that BentoML wrote"),
    ],
)
def test_what_is_no_bento_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "bento.yaml").write_text(text)
    with pytest.raises(BentoError, match=message):
        load_bento(tmp_path)
