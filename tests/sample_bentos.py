"""Bentos to deploy: values only, since rendering reads no files of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos import Bento, BentoModel

IMAGE = "registry.example.com:5000/team/wine@sha256:" + "a1" * 32


def make_bento(name: str = "wine", version: str = "0123456789e12345", **changes: Any) -> Bento:
    facts: dict[str, Any] = {
        "directory": Path("wine-bento"),
        "service": "service:Wine",
        "python_version": "3.11",
        "bentoml_version": "1.4.39",
        "models": (make_model(),),
        "runners": (),
        "digest": "sha256:" + "cd" * 32,
    }
    return Bento(name=name, version=version, **{**facts, **changes})


def write_bento(directory: Path, name: str = "wine", version: str = "v1") -> Path:
    """A folder that loads as a bento, with nothing to serve inside."""
    directory.mkdir(parents=True)
    facts = [f"name: {name}", f"version: {version}", "service: service:Wine", "models: []"]
    (directory / "bento.yaml").write_text("\n".join([*facts, "bentoml_version: 1.4.39", ""]))
    return directory


def generated_bento(directory: Path, *, guarded: bool = True) -> Bento:
    """A bento whose service has the marks of a generated one, with the guard or before it."""
    source = directory / "src"
    source.mkdir(parents=True)
    (source / "pyfunc_json.py").write_text("")
    options = "\n    service_class=GuardedService,\n" if guarded else ""
    (source / "kfp_bento_service.py").write_text(f"@bentoml.service({options})\nclass Wine: ...\n")
    if guarded:
        (source / "pyfunc_guard.py").write_text("")
    return make_bento(directory=directory)


def make_model(**changes: str) -> BentoModel:
    provenance = {
        "uri": "models:/wine@champion",
        "name": "wine",
        "version": "7",
        "run_id": "e0dcfa8cf23e478f92f9348174530df7",
        "digest": "sha256:" + "ef" * 32,
    }
    return BentoModel(
        tag="wine:0123456789abcdef",
        digest="sha256:" + "01" * 32,
        provenance={**provenance, **changes},
    )
