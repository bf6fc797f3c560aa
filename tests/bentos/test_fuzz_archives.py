"""Archives changed by chance: taken in, or refused with a reason; nothing is left of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mutations import AMOUNTS, changed_bytes, fuzzed
from sample_bentos import write_bento

from kfp_bento.runtime.bentos import ImportOptions, export_bento, import_bento, load_bento
from kfp_bento.runtime.errors import KfpBentoError

AS_IT_IS = ImportOptions(lock=False)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_an_archive_that_was_changed_by_chance(form: str, amount: int, tmp_path: Path) -> None:
    bento = write_bento(tmp_path / "bento")
    (bento / "src").mkdir()
    (bento / "src" / ("ü" * 100)).write_text("a name that needs an extended header\n")
    exported = export_bento(load_bento(bento), str(tmp_path / "good"), form)
    good = Path(exported.uri).read_bytes()
    given, to = tmp_path / "given" / "bento", tmp_path / "to" / "bento"
    given.parent.mkdir()

    def check(content: bytes) -> None:
        given.write_bytes(content)
        try:
            import_bento(str(given), to, AS_IT_IS)
        except KfpBentoError:
            assert not list(to.parent.iterdir())
            raise
        assert [one.name for one in to.parent.iterdir()] == ["bento"]
        for file in [*to.rglob("*")]:
            assert file.resolve().is_relative_to(to.resolve())
        shutil.rmtree(to)

    # The tar's blocks of zeros are long: most changes would land there.
    fuzzed(check, changed_bytes(good.rstrip(b"\0") if form == "tar" else good), amount)
