"""The README of a component, generated from its signature and docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from kfp_bento.runtime.deployments import TARGETS, option_docs

FILLED_IN = ("TaskConfig",)
"""Types of inputs that Kubeflow Pipelines fills in itself."""

DEPLOYING = "deploy_bento"
"""The component whose input `options` takes all other options of a deployment target."""


def component_page(component: Any) -> str:
    """Write a component's README: what it does, its inputs and its outputs.

    Args:
        component: A KFP Python component.

    Returns:
        Markdown.
    """
    name = component.python_func.__name__
    specification = component.component_spec
    parts = [
        f"# {name}",
        _prose(component.python_func),
        "## Inputs",
        _inputs(specification.inputs or {}),
        *(_options(specification.inputs or {}) if name == DEPLOYING else ()),
        *(("## Outputs", _outputs(specification.outputs)) if specification.outputs else ()),
        "Generated from the component's signature by `make compile`.",
    ]
    return "\n\n".join(parts) + "\n"


def _prose(function: Any) -> str:
    return (inspect.getdoc(function) or "").split("\nArgs:")[0].split("\nReturns:")[0].strip()


def _inputs(inputs: dict[str, Any]) -> str:
    rows = ["| name | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, spec in inputs.items():
        if spec.type in FILLED_IN:
            continue
        default = f"`{spec.default!r}`" if spec.optional else "required"
        rows.append(f"| `{key}` | {_type(spec)} | {default} | {_cell(spec.description)} |")
    return "\n".join(rows)


def _options(inputs: dict[str, Any]) -> Iterator[str]:
    """Give the options of each target that the component has no input of its own for."""
    for name, target in TARGETS.items():
        rows = ["| name | type | default | meaning |", "| --- | --- | --- | --- |"]
        for one in option_docs(target.options_type):
            if one.name not in inputs:
                default = f"`{one.default}`" if one.default else ""
                rows.append(f"| `{one.name}` | {one.type} | {default} | {_cell(one.meaning)} |")
        yield f"## What `options` takes for {name}"
        yield "\n".join(rows)


def _outputs(outputs: dict[str, Any]) -> str:
    rows = ["| name | type | meaning |", "| --- | --- | --- |"]
    for key, spec in outputs.items():
        rows.append(f"| `{key}` | {_type(spec)} | {_cell(spec.description)} |")
    return "\n".join(rows)


def _type(spec: Any) -> str:
    return str(spec.type).partition("@")[0]


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
