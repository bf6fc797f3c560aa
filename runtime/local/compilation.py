"""Compiling pipelines and components to the YAML that Kubeflow Pipelines takes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from kfp_bento.runtime.local.component_pages import component_page
from kfp_bento.runtime.local.pipelines import SHIPPED, load_pipeline


def compile_pipelines(references: Sequence[str], directory: Path) -> list[Path]:
    """Compile pipelines to <name>.yaml in a directory.

    Args:
        references: Shipped names or module:attribute; none compiles all that are shipped.
        directory: Made when missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return [
        _compile(load_pipeline(reference), directory / f"{_stem(reference)}.yaml")
        for reference in references or SHIPPED
    ]


def compile_components(directory: Path) -> list[Path]:
    """Compile every component to <name>/component.yaml in a directory, its README beside it."""
    shipped = importlib.import_module("kfp_bento.components")
    written = []
    for name in shipped.__all__:
        (directory / name).mkdir(parents=True, exist_ok=True)
        component = getattr(shipped, name)
        written.append(_compile(component, directory / name / "component.yaml"))
        page = directory / name / "README.md"
        page.write_text(component_page(component))
        written.append(page)
    return written


def _stem(reference: str) -> str:
    return reference.rpartition(":")[2].replace("-", "_")


def _compile(pipeline: object, path: Path) -> Path:
    from kfp import compiler

    compiler.Compiler().compile(pipeline, str(path))
    return path
