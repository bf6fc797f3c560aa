"""JSON documents that name what a loader imports: skops' schema, Keras' configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kfp_bento.runtime.scan.finding import Severity
from kfp_bento.runtime.scan.values import Name, words

_SKOPS_LOADERS = words(
    "_DictWithDeprecatedKeysNode BytearrayNode BytesNode CachedNode ConstructorFromReduceNode "
    "DTypeNode DefaultDictNode DictNode FunctionNode JsonNode ListNode LossNode MaskedArrayNode "
    "MethodNode NdArrayNode ObjectNode OperatorFuncNode PartialNode QuantileForestNode "
    "RandomGeneratorNode RandomStateNode SetNode SliceNode SparseMatrixNode TreeNode TupleNode "
    "TypeNode"
)
_ACTIVATIONS = words(
    "linear relu relu6 sigmoid tanh softmax softplus softsign elu selu gelu silu swish mish "
    "leaky_relu exponential hard_sigmoid hard_silu hard_swish log_softmax log_sigmoid celu glu "
    "mean_squared_error mse mean_absolute_error mae categorical_crossentropy "
    "binary_crossentropy sparse_categorical_crossentropy accuracy"
)
_KERAS_CLASS = re.compile(r"[A-Z]\w*|__tuple__|__numpy__|__tensor__|__keras_tensor__|__slice__")
_KERAS_MODULES = re.compile(
    r"keras(\.src)?(\.(layers|optimizers|losses|metrics|initializers|regularizers|constraints|"
    r"activations|models|dtype_policies|saving|ops|backend)(\.\w+)*)?"
)
_IN_HDF5_MODULES = re.compile(f"builtins|{_KERAS_MODULES.pattern}")
_IN_HDF5 = re.compile(rb'"(?:class_name|module)"\s*:\s*"([^"]{0,200})"')
_HIDDEN_LETTER = re.compile(rb"\\u00[2-7][0-9a-fA-F]")
_LAMBDA = "It holds Python code (a Lambda layer), which runs when the model is loaded or used."


def skops_names(schema: Any) -> Iterator[tuple[Name, bool]]:
    """Give what a schema of skops imports, and whether it is called or looked into."""
    for node in _mappings(schema):
        loader = node.get("__loader__")
        if loader is None and "__class__" not in node:
            continue
        module, kind = str(node.get("__module__")), str(node.get("__class__"))
        content = node.get("content")
        if loader == "MethodNode" and isinstance(content, Mapping):
            yield Name(module, f"{kind}.{content.get('func')}"), True
        elif isinstance(content, Mapping) and "module_path" in content:
            yield Name(str(content["module_path"]), str(content.get("function"))), False
        else:
            yield Name(module, kind), loader == "ConstructorFromReduceNode"
        if not isinstance(loader, str) or loader not in _SKOPS_LOADERS:
            yield Name("skops.io", f"loader {loader}"), True


def keras_problems(config: Any) -> Iterator[tuple[Severity, str, str]]:
    """Give what of a configuration of Keras is more than its own layers: how bad, name and why."""
    for node in _mappings(config):
        if isinstance(node.get("vocabulary"), str) and node["vocabulary"]:
            why = "A layer reads its vocabulary from a path or an address when it is loaded."
            yield Severity.DANGEROUS, f"vocabulary {node['vocabulary']}", why
        if "class_name" in node:
            yield from _keras_class(node)


def _keras_class(node: Mapping[str, Any]) -> Iterator[tuple[Severity, str, str]]:
    kind, module = str(node["class_name"]), node.get("module")
    named = f"{module or 'keras'}.{kind}"
    registered = str(node.get("registered_name") or "")
    if kind in ("Lambda", "__lambda__"):
        yield Severity.CODE, "keras.layers.Lambda", _LAMBDA
    elif kind in ("TorchModuleWrapper", "TFSMLayer"):
        yield (
            Severity.DANGEROUS,
            named,
            "It loads a pickle or another model from inside or outside.",
        )
    elif kind == "function":
        name = str(node.get("config"))
        if name not in _ACTIVATIONS:
            why = "It is a function that is no known activation, loss or metric of Keras."
            yield Severity.UNKNOWN, f"{module or 'keras'}.{name}", why
    elif module is not None and not _KERAS_MODULES.fullmatch(str(module)):
        why = "It is no module of Keras' layers, and loading imports it."
        yield Severity.UNKNOWN, named, why
    elif not _KERAS_CLASS.fullmatch(kind) or ">" in registered:
        yield Severity.UNKNOWN, registered or named, "It is no class of Keras' own."


def hdf5_problems(text: bytes) -> Iterator[tuple[Severity, str, str]]:
    """Give what a piece of an HDF5 file says of Keras layers that carry code."""
    for found in _IN_HDF5.finditer(text):
        name = found[1].decode("utf-8", "replace")
        if name in ("Lambda", "__lambda__"):
            yield Severity.CODE, "keras.layers.Lambda", _LAMBDA
        elif found[0].startswith(b'"module"') and not _IN_HDF5_MODULES.fullmatch(name):
            why = "It is no module of Keras' layers, and loading imports it."
            yield Severity.UNKNOWN, name, why
    if b"class" in text and _HIDDEN_LETTER.search(text):
        why = "A name of a layer is written with escapes that hide it."
        yield Severity.UNKNOWN, "hidden names of layers", why


def _mappings(document: Any) -> Iterator[Mapping[str, Any]]:
    """Give every mapping in a document."""
    waiting = [document]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
