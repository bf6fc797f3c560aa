"""A bento goes from one pod to another through storage, by the two components."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sample_bentos import write_bento

from kfp_bento.components import export_bento, import_bento
from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import StorageError


def test_what_one_step_exports_another_takes_in(tmp_path: Path) -> None:
    given = SimpleNamespace(path=str(write_bento(tmp_path / "bento")), metadata={})
    out = export_bento.python_func(bento=given, uri=f"file://{tmp_path}/bucket/")
    assert out == (f"{tmp_path}/bucket/wine-v1.bento", out[1])
    taken = SimpleNamespace(path=str(tmp_path / "pod" / "bento"), metadata={})
    golden = SimpleNamespace(path=str(tmp_path / "pod" / "golden"), metadata={})
    tag = import_bento.python_func(
        uri=out[0], bento=taken, golden=golden, sha256=out[1], lock=False
    )
    known = load_bento(tmp_path / "bento")
    assert tag == known.tag == taken.metadata["tag"]
    assert load_bento(Path(taken.path)).digest == known.digest == taken.metadata["digest"]
    assert golden.metadata["verified"] == "off"


def test_another_archive_than_the_one_that_was_named_is_refused(tmp_path: Path) -> None:
    given = SimpleNamespace(path=str(write_bento(tmp_path / "bento")), metadata={})
    location, _ = export_bento.python_func(bento=given, uri=f"{tmp_path}/x.tar")
    taken = SimpleNamespace(path=str(tmp_path / "taken"), metadata={})
    golden = SimpleNamespace(path=str(tmp_path / "golden"), metadata={})
    with pytest.raises(StorageError, match="SHA-256"):
        import_bento.python_func(uri=location, bento=taken, golden=golden, sha256="0" * 64)
    assert taken.metadata == golden.metadata == {}
