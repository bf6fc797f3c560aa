"""What the tests of this stop share: a bento and a base image made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handmade import write_base, write_bento

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento


@pytest.fixture
def bento(tmp_path: Path) -> Bento:
    return write_bento(tmp_path / "bento")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return write_base(tmp_path / "base")
