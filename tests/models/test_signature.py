"""A signature is read into values that hold only what MLflow allows."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property, SparkMLVector

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models import ModelSignature, Tensor

SCALARS = [kind.name for kind in DataType]
NESTED = [
    Array(Array(DataType.double)),
    Map(Object([Property("b", DataType.string, required=False)])),
    Object([Property("a\nb", Array(AnyType())), Property("c", Map(DataType.long))]),
    AnyType(),
    SparkMLVector(),
]
SCHEMAS = {
    "every scalar": Schema([ColSpec(kind, kind, required=kind != "long") for kind in SCALARS]),
    "unnamed": Schema([ColSpec(kind) for kind in SCALARS]),
    "nested": Schema([ColSpec(kind, f"column {n}") for n, kind in enumerate(NESTED)]),
    "numbers as names": Schema([ColSpec("double", name) for name in (0, -1, 2.5, True)]),  # type: ignore[arg-type]
    "levels of names": Schema([ColSpec("double", name) for name in (("a", "b"), ("a", 1))]),  # type: ignore[arg-type]
    "tensor": Schema([TensorSpec(np.dtype("float32"), (-1, 3, 224, 224))]),
    "scalar tensor": Schema([TensorSpec(np.dtype("int64"), ())]),
    "wide": Schema([ColSpec("double", f"feature number {n}") for n in range(30_000)]),
}
DTYPES = [
    *("bool", "int8", "uint64", "float16", "float32", "longdouble", "complex64", "clongdouble"),
    *("U", "S", "O", "M8", "M8[ns]", "m8", "m8[3D]", "M8[us]", "V8"),
]
PARAMS = ParamSchema(
    [
        ParamSpec("whole", "integer", 3),
        ParamSpec("number", "double", math.inf),
        ParamSpec("no number", "float", math.nan),
        ParamSpec("text", "string", '"""'),
        ParamSpec("texts", "string", ["a", "b"], (-1,)),
        ParamSpec("moment", "datetime", np.datetime64("2024-05-06T07:08:09")),
        ParamSpec("none", "string", None),
        ParamSpec("object", Object([Property("a", DataType.long)]), {"a": 1}),
    ]
)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_what_mlflow_writes_is_read_and_written_again(schema: Schema) -> None:
    signature = ModelSignature.from_mlmodel({"inputs": schema.to_json()})

    assert json.dumps(signature.to_dict()["inputs"]) == schema.to_json()
    assert ModelSignature.from_dict(json.loads(json.dumps(signature.to_dict()))) == signature


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_that_mlflow_writes_is_known(dtype: str) -> None:
    schema = Schema([TensorSpec(np.dtype(dtype), (-1,), name="a")])
    [tensor] = ModelSignature.from_mlmodel({"outputs": schema.to_json()}).outputs

    assert tensor == Tensor(np.dtype(dtype).name, (-1,), "a")


def test_parameters_of_every_type_are_read_and_written_as_strict_json() -> None:
    signature = ModelSignature.from_mlmodel({"params": PARAMS.to_json()})
    text = json.dumps(signature.to_dict(), allow_nan=False)

    assert [param.default for param in signature.params[3:5]] == ['"""', ["a", "b"]]
    # As text: from Python 3.13 on a dataclass that holds a NaN is not equal to its copy.
    assert json.dumps(ModelSignature.from_dict(json.loads(text)).to_dict()) == text


def test_a_column_of_an_older_mlflow_is_required_unless_it_says_otherwise() -> None:
    older = [
        {"name": "a", "type": "double"},
        {"name": "b", "type": "double", "required": None},
        {"name": "c", "type": "double", "optional": True},  # of MLflow 2.4 to 2.9
    ]
    columns = ModelSignature.from_dict({"inputs": older}).inputs

    assert [column.to_dict()["required"] for column in columns] == [True, False, False]


def tensor(**spec: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-1], **spec}}


def nested(levels: int) -> dict[str, Any]:
    spec: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        spec = {"type": "array", "items": spec}
    return spec


def param(type_: str, default: Any, **more: Any) -> dict[str, Any]:
    return {"params": [{"name": "p", "type": type_, "default": default, **more}]}


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ({"inputs": [tensor(shape=["4"])]}, r"inputs\[0\]` has the shape \['4'\]"),
        ({"inputs": [tensor(shape=[True])]}, "has the shape"),
        ({"inputs": [tensor(shape=[4.0])]}, "has the shape"),
        ({"inputs": [tensor(shape=[-2])]}, "has the shape"),
        ({"inputs": [tensor(shape=[None])]}, "-1 where any will do"),
        ({"inputs": [tensor(shape=[2**63])]}, "has the shape"),
        ({"inputs": [tensor(shape="-1")]}, "has the shape"),
        ({"inputs": [tensor(shape=[1] * 65)]}, "has the shape"),
        ({"inputs": [tensor(dtype="os.system")]}, "which NumPy does not have"),
        ({"inputs": [tensor(dtype="datetime64[ns]\n")]}, "which NumPy does not have"),
        ({"inputs": [tensor(dtype=["int8"])]}, "which NumPy does not have"),
        ({"inputs": [{"type": "tensor"}]}, "has no `tensor-spec`"),
        ({"inputs": [tensor(), tensor()]}, "several tensors"),
        ({"inputs": [tensor(), {"type": "long"}]}, "both columns and tensors"),
        ({"outputs": [{"type": "__import__"}]}, r"outputs\[0\]` has the type '__import__'"),
        ({"outputs": [{"type": None}]}, "has the type None"),
        ({"outputs": [{"type": "array"}]}, r"outputs\[0\].items` is no object"),
        ({"outputs": [{"type": "object", "properties": []}]}, "has no `properties`"),
        ({"outputs": [nested(33)]}, "nested deeper than 32 levels"),
        ({"inputs": [{"type": "long", "name": {"a": 1}}]}, "neither text nor number"),
        ({"inputs": [{"type": "long", "name": math.nan}]}, "neither text nor number"),
        ({"inputs": [{"type": "long", "name": []}]}, "a name of 0 levels"),
        ({"inputs": [{"type": "long", "name": "x" * 5000}]}, "more than 4096 characters"),
        ({"inputs": [{"type": "long", "required": "no"}]}, "`required` 'no'"),
        ({"inputs": {"a": 1}}, "inputs` is not a JSON list of objects"),
        ({"inputs": ["long"]}, "is not a JSON list of objects"),
        ({"inputs": [{"type": "long"}] * 100_001}, "more than 100000 fields"),
        (param("long", "3"), r"params\[0\]` has the default '3', which is no long"),
        (param("long", True), "which is no long"),
        (param("boolean", 1), "which is no boolean"),
        (param("string", 1), "which is no string"),
        (param("double", "1"), "which is no double"),
        (param("datetime", "now()"), "which is no datetime"),
        (param("string", "a", shape=[-1]), "a default that is no list"),
        (param("string", ["a"], shape=[3]), "a value or a list"),
        (param("binary", None), "which no parameter has"),
        ({"params": [{"name": 1, "type": "long"}]}, "which is no text"),
    ],
)
def test_what_mlflow_does_not_allow_is_refused_by_name(sides: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        ModelSignature.from_dict(sides)
    assert "infer_signature" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["[", "{}", '"a"', "[" * 100_000, '[{"type": "long", "type": "double"}]', "[1e999]", "NaN"],
)
def test_a_side_that_is_no_list_of_objects_in_json_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="signature cannot be used: `inputs`"):
        ModelSignature.from_mlmodel({"inputs": text})
