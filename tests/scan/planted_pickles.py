"""Pickles written opcode by opcode, and models to plant them in. None of them is ever loaded."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.scan.allowlist import families
from kfp_bento.runtime.scan.contents import Contents
from kfp_bento.runtime.scan.finding import Finding
from kfp_bento.runtime.scan.limits import Budget, Limits
from kfp_bento.runtime.scan.report import ModelScan
from kfp_bento.runtime.scan.scan import scan_model
from kfp_bento.runtime.scan.source import Source

MLMODEL = """\
flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: model.pkl, python_version: 3.11.7}
  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle}
"""


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    content = value.encode()
    return b"\x8c" + bytes([len(content)]) + content


def content(value: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def whole(body: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


SYSTEM = whole(call(stack_global("os", "system"), text("id")))


def model_directory(folder: Path, files: dict[str, bytes], mlmodel: str = MLMODEL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(mlmodel)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def scanned(folder: Path, data: bytes, name: str = "model.pkl", **options: object) -> ModelScan:
    """The report on a model with one file of that content."""
    directory = model_directory(folder / "model", {name: data})
    return scan_model(load_model(directory), policy="enforce", **options)  # type: ignore[arg-type]


def looked(data: bytes, name: str = "model.bin", limits: Limits | None = None) -> list[Finding]:
    """What is found in one file, without a model around it."""
    found: list[Finding] = []
    budget = Budget(limits or Limits())
    contents = Contents(families(["sklearn"]), frozenset(), budget, found.append)
    contents.look(name, Source.of(io.BytesIO(data)))
    return found


def names(report: ModelScan, severity: str = "") -> set[str]:
    return {one.name for one in report.findings if severity in ("", one.severity.value)}
