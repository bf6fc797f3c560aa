"""What others on the machine can change is not taken for ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local.engines import _state_directory
from kfp_bento.runtime.local.private import (
    exposed_at,
    others_may_add,
    private_directory,
    private_file,
)

NOBODY = 65534


def test_a_directory_of_old_becomes_private(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o755)
    assert private_directory(tmp_path / "old").stat().st_mode & 0o777 == 0o700
    assert private_directory(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_wrote_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(LocalRunError, match="written by other users"):
        private_directory(tmp_path / "shared")


def test_what_belongs_to_others_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    (tmp_path / "link").symlink_to(tmp_path)
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
    for name in ("theirs", "link"):
        with pytest.raises(LocalRunError, match="another user"):
            private_directory(tmp_path / name)


def test_the_first_exposed_place_is_named(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    top = tmp_path / "a"
    for place in (top, top / "b", deep):
        place.chmod(0o755)
    assert exposed_at(deep, top) is None
    (top / "b").chmod(0o757)
    assert exposed_at(deep, top) == top / "b"
    top.chmod(0o700)  # nobody gets as far as that
    assert exposed_at(deep, top) is None
    top.chmod(0o1777)  # like /tmp
    (top / "b").chmod(0o755)
    assert exposed_at(deep, top) is None


def test_the_group_of_one_user_is_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o775)
    assert exposed_at(tmp_path / "own", tmp_path / "own") is None
    if os.getuid() == 0:
        (tmp_path / "top" / "team").mkdir(parents=True)
        os.chown(tmp_path / "top" / "team", 0, NOBODY)
        (tmp_path / "top").chmod(0o755)
        (tmp_path / "top" / "team").chmod(0o775)
        assert exposed_at(tmp_path / "top" / "team", tmp_path / "top") == tmp_path / "top" / "team"


def test_in_a_sticky_directory_others_can_add_but_not_replace(tmp_path: Path) -> None:
    (tmp_path / "sticky").mkdir()
    assert not others_may_add(tmp_path / "sticky")
    (tmp_path / "sticky").chmod(0o1777)
    assert others_may_add(tmp_path / "sticky")
    assert exposed_at(tmp_path / "sticky", tmp_path / "sticky") is None


def test_a_file_is_private_whatever_it_was_and_no_link_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o644)
    with private_file(file) as opened:
        opened.write("now")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("now", 0o600)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        private_file(tmp_path / "link")


@pytest.mark.parametrize("squatter", ["directory", "link", "file"])
def test_a_name_that_somebody_took_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squatter: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with _state_directory(tmp_path / "storage") as usual:
        assert usual.stat().st_mode & 0o777 == 0o700
    if squatter == "directory":
        usual.mkdir()
        usual.chmod(0o777)
    elif squatter == "link":
        (tmp_path / "goal").mkdir(mode=0o700)
        usual.symlink_to(tmp_path / "goal")
    else:
        usual.touch()
    with _state_directory(tmp_path / "storage") as other:
        assert other != usual
        assert other.stat().st_mode & 0o777 == 0o700
    assert not other.exists()
    assert os.path.lexists(usual)
