"""Finding a pipeline by name, file or import path, and giving its arguments their types."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import parse_json_value

SHIPPED = {
    "batch_score": "kfp_bento.pipelines:batch_score",
    "canary_release": "kfp_bento.pipelines:canary_release",
    "move_to_production": "kfp_bento.pipelines:move_to_production",
    "release_model": "kfp_bento.pipelines:release_model",
    "retrain_on_drift": "kfp_bento.pipelines:retrain_on_drift",
    "roll_back_model": "kfp_bento.pipelines:roll_back_model",
    "serve_model": "kfp_bento.pipelines:serve_model",
    "serve_service": "kfp_bento.pipelines:serve_service",
    "serve_with_yatai_builder": "kfp_bento.pipelines:serve_with_yatai_builder",
    "train_to_serve": "kfp_bento.pipelines:train_wine_to_serve",
}
PYTHON_TYPES: Mapping[str, Any] = {
    "String": str,
    "Integer": int,
    "Float": int | float,
    "Boolean": bool,
    "List": list,
    "Dict": dict,
}
"""What values of KFP's types are in Python."""
IMAGES = {
    "runtime_image": "kfp-bento install pushes that image, and KFP_BENTO_IMAGE names it as well.",
    "training_image": "kfp-bento install --training pushes that image, and "
    "KFP_BENTO_TRAINING_IMAGE names it as well.",
}
"""Parameters of the shipped pipelines that say in which image steps run on a cluster."""
TRUE, FALSE = {"true", "yes", "1"}, {"false", "no", "0"}


def load_pipeline(reference: str) -> Any:
    """Load a KFP pipeline or component.

    Args:
        reference: A shipped pipeline's name, a compiled YAML file, or module:attribute.

    Raises:
        InvalidInput: If nothing of that name can be loaded.
    """
    from kfp import components

    if Path(reference).suffix in {".yaml", ".yml"}:
        if not Path(reference).is_file():
            raise InvalidInput(f"There is no pipeline file {reference}.")
        try:
            return components.load_component_from_file(reference)
        except Exception as error:  # KFP raises whatever its YAML and protobuf readers raise
            raise InvalidInput(f"{reference} is no compiled KFP pipeline: {error}") from error
    module, _, attribute = SHIPPED.get(_key(reference), reference).partition(":")
    if not attribute:
        raise InvalidInput(
            f"There is no pipeline {reference}.",
            hint=f"Give one of {', '.join(SHIPPED)}, a compiled YAML file, or module:attribute.",
        )
    if not is_shipped(reference) and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"The pipeline {reference} cannot be loaded: {error}.") from error


def deploys(pipeline: Any) -> bool:
    """Tell whether a step of a pipeline deploys, so that its run has a release to report."""
    specification = pipeline.pipeline_spec
    dags = [specification.root.dag, *(one.dag for one in specification.components.values())]
    return any("deploy-bento" in dag.tasks for dag in dags)


def is_shipped(reference: str) -> bool:
    """Tell whether a reference names a pipeline of ours, which needs nothing of the user's."""
    return _key(reference) in SHIPPED


