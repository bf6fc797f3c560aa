"""The wheel of the kfp-bento that runs: the same of its source and of its installed files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from kfp_bento.runtime.installation import own_wheel as module

pytestmark = pytest.mark.slow  # it builds the project


def test_source_and_installed_files_give_the_same_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir()
    first = module.own_wheel(tmp_path / "first")
    assert first.name == "kfp_bento-0.1.0-py3-none-any.whl"
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--compile-bytecode",
    ]
    subprocess.run([*command, "--target", site, first], check=True)
    (installed,) = Distribution.discover(name="kfp-bento", path=[str(site)])
    monkeypatch.setattr(module, "_installation", lambda: installed)
    (tmp_path / "second").mkdir()
    second = module.own_wheel(tmp_path / "second")
    assert second.read_bytes() == first.read_bytes()
    locks = {path.name for path in site.glob("kfp_bento/runtime/installation/*.txt")}
    assert locks == {"requirements-runtime.txt", "requirements-training.txt"}


def test_a_module_that_is_gone_from_the_source_is_in_no_wheel(tmp_path: Path) -> None:
    left = Path(__file__).parents[2] / "build" / "lib" / "kfp_bento" / "gone_tomorrow.py"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("")
    try:
        with zipfile.ZipFile(module.own_wheel(tmp_path)) as wheel:
            assert "kfp_bento/runtime/errors.py" in wheel.namelist()
            assert "kfp_bento/gone_tomorrow.py" not in wheel.namelist()
    finally:
        left.unlink()
