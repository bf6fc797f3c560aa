"""`bento.yaml` and records beside bentos, changed by chance: taken, or refused with a reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mutations import AMOUNTS, changed_bytes, changed_document, fuzzed
from test_load_bento import CURRENT, LEGACY

from kfp_bento.runtime.bentos import load_bento, read_bento_file
from kfp_bento.runtime.bentos.bento import write_record
from kfp_bento.runtime.bentos.bento_file import settled_bento_file
from kfp_bento.runtime.errors import plain_text
from kfp_bento.runtime.images.assembly.qualify import qualify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

    Target = tuple[Callable[[Any], object], SearchStrategy[Any]]

FULL = """
service: service:Own
name: own
version: v1
envs: [{name: A, value: b, stage: all}, {name: C, stage: runtime}]
image: {base_image: 'x', python_version: '3.11', commands: [ls], post_commands: [ls]}
docker: {env: {A: 1}, system_packages: [curl], cuda_version: 12, distro: alpine}
conda: {channels: [a]}
python: {wheels: [a.whl], pip_args: -v}
models: [{tag: 'a:1', registry: hf}]
"""


def files(folder: Path, text: str) -> Target:
    (folder / "env/python").mkdir(parents=True)
    (folder / "env/python/requirements.txt").write_text("six==1.17.0\n")

    def check(content: bytes) -> None:
        (folder / "bento.yaml").write_bytes(content)
        file = read_bento_file(folder)
        assert file.version.isprintable()
        assert file.service.isprintable()
        # A name may have letters that this Python has no table of yet.
        assert plain_text(file.name) == file.name == " ".join(file.name.split())
        load_bento(folder)
        qualify(folder)

    good = yaml.safe_load(text)
    documents = changed_document(good).map(lambda data: yaml.safe_dump(data).encode())
    return check, documents | changed_bytes(text.encode())


def settled(folder: Path) -> Target:
    def check(content: bytes) -> None:
        again = settled_bento_file(content, "v2", "six==1\n")
        assert yaml.safe_load(again)["version"] == "v2"

    return check, changed_bytes(CURRENT.encode())


def records(folder: Path) -> Target:
    (folder / "bento.yaml").write_text(CURRENT)
    (folder / "models/a/1").mkdir(parents=True)
    (folder / "models/a/1/weights").write_text("1")
    bento = load_bento(folder)
    write_record(bento)
    file = folder / ".kfp-bento.json"
    good = json.loads(file.read_bytes())

    def check(content: bytes) -> None:
        file.write_bytes(content)
        loaded = load_bento(folder, deferred=True)
        assert loaded.models[0].digest == bento.models[0].digest
        assert loaded.models[0].provenance == {}

    documents = changed_document(good).map(lambda data: json.dumps(data).encode())
    return check, documents | changed_bytes(json.dumps(good).encode())


TARGETS: dict[str, Callable[[Path], Target]] = {
    "current": lambda folder: files(folder, CURRENT),
    "legacy": lambda folder: files(folder, LEGACY),
    "full": lambda folder: files(folder, FULL),
    "settled": settled,
    "records": records,
}


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("target", TARGETS)
def test_what_was_changed_by_chance_is_taken_or_refused(
    target: str, amount: int, tmp_path: Path
) -> None:
    fuzzed(*TARGETS[target](tmp_path), amount)
