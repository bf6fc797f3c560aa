"""Wheels made by hand, with hardly anything in them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    *,
    tag: str = "py3-none-any",
    version: str = "1.0",
    members: dict[str, str | bytes] | None = None,
) -> str:
    """A wheel with any members; returns its line for a lock."""
    info = f"{name}-{version}.dist-info"
    contents = {
        **(members if members is not None else {f"{name}.py": "there = True\n"}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,{len(content)}\n" for path, content in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    file = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in contents.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def bentoml_line(bento: Path) -> str:
    """The line of a lock that no bento is without, for a wheel with nothing in it but a module."""
    line = make_wheel(bento / "src/wheels", "bentoml", version="1.4.39")
    return f"./wheels/bentoml-1.4.39-py3-none-any.whl {line.partition(' ')[2]}\n"
