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
GROUPS = (
    *("", "drift", "model", "tracking", "scan", "bento", "golden", "archive", "image"),
    *("source", "deploy", "canary", "check", "required", "promote", "approval"),
    *("why", "to", "leaving", "secret"),
)
"""First words of parameters in the order of the road; "" is any other, such as a trainer's own."""


def pipeline_named(name: str):
    """Give KFP's decorator of a pipeline, which also shows its name as words."""
    return dsl.pipeline(name=name, display_name=name.replace("-", " ").capitalize())


def in_order(inputs) -> dict:
    """Put parameters into the order in which one fills them in.

    What has to be given comes first, then what a trainer asks for, then the stops of the road, then
    the names of Secrets. (The form of Kubeflow's UI has them by the alphabet: the first word of a
    name keeps together there what belongs together.)

    Args:
        inputs: Specifications of the parameters by name.
    """
    return dict(sorted(inputs.items(), key=lambda one: (one[1].optional, _group(one[0]))))


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


def _group(key: str) -> int:
    word = "secret" if key.endswith("_secret") else key.partition("_")[0]
    return GROUPS.index(word) if word in GROUPS else 0


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
