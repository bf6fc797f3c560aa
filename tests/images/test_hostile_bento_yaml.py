"""A bento.yaml made to do harm: refused with the reason, or turned into something harmless."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from by_chance import garbled, outcome
from handmade import (
    MINOR,
    read_json,
    read_manifest,
)

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import BentoError, ImageError, KfpBentoError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.assembly.qualify import qualify

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.bentos import Bento


def with_yaml(bento: Bento, change: Callable[[str], str]) -> Bento:
    file = bento.directory / "bento.yaml"
    file.write_text(change(file.read_text()))
    return bento


BOMB = "bomb0: &b0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"bomb{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12)
)

MERGES = "m0: &m0 {x: y}\n" + "".join(
    f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "aliases multiply"),
        (MERGES, "merge keys"),
        ("self: &self [*self]\n", "contains itself"),
        ("deep: " + "[" * 3000 + "]" * 3000 + "\n", "nested too deeply"),
        ("run: !!python/object/apply:os.system ['touch owned']\n", "could not determine"),
        ("open: !!python/name:builtins.open\n", "could not determine"),
        ("broken: !!int ''\n", "a value cannot be read"),
        ("long: " + "x" * (1 << 20) + "\n", "larger than"),
    ],
    ids=["aliases", "merge keys", "circle", "depth", "python call", "python name", "int", "size"],
)
def test_a_bento_yaml_that_does_harm_is_refused(bento: Bento, text: str, reason: str) -> None:
    with_yaml(bento, lambda before: before + text)
    for read in (load_bento, qualify):
        started = time.process_time()  # whoever else works here takes none of it
        with pytest.raises(BentoError, match=reason):
            read(bento.directory)
        assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("services:\n", "services: 7\nold:\n"),
        ("services:\n", "services: [x]\nold:\n"),
        ("value: hello", "value: [a, b]"),
        ("- name: GREETING\n", "- nome: GREETING\n"),
        ("envs:\n", "envs: 3\nold:\n"),
        ("image:\n", "image: text\nold:\n"),
        ("commands: []", "commands: {a: {b: c}}\n  system: &x []"),
        ("commands: []", "commands: [[x]]"),
    ],
)
def test_values_of_wrong_types_are_refused(bento: Bento, before: str, after: str) -> None:
    with_yaml(bento, lambda text: text.replace(before, after))
    with pytest.raises(KfpBentoError, match=r"bento\.yaml|cannot become an image"):
        qualify(bento.directory)


@pytest.mark.parametrize(
    "name", ["A=B", "TWO\\nLINES", "NUL\\0", "WITH SPACE", "1ST", "", "Ü", "PATH"]
)
def test_a_name_that_no_variable_can_have_is_refused(bento: Bento, name: str) -> None:
    with_yaml(bento, lambda text: text.replace("name: GREETING", f'name: "{name}"'))
    with pytest.raises(ImageError, match=r"no name of an environment variable|PATH is made"):
        qualify(bento.directory)


def test_a_nul_in_a_variable_is_refused(bento: Bento) -> None:
    with_yaml(bento, lambda text: text.replace("value: hello", 'value: "a\\0b"'))
    with pytest.raises(ImageError, match="GREETING holds a NUL"):
        qualify(bento.directory)


def test_line_breaks_and_equal_signs_in_a_value_stay_in_that_value(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    with_yaml(bento, lambda text: text.replace("value: hello", 'value: "a=b\\nLD_PRELOAD=/x"'))
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    config = read_json(tmp_path / "out", read_manifest(tmp_path / "out")["config"]["digest"])
    assert "GREETING=a=b\nLD_PRELOAD=/x" in config["config"]["Env"]
    assert not [x for x in config["config"]["Env"] if x.startswith("LD_PRELOAD")]


@pytest.mark.parametrize("wanted", ["host", "oci:/var/lib/images", "docker-archive:/tmp/x.tar"])
def test_a_bento_cannot_choose_a_base_on_the_builders_disk(bento: Bento, wanted: str) -> None:
    with_yaml(bento, lambda text: text.replace(f"python:{MINOR}-slim", wanted))
    with pytest.raises(ImageError, match="only who builds the image can choose"):
        qualify(bento.directory)


@pytest.mark.parametrize("version", ["3.11/../../x", "../etc", "3.11 --pre", "2.7"])
def test_a_python_version_that_is_a_path_is_refused(bento: Bento, version: str) -> None:
    with_yaml(
        bento, lambda text: text.replace(f"python_version: '{MINOR}'", f"python_version: {version}")
    )
    with pytest.raises(ImageError, match="python_version"):
        qualify(bento.directory)


@pytest.mark.parametrize("name", ["../../etc", "two words", "a\\nb", "UPPER", ""])
def test_a_name_that_is_no_bentos_is_refused(bento: Bento, name: str) -> None:
    with_yaml(bento, lambda text: text.replace("name: tiny", f'name: "{name}"'))
    with pytest.raises(ImageError, match="name is"):
        qualify(bento.directory)


def test_a_model_tag_that_is_a_path_is_refused(bento: Bento) -> None:
    with_yaml(bento, lambda text: text.replace("tag: factor:0123", "tag: ../../x:0123"))
    with pytest.raises(ImageError, match="no name that BentoML gives"):
        qualify(bento.directory)


@pytest.mark.parametrize("kind", ["pipe", "directory", "huge"])
def test_a_bento_yaml_that_is_no_plain_file_is_refused(bento: Bento, kind: str) -> None:
    file = bento.directory / "bento.yaml"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.touch()
        os.truncate(file, 1 << 32)
    with pytest.raises(BentoError, match=r"no regular file|larger than|Is a directory"):
        qualify(bento.directory)


def test_a_bento_yaml_changed_by_chance_is_taken_or_refused(bento: Bento) -> None:
    chance = random.Random(3)
    file = bento.directory / "bento.yaml"
    good = file.read_bytes()
    outcomes = []
    for _ in range(60):  # the YAML parser is slow
        file.write_bytes(garbled(good, chance))
        outcomes.append(outcome(partial(qualify, bento.directory)))
        outcomes.append(outcome(partial(load_bento, bento.directory)))
    assert {"refused", "taken"} == set(outcomes)
