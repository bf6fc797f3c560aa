"""Container engines: the first that works is taken, and nothing of it stays mounted."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local.engines import RUNTIME_VARIABLE, usable_engine


def mounts_below(folder: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def test_an_engine_that_is_not_wanted_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, "process")
    with pytest.raises(LocalRunError, match="process"), usable_engine(tmp_path / "storage"):
        pass
    assert not (tmp_path / "storage").exists()


def test_where_nothing_is_installed_each_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = "podman is not installed; docker is not installed"
    with pytest.raises(LocalRunError, match=told), usable_engine(tmp_path / "storage"):
        pass


def test_nothing_stays_mounted(tmp_path: Path, podman: list[str]) -> None:
    storage = tmp_path / "storage"
    with usable_engine(storage) as engine:
        assert engine.name == "podman"
    assert mounts_below(storage) == []


def test_storage_that_was_moved_is_made_anew(tmp_path: Path, podman: list[str]) -> None:
    with usable_engine(tmp_path / "before") as engine:
        engine.call("images")
    (tmp_path / "before").rename(tmp_path / "after")
    with usable_engine(tmp_path / "after") as engine:
        assert engine.call("images", "--quiet") == ""
    assert mounts_below(tmp_path) == []


def test_an_engine_that_fails_leaves_nothing_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, podman: list[str]
) -> None:
    monkeypatch.setattr(
        "kfp_bento.runtime.local.engines.PODMAN_WITHOUT_SYSTEMD", ("--runtime", "no-such-runtime")
    )
    with contextlib.suppress(LocalRunError), usable_engine(tmp_path / "storage"):
        pass
    assert mounts_below(tmp_path) == []
