"""The README of a component, generated from its signature and docstring."""

from __future__ import annotations

import inspect
from typing import Any

import docstring_parser

from kfp_bento.runtime.deployments import option_docs, target_of

FILLED_IN = ("TaskConfig",)
"""Types of inputs that Kubeflow Pipelines fills in itself."""

DEPLOYS_TO = {
    "deploy_bento": "bento-deployment",
    "deploy_inference_service": "inference-service",
    "deploy_workload": "workload",
    "request_bento": "bento-request",
}
"""Components whose input `options` takes all other options of a deployment target."""

# Inputs that are named otherwise than the option that they set.
_RENAMED = {"deployment_mode": "mode"}


def component_page(component: Any) -> str:
    """Write a component's README: what it does, its inputs and its outputs.

    Args:
        component: A KFP Python component.

    Returns:
        Markdown.
    """
    name = component.python_func.__name__
    specification = component.component_spec
    documentation = inspect.getdoc(component.python_func) or ""
    meanings = {p.arg_name: p.description for p in docstring_parser.parse(documentation).params}
    parts = [
        f"# {name}",
        _prose(component.python_func),
        "## Inputs",
        _inputs(specification.inputs or {}),
        *_options(DEPLOYS_TO.get(name, ""), specification.inputs or {}),
        "## Outputs",
        _outputs(specification.outputs or {}, meanings),
        "Generated from the component's signature by `make compile`.",
    ]
    return "\n\n".join(parts) + "\n"


def _prose(function: Any) -> str:
    return (inspect.getdoc(function) or "").split("\nArgs:")[0].strip()


def _inputs(inputs: dict[str, Any]) -> str:
    rows = ["| name | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, spec in inputs.items():
        if spec.type in FILLED_IN:
            continue
        default = f"`{spec.default!r}`" if spec.optional else "required"
        rows.append(f"| `{key}` | {_type(spec)} | {default} | {_cell(spec.description)} |")
    return "\n".join(rows)


def _options(target: str, inputs: dict[str, Any]) -> list[str]:
    """Give the options of a target that the component has no input of its own for."""
    if not target:
        return []
    own = {_RENAMED.get(key, key) for key in inputs if key != "mode"}
    rows = ["| name | type | default | meaning |", "| --- | --- | --- | --- |"]
    for one in option_docs(target_of(target).options_type):
        if one.name not in own:
            default = f"`{one.default}`" if one.default else ""
            rows.append(f"| `{one.name}` | {one.type} | {default} | {_cell(one.meaning)} |")
    return ["## What `options` takes", "\n".join(rows)]


def _outputs(outputs: dict[str, Any], meanings: dict[str, str | None]) -> str:
    rows = ["| name | type | meaning |", "| --- | --- | --- |"]
    for key, spec in outputs.items():
        meaning = _cell(spec.description or meanings.get(key))
        rows.append(f"| `{key}` | {_type(spec)} | {meaning} |")
    return "\n".join(rows)


def _type(spec: Any) -> str:
    return str(spec.type).partition("@")[0]


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
