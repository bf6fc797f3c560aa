"""Signatures of pipelines: what all have, and those of pipelines out of others."""

import inspect
import os
from dataclasses import dataclass

from kfp import dsl
from kfp.dsl.types import type_utils
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from kfp_bento.pipelines.tasks import finish_tasks

PYTHON_TYPES = {
    "String": str,
    "Integer": int,
    "Float": float,
    "Boolean": bool,
    "List": list,
    "Dict": dict,
}
KFP_KINDS = {
    "STRING": "String",
    "NUMBER_INTEGER": "Integer",
    "NUMBER_DOUBLE": "Float",
    "BOOLEAN": "Boolean",
    "LIST": "List",
    "STRUCT": "Dict",
}
GROUPS = (
    *("", "drift", "model", "tracking", "scan", "bento", "golden", "archive", "image"),
    *("source", "deploy", "canary", "check", "required", "promote", "approval"),
    *("why", "to", "leaving", "runtime", "training", "secret"),
)
"""First words of parameters in the order of the road; "" is any other, such as a trainer's own."""


@dataclass(frozen=True)
class Common:
    """A parameter of our pipelines that no step takes as an input.

    Attributes:
        variable: What gives its default where the pipeline is compiled; without it the parameter
            has to be given. Empty where `default` counts.
        help: Its description.
        default: Its default.
    """

    variable: str
    help: str
    default: str = ""


RUNTIME_IMAGE, TRAINING_IMAGE = "runtime_image", "training_image"
RUNTIME_SETTINGS = "runtime_settings"
COMMON = {
    RUNTIME_IMAGE: Common(
        "KFP_BENTO_IMAGE",
        "Image of the steps, which holds kfp-bento; kfp-bento install pushes one to a registry "
        "that the cluster pulls from.",
    ),
    TRAINING_IMAGE: Common(
        "KFP_BENTO_TRAINING_IMAGE",
        "Image of the training step, which holds its libraries besides; kfp-bento install "
        "--training pushes one.",
    ),
    RUNTIME_SETTINGS: Common(
        "",
        "ConfigMap in the run's namespace with the cluster's certificates (ca.crt), proxies and "
        "registries without TLS; may be absent.",
        default="kfp-bento-cluster",
    ),
}
DAY_SECONDS = 24 * 60 * 60


def pipeline_named(name: str, *, trains: bool = False):
    """Give the decorator of our pipelines.

    It shows the name as words, finishes the tasks, and adds the parameters in `COMMON`. Images have
    to be given unless KFP_BENTO_IMAGE and KFP_BENTO_TRAINING_IMAGE are set where the pipeline is
    compiled: Kubeflow refuses a run without them, in place of a run that waits for an image that
    nobody has.

    Args:
        name: Name of the pipeline.
        trains: Whether a step of it is one of our trainers.
    """

    def pipeline(function):
        return dsl.pipeline(
            name=name,
            display_name=name.replace("-", " ").capitalize(),
            # The run stays in Kubeflow's database; its Workflow, some 600 KiB in etcd, goes.
            pipeline_config=dsl.PipelineConfig(
                ttl_seconds_after_success=DAY_SECONDS, ttl_seconds_after_failure=7 * DAY_SECONDS
            ),
        )(_with_common(function, [name for name in COMMON if trains or name != TRAINING_IMAGE]))

    return pipeline


def own_inputs(pipeline) -> dict:
    """Give the parameters of a pipeline of ours, less those that all have."""
    inputs = pipeline.component_spec.inputs
    return {key: spec for key, spec in inputs.items() if key not in COMMON}


def _with_common(function, names: list):
    """Give a pipeline's function more parameters, and its tasks what they say."""
    parameters = list(inspect.signature(function).parameters.values())
    for name in names:
        parameters = _placed(_common_parameter(name), parameters)

    def pipeline(*values):
        arguments = dict(zip(pipeline.__signature__.parameters, values, strict=True))
        chosen = {name: arguments.pop(name) for name in names}
        function(**arguments)
        finish_tasks(**chosen)

    pipeline.__name__ = function.__name__
    lines = "".join(f"    {name}: {COMMON[name].help}\n" for name in names)
    head, _, others = inspect.getdoc(function).partition("Args:\n")
    pipeline.__doc__ = f"{head}Args:\n{lines}{others}"
    pipeline.__signature__ = inspect.Signature(parameters)
    return pipeline


def _common_parameter(name: str) -> inspect.Parameter:
    one = COMMON[name]
    given = one.default or os.environ.get(one.variable, "").strip() or inspect.Parameter.empty
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=given, annotation=str)


def _placed(added: inspect.Parameter, others: list) -> list:
    """Put a parameter behind what must be given as well, or before the Secrets."""
    needed = added.default is inspect.Parameter.empty
    before = [
        other.default is added.default if needed else not other.name.endswith("_secret")
        for other in others
    ]
    return [*others[: sum(before)], added, *others[sum(before) :]]


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


def parameter_kind(kind: str) -> str:
    """Give a type of KFP's as `PYTHON_TYPES` calls it, "" for an artifact.

    `List[str]` and `Dict[str, int]` stand in a component's specification as they were written.
    """
    if not type_utils.is_parameter_type(kind):
        return ""
    name = ParameterType.ParameterTypeEnum.Name(type_utils.get_parameter_type(kind))
    return KFP_KINDS.get(name, "")


def _group(key: str) -> int:
    word = "secret" if key.endswith("_secret") else key.partition("_")[0]
    return GROUPS.index(word) if word in GROUPS else 0


def _parameter(key: str, spec) -> inspect.Parameter:
    kind = parameter_kind(spec.type)
    if not kind:
        raise TypeError(f"Input {key} is an artifact; a pipeline can only be given parameters.")
    return inspect.Parameter(
        key,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=spec.default if spec.optional else inspect.Parameter.empty,
        annotation=PYTHON_TYPES[kind],
    )


def _docstring(summary: str, inputs) -> str:
    lines = [
        f"    {key}: {' '.join((spec.description or key).split())}" for key, spec in inputs.items()
    ]
    return "\n".join([summary, "", "Args:", *lines])
