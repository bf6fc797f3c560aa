"""Files that are there completely or not at all, and what is said of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import directories as directories_module
from kfp_bento.runtime.files import parse_json, read_small_file, reading, write_whole


def test_a_file_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    write_whole(b"new", tmp_path / "a" / "b" / "file")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        write_whole(b"new", tmp_path / "file")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_link_in_the_place_of_the_half_written_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    directories_module._beside(tmp_path / "file").symlink_to(tmp_path / "theirs")
    write_whole(b"new", tmp_path / "file")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), (b"[]", "it is no JSON object"), (b"\xff", "codec")],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with (
        pytest.raises(ModelError, match=rf"^The file cannot be read: .*{why}") as told,
        reading("The file cannot be read", ModelError, hint="Make it anew."),
    ):
        parse_json(read_small_file(tmp_path / "file", 100))
    assert told.value.hint == "Make it anew."


def test_what_is_no_failure_to_read_goes_through() -> None:
    with pytest.raises(KeyError), reading("The file cannot be read", ModelError, hint=""):
        raise KeyError("x")
