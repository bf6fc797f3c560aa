"""Signatures of pipelines: what all have, and those of pipelines out of others."""

import inspect
import os

from kfp import dsl

from kfp_bento.pipelines.tasks import finish_tasks

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
    *("why", "to", "leaving", "runtime", "secret"),
)
"""First words of parameters in the order of the road; "" is any other, such as a trainer's own."""


RUNTIME_IMAGE = "runtime_image"
IMAGE_HELP = (
    "Image of the steps, which holds kfp-bento; make image pushes one to a registry that the "
    "cluster pulls from."
)
DAY_SECONDS = 24 * 60 * 60


def pipeline_named(name: str):
    """Give the decorator of our pipelines.

    It shows the name as words, finishes the tasks, and adds the parameter `runtime_image`. That one
    has to be given unless KFP_BENTO_IMAGE is set where the pipeline is compiled: Kubeflow refuses a
    run without it, in place of a run that waits for an image that nobody has.
    """

    def pipeline(function):
        return dsl.pipeline(
            name=name,
            display_name=name.replace("-", " ").capitalize(),
            # The run stays in Kubeflow's database; its Workflow, some 600 KiB in etcd, goes.
            pipeline_config=dsl.PipelineConfig(
                ttl_seconds_after_success=DAY_SECONDS, ttl_seconds_after_failure=7 * DAY_SECONDS
            ),
        )(_in_runtime_image(function))

    return pipeline


def own_inputs(pipeline) -> dict:
    """Give the parameters of a pipeline of ours, less the one that all have."""
    inputs = pipeline.component_spec.inputs
    return {key: spec for key, spec in inputs.items() if key != RUNTIME_IMAGE}


def _in_runtime_image(function):
    """Give a pipeline's function the parameter `runtime_image`, and its tasks that image."""
    signature = inspect.signature(function)
    given = os.environ.get("KFP_BENTO_IMAGE") or inspect.Parameter.empty
    image = inspect.Parameter(
        RUNTIME_IMAGE, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=given, annotation=str
    )

    def pipeline(*values):
        arguments = dict(zip(pipeline.__signature__.parameters, values, strict=True))
        chosen = arguments.pop(RUNTIME_IMAGE)
        function(**arguments)
        finish_tasks(chosen)

    pipeline.__name__ = function.__name__
    pipeline.__doc__ = _with_argument(inspect.getdoc(function), f"{RUNTIME_IMAGE}: {IMAGE_HELP}")
    pipeline.__signature__ = signature.replace(
        parameters=_placed(image, list(signature.parameters.values()))
    )
    return pipeline


def _placed(image: inspect.Parameter, others: list) -> list:
    """Put the image behind what must be given as well, or before the Secrets."""
    needed = image.default is inspect.Parameter.empty
    before = [
        other.default is image.default if needed else not other.name.endswith("_secret")
        for other in others
    ]
    return [*others[: sum(before)], image, *others[sum(before) :]]


def _with_argument(documentation: str, line: str) -> str:
    head, _, arguments = documentation.partition("Args:\n")
    return f"{head}Args:\n    {line}\n{arguments}"


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
    """Give a function the signature and the docstring that KFP reads of a pipeline.

    Args:
        function: Takes the values of the parameters by their names.
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
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=spec.default if spec.optional else inspect.Parameter.empty,
        annotation=PYTHON_TYPES[spec.type],
    )


def _docstring(summary: str, inputs) -> str:
    lines = [
        f"    {key}: {' '.join((spec.description or key).split())}" for key, spec in inputs.items()
    ]
    return "\n".join([summary, "", "Args:", *lines])
