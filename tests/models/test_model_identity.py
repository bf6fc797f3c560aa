from __future__ import annotations

import hashlib
import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest
import yaml

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.models import load_model, tree_digest
from kfp_bento.runtime.models.portable import RUN_SPECIFIC_KEYS, portable_mlmodel

MLMODEL = b"""\
artifact_path: model
flavors:
  python_function: {loader_module: mlflow.sklearn, python_version: 3.11.7}
model_uuid: 5d2f
run_id: 77aa
utc_time_created: '2026-01-01 00:00:00'
metadata: {maker: "M\xc3\xbcller"}
"""


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "data").mkdir(parents=True)
    (directory / "MLmodel").write_bytes(MLMODEL)
    (directory / "data" / "weights.bin").write_bytes(b"weights")
    return directory


def test_the_tree_digest_is_what_sha256sum_and_sort_give(model_directory: Path) -> None:
    printed = subprocess.run(
        "sha256sum MLmodel data/weights.bin | LC_ALL=C sort | sha256sum",
        shell=True,
        cwd=model_directory,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert tree_digest(model_directory) == "sha256:" + printed.split()[0]


def test_where_a_model_came_from_is_no_part_of_its_digest(model_directory: Path) -> None:
    before = tree_digest(model_directory)
    (model_directory / "registered_model_meta").write_text("model_name: wine\n")
    (model_directory / ".kfp-bento.json").write_text("{}")

    assert tree_digest(model_directory) == before


def test_only_the_top_directory_has_files_that_do_not_count(model_directory: Path) -> None:
    before = tree_digest(model_directory)
    (model_directory / "data" / "registered_model_meta").write_text("model_name: wine\n")

    assert tree_digest(model_directory) != before


def test_renaming_a_file_changes_the_digest(model_directory: Path) -> None:
    before = tree_digest(model_directory)
    (model_directory / "data" / "weights.bin").rename(model_directory / "data" / "w.bin")

    assert tree_digest(model_directory) != before


def test_the_content_digest_ignores_what_only_one_run_has(model_directory: Path) -> None:
    before = load_model(model_directory)
    other = MLMODEL.replace(b"77aa", b"88bb").replace(b"2026-01-01", b"2027-02-02")
    (model_directory / "MLmodel").write_bytes(other)

    after = load_model(model_directory)
    assert after.content_digest == before.content_digest
    assert after.digest != before.digest


def test_the_content_digest_notices_everything_else_in_mlmodel(model_directory: Path) -> None:
    before = load_model(model_directory).content_digest
    (model_directory / "MLmodel").write_bytes(MLMODEL.replace(b"3.11.7", b"3.12.0"))

    assert load_model(model_directory).content_digest != before


def test_a_portable_mlmodel_does_not_depend_on_the_order_of_keys() -> None:
    data = yaml.safe_load(MLMODEL)
    reordered = yaml.safe_dump(dict(reversed(data.items())), sort_keys=False).encode()

    assert portable_mlmodel(reordered) == portable_mlmodel(MLMODEL)


def test_a_portable_mlmodel_is_ascii_and_holds_the_rest_unchanged() -> None:
    portable = portable_mlmodel(MLMODEL)
    expected = {k: v for k, v in yaml.safe_load(MLMODEL).items() if k not in RUN_SPECIFIC_KEYS}

    assert portable.isascii()
    assert yaml.safe_load(portable) == expected
    assert portable_mlmodel(portable) == portable


@pytest.mark.parametrize(
    "text",
    [b"{", b"- a list", b"", b"a: !!python/object/apply:os.system ['true']", b"\xff\xfe\x00"],
)
def test_what_is_no_yaml_mapping_is_refused(text: bytes) -> None:
    with pytest.raises(ModelError, match="MLmodel file is not"):
        portable_mlmodel(text)


def test_a_link_out_of_the_directory_is_refused(model_directory: Path) -> None:
    (model_directory / "passwords").symlink_to("/etc/passwd")

    with pytest.raises(ModelError, match="'passwords', which is a link that leaves"):
        tree_digest(model_directory)


def test_a_link_inside_the_directory_counts_as_the_file_it_shows(model_directory: Path) -> None:
    (model_directory / "again.bin").symlink_to("data/weights.bin")
    linked = tree_digest(model_directory)
    (model_directory / "again.bin").unlink()
    (model_directory / "again.bin").write_bytes(b"weights")

    assert tree_digest(model_directory) == linked


def test_a_pipe_in_the_directory_is_refused_rather_than_waited_for(model_directory: Path) -> None:
    os.mkfifo(model_directory / "pipe")

    with pytest.raises(ModelError, match="not a regular file"):
        tree_digest(model_directory)


def test_hashing_a_large_file_keeps_memory_flat(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    digest = file_sha256(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert digest == hashlib.sha256(bytes(64 << 20)).hexdigest()
    assert peak < 4 << 20
