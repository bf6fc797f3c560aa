"""Pipelines out of others: their parameters, joined."""

import inspect

from kfp import dsl

PYTHON_TYPES = {
    "String": str,
    "Integer": int,
    "Float": float,
    "Boolean": bool,
    "List": list,
    "Dict": dict,
}


def pipeline_named(name: str):
    """Give KFP's decorator of a pipeline, which also shows its name as words."""
    return dsl.pipeline(name=name, display_name=name.replace("-", " ").capitalize())


def with_signature(function, inputs, *, name: str, summary: str):
    """Give a function of values the signature and the docstring that KFP reads of a pipeline.

    Args:
        function: Takes the values of the parameters, in their order.
        inputs: Specifications of the parameters by name, as components and pipelines have them.
        name: Name of the pipeline.
        summary: What it does.

    Raises:
        TypeError: If one is an artifact.
    """
    function.__name__ = name.replace("-", "_")
    function.__doc__ = _docstring(summary, inputs)
    function.__signature__ = inspect.Signature([_parameter(k, v) for k, v in inputs.items()])
    return function


def _parameter(key: str, spec) -> inspect.Parameter:
    if spec.type not in PYTHON_TYPES:
        raise TypeError(f"Input {key} is an artifact; a pipeline can only be given parameters.")
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        default=spec.default if spec.optional else inspect.Parameter.empty,
        annotation=PYTHON_TYPES[spec.type],
    )


def _docstring(summary: str, inputs) -> str:
    lines = [
        f"    {key}: {' '.join((spec.description or key).split())}" for key, spec in inputs.items()
    ]
    return "\n".join([summary, "", "Args:", *lines])
