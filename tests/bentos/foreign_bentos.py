"""Run as a program: plain BentoML builds a bento, exports it in every format, and imports ours.

`foreign_bentos.py build FOLDER` writes FOLDER/exports/…; `foreign_bentos.py import ARCHIVE…` prints
a JSON object of the directories by archive. `BENTOML_HOME` says where BentoML keeps its stores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SERVICE = """
import bentoml

MODEL = bentoml.models.BentoModel("weights:v1")

@bentoml.service
class Echo:
    model = MODEL

    @bentoml.api
    def echo(self, text: str) -> str:
        return text
"""
FORMATS = ("bento", "tar", "gz", "xz", "bz2", "zip")


def build(folder: Path) -> None:
    import bentoml

    context = folder / "context"
    (context / "package").mkdir(parents=True)
    (context / "package" / "Ünïcode name.txt").write_text("text")
    (context / "run.sh").write_text("#!/bin/sh\n")
    (context / "run.sh").chmod(0o755)
    (context / "service.py").write_text(SERVICE)
    with bentoml.models._create("weights:v1", module="", signatures={}) as model:
        Path(model.path_of("weights.bin")).write_bytes(bytes(range(256)) * 1000)
    built = bentoml.bentos.build(
        "service:Echo",
        name="echo",
        version="v1",
        build_ctx=str(context),
        python={"lock_packages": False},
    )
    exports = folder / "exports"
    exports.mkdir()
    for form in FORMATS:
        bentoml.bentos.export_bento(built.tag, str(exports / f"echo.{form}"), form)


def take_in(archives: list[str]) -> None:
    import bentoml

    found = {}
    for archive in archives:
        bento = bentoml.bentos.import_bento(archive)
        found[archive] = sorted(
            path.relative_to(bento.path).as_posix() for path in Path(bento.path).rglob("*")
        ) + sorted(str(model.tag) for model in bentoml.models.list())
        bentoml.bentos.delete(bento.tag)
        for model in bentoml.models.list():
            bentoml.models.delete(model.tag)
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]))
    else:
        take_in(sys.argv[2:])
