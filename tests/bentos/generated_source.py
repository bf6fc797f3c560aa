"""What the source of a generated service may consist of, whatever the model says."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos.build import bento_models
from kfp_bento.runtime.bentos.service_source import SERVICE_MODULE, generated_files
from kfp_bento.runtime.models import ModelSignature, ModelVersion

CALLED = {
    *("Annotated", "BentoModel", "Field", "Label", "SkipValidation", "TypedDict", "answer", "api"),
    *("arrays", "example", "float", "frame", "free_form", "fromisoformat", "importing"),
    *("load_model", "native", "service", "table", "tensor"),
}
"""All that a generated module calls, besides the classes that it makes for parameters."""

KNOWN = {
    *("Any", "Binary", "Body", "Boolean", "Datetime", "Double", "Float", "Integer", "Long", "Row"),
    *("FrameBody", "Nullable"),
    *("String", "bentoml", "bool", "datetime", "dict", "float", "inputs", "int", "list", "mlflow"),
    *("GuardedService", "object", "params", "self", "str", "tuple", "__doc__", *CALLED),
}
"""All names that a generated module reads, besides the classes that it makes itself."""

ATTRIBUTES = {
    *("BentoModel", "api", "fromisoformat", "importing", "load_model", "model", "models", "path"),
    *("pyfunc", "service"),
    "inputs",
}


def model(directory: Path, signature: Any, **changes: Any) -> ModelVersion:
    """A model without files, with the signature that MLflow's lists describe."""
    (directory / "MLmodel").write_text("flavors: {python_function: {loader_module: x}}\n")
    facts: dict[str, Any] = dict.fromkeys(("uri", "alias", "run_id", "model_id", "source"), "")
    facts |= {"name": "wine", "version": "3", "digest": "sha256:" + "ab" * 32}
    facts |= {"content_digest": "sha256:" + "cd" * 32, "flavors": ("python_function",)}
    facts |= {"python_version": "", "requirements": (), "mlflow_version": "", "size": 1}
    found = signature if isinstance(signature, ModelSignature | None) else None
    if isinstance(signature, dict):
        found = ModelSignature.from_dict(signature)
    facts |= {"signature": found, "aliases": {}, "directory": directory}
    return ModelVersion(**{**facts, **changes})


def source_for(*models: ModelVersion) -> str:
    """The module of a generated service."""
    return generated_files("wine", models, bento_models(models))[f"{SERVICE_MODULE}.py"].decode()


def strangers(source: str) -> set[str]:
    """What stands in a module's source that no generated service has."""
    tree = ast.parse(source)
    made = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    made |= {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id  # type: ignore[attr-defined]
            found |= {name} - CALLED - made
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found |= {node.id} - KNOWN - made
        elif isinstance(node, ast.Attribute):
            plain = node.attr.startswith(("model_", "pyfunc_"))
            found |= set() if plain else {node.attr} - ATTRIBUTES
        elif isinstance(node, _NEVER):
            found.add(type(node).__name__)
    return found


_NEVER = (
    *(ast.Lambda, ast.IfExp, ast.BoolOp, ast.Compare, ast.ListComp, ast.GeneratorExp, ast.SetComp),
    *(ast.DictComp, ast.NamedExpr, ast.JoinedStr, ast.Await, ast.Yield, ast.For, ast.While, ast.If),
    *(ast.Try, ast.Delete, ast.Global, ast.Starred, ast.AugAssign, ast.Raise, ast.Assert),
)


def shape(source: str) -> str:
    """The form of a module's source: its syntax without texts, numbers and names of its own."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = type(node.value).__name__
        elif isinstance(node, ast.Name) and node.id not in KNOWN:
            node.id = "own"
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            node.name = "Own"
        elif isinstance(node, ast.Attribute):
            node.attr = node.attr.partition("_")[0] if node.attr not in ATTRIBUTES else node.attr
        elif isinstance(node, ast.ImportFrom):
            node.names = []
    return ast.dump(tree)