def typed_arguments(
    pipeline: Any, given: Sequence[str], file: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Turn values of a pipeline's parameters into the types that these have.

    Args:
        pipeline: What load_pipeline gave.
        given: key=value texts; lists and dicts are JSON, booleans true or false. What does not
            begin as a list is a list of one text.
        file: Values of a file, which have types already; what is given as text counts instead.

    Raises:
        InvalidInput: If a parameter is unknown, missing, or its value not of its type.
    """
    inputs: Mapping[str, Any] = pipeline.component_spec.inputs or {}
    arguments = {key: _checked(key, value, inputs) for key, value in (file or {}).items()}
    for text in given:
        key, found, value = text.partition("=")
        if not found:
            raise InvalidInput(f"{text!r} is not key=value.", hint=f"It has: {', '.join(inputs)}.")
        arguments[key] = _typed(key, value, _kind(key, inputs))
    missing = [
        key
        for key, spec in inputs.items()
        if (key not in arguments and not spec.optional) or _is_blank_image(key, arguments)
    ]
    if missing:
        raise InvalidInput(
            f"The pipeline needs a value for {', '.join(missing)}.",
            hint=" ".join(
                f"--param {key}=…{'; ' if key in IMAGES else ''}{IMAGES.get(key, '')}"
                for key in missing
            ),
        )
    return arguments


def local_arguments(pipeline: Any, given: Sequence[str], file: Mapping[str, Any]) -> dict[str, Any]:
    """Do as `typed_arguments`, with `values_here` for what is not given."""
    return typed_arguments(pipeline, given, {**values_here(pipeline), **file})


def values_here(pipeline: Any) -> dict[str, Any]:
    """Give the values of parameters that mean nothing on this machine: no step has an image."""
    return {key: "python" for key in pipeline.component_spec.inputs or () if key in IMAGES}


def _is_blank_image(key: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether an image is given without a name: Kubeflow takes that, and waits for ever."""
    return key in IMAGES and key in arguments and not str(arguments[key]).strip()


def without_retries(pipeline: Any) -> Any:
    """Take back that steps are tried again: here no network of a cluster's stands between them.

    What fails here is a mistake more often than not, and is to be told at once.
    """
    specification = pipeline.pipeline_spec
    dags = [specification.root.dag, *(one.dag for one in specification.components.values())]
    for task in (task for dag in dags for task in dag.tasks.values()):
        task.ClearField("retry_policy")
    return pipeline


def without_nones(pipeline: Any, given: Iterable[str]) -> Any:
    """Take parameters that are None out of a pipeline: kfp.local has no way to say so.

    On a cluster a parameter that is left out and has no default is None for the function
    (`name: Optional[str] = None`). A function that is not given it has None as well.

    Args:
        pipeline: What load_pipeline gave.
        given: Names of the pipeline's parameters that have a value.
    """
    specification = pipeline.pipeline_spec
    inputs = specification.root.input_definitions.parameters
    empty = {name for name in inputs if name not in given and _may_be_none(inputs[name])}
    _leave_out(specification, specification.root, empty)
    tasks = [
        task
        for component in (specification.root, *specification.components.values())
        for task in component.dag.tasks.values()
    ]
    for name, component in specification.components.items():
        passed = {
            key
            for task in tasks
            if task.component_ref.name == name
            for key in task.inputs.parameters
        }
        for key, parameter in [*component.input_definitions.parameters.items()]:
            if key not in passed and _may_be_none(parameter):
                del component.input_definitions.parameters[key]
    return pipeline


def _may_be_none(parameter: Any) -> bool:
    return parameter.is_optional and parameter.default_value.WhichOneof("kind") is None


def _leave_out(specification: Any, component: Any, names: set[str]) -> None:
    """Take inputs out of a group of tasks, and what its tasks are passed of them."""
    for name in names:
        del component.input_definitions.parameters[name]
    for task in component.dag.tasks.values():
        parameters = task.inputs.parameters
        passed = {key for key in parameters if parameters[key].component_input_parameter in names}
        for key in passed:
            del parameters[key]
        inside = specification.components[task.component_ref.name]
        if passed and inside.HasField("dag"):
            _leave_out(specification, inside, passed)


def _key(reference: str) -> str:
    return reference.replace("-", "_")


def _kind(key: str, inputs: Mapping[str, Any]) -> str:
    if key not in inputs:
        raise InvalidInput(
            f"{key!r} names no parameter of the pipeline.", hint=f"It has: {', '.join(inputs)}."
        )
    return parameter_kind(str(inputs[key].type))


def parameter_kind(kind: str) -> str:
    """Give a type of KFP's as `PYTHON_TYPES` calls it; others as they are.

    `List[str]` and `Dict[str, int]` stand in a pipeline's specification as they were written.
    """
    from kfp.dsl.types import type_utils
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    if kind in PYTHON_TYPES or not type_utils.is_parameter_type(kind):
        return kind
    found = ParameterType.ParameterTypeEnum.Name(type_utils.get_parameter_type(kind))
    return {"LIST": "List", "STRUCT": "Dict"}.get(found, kind)


def _checked(key: str, value: Any, inputs: Mapping[str, Any]) -> Any:
    """Give a value that has its type already; none is turned into another."""
    kind = _kind(key, inputs)
    wanted = PYTHON_TYPES.get(kind, object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "Boolean"):
        hint = "Quote it." if kind == "String" else f"Write a YAML or JSON {kind.lower()}."
        raise InvalidInput(f"{key}: {value!r} is not of type {kind}.", hint=hint)
    return value


def _typed(key: str, value: str, kind: str) -> Any:
    try:
        if kind == "Integer":
            return int(value)
        if kind == "Float":
            return float(value)
        if kind == "Boolean":
            return _boolean(value)
        if kind == "List" and not value.lstrip().startswith("["):
            return [value]
        if kind in ("List", "Dict"):
            parsed = parse_json_value(value.encode())
            if not isinstance(parsed, list if kind == "List" else dict):
                raise ValueError(f"not a JSON {kind.lower()}")
            return parsed
    except ValueError as error:
        raise InvalidInput(f"{key}={value} is not of type {kind}: {error}.") from error
    return value


def _boolean(value: str) -> bool:
    if value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise ValueError("give true or false")
