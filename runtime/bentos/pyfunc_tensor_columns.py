"""Tensors of a request straight to the columns and arrays of a model, without JSON between them.

This file lies beside the service in every bento that kfp-bento generates. What comes of it is what
would come of the JSON of the model's own route; whatever is not plain enough goes that way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import bentoml
from pydantic import ValidationError
from pyfunc_columns import take_columns  # type: ignore[import-not-found]
from pyfunc_endpoints import Refused  # type: ignore[import-not-found]
from pyfunc_guard import LIMITS  # type: ignore[import-not-found]
from pyfunc_tensor_data import Form, Tensor  # type: ignore[import-not-found]
from pyfunc_tensors import array_as  # type: ignore[import-not-found]

with bentoml.importing():
    import numpy as np


def read_tensors(
    body: Any, form: Form, tensors: Sequence[Tensor], params: Mapping[str, Any]
) -> Any:
    """Gives a body with what tensors hold, checked; None where they are not plain enough.

    Args:
        body: The class of the body of the model's own route.
        form: What the model takes.
        tensors: The tensors of a request.
        params: The model's parameters.

    Raises:
        Refused: They have too many rows.
    """
    beside = {"params": params} if params else {}
    if form.kind == "columns":
        columns = _columns(form, tensors)
        return take_columns(body, columns, beside) if columns else None
    if form.kind in ("tensor", "tensors"):
        return _arrays(body, form, tensors, beside)
    return None


def _columns(form: Form, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Gives the columns that tensors hold; none where that is not clear at once."""
    first = tensors[0]
    if len(tensors) == 1 and first.is_table(form.names):
        columns = dict(zip(form.names, first.values.T, strict=True)) if first.is_array else {}
    else:
        columns = {tensor.name: tensor.of_rank(1) for tensor in tensors if tensor.is_column}
        if len(columns) < len(tensors):
            return {}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        return {}
    if max(lengths) > LIMITS.max_rows:
        raise Refused(400, f"inputs: more than {LIMITS.max_rows} rows")
    return columns


def _arrays(body: Any, form: Form, tensors: Sequence[Tensor], beside: Mapping[str, Any]) -> Any:
    named = {tensor.name: tensor for tensor in tensors}
    if form.kind == "tensor" and len(tensors) == 1:
        named = {form.names[0]: tensors[0]}
    if set(named) != set(form.names) or not all(one.is_array and one.shape for one in tensors):
        return None
    try:
        arrays = {
            name: array_as(dtype, shape, named[name].of_rank(len(shape)))
            for name, dtype, shape in zip(form.names, form.types, form.shapes, strict=True)
        }
        # What is beside them, and whether one row of each fits.
        first: Any = {name: array[:1].tolist() for name, array in arrays.items()}
        first = first if form.kind == "tensors" else first[form.names[0]]
        found = body.model_validate_json(json.dumps({**beside, "inputs": first}))
    except (ValidationError, ValueError, TypeError):
        return None
    return _with_inputs(found, arrays, form)


def _with_inputs(found: Any, arrays: Mapping[str, np.ndarray], form: Form) -> Any:
    if form.kind == "tensor":
        (found.inputs,) = arrays.values()
        return found
    for name, field in type(found.inputs).model_fields.items():
        setattr(found.inputs, name, arrays[field.alias or name])
    return found
