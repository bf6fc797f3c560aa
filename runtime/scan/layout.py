"""What a model's layout says: code folders, native files, and what MLmodel makes MLflow import."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from kfp_bento.runtime.scan.finding import Finding, Severity
from kfp_bento.runtime.scan.packed import escapes
from kfp_bento.runtime.scan.values import words

_LOADERS = frozenset(
    f"mlflow.{name}"
    for name in words(
        "catboost diviner dspy fastai gluon h2o johnsnowlabs keras keras.load langchain lightgbm "
        "llama_index mleap mxnet onnx openai paddle pmdarima promptflow prompt.promptlab_model "
        "prophet pyfunc.model pyfunc.loaders.chat_agent pyfunc.loaders.chat_model "
        "pyfunc.loaders.code_model pyfunc.loaders.responses_agent pyspark.ml pytorch "
        "sentence_transformers shap sklearn spacy spark statsmodels tensorflow transformers "
        "xgboost"
    )
)
_IMPORTED = {
    # Keys of MLmodel whose values MLflow imports, and what they may be.
    "keras_module": re.compile(r"keras|tensorflow\.keras|tf_keras|tensorflow_core\.keras.*"),
    "model_class": re.compile(
        r"(xgboost|lightgbm|catboost|sklearn|tensorflow|keras|torch|statsmodels|llama_index|"
        r"sentence_transformers|transformers)(\.\w+)*\.[A-Z]\w*"
    ),
    "pickle_module": re.compile(r"mlflow\.pytorch\.pickle_module|pickle|cloudpickle|torch"),
}
_IMPORTED_FILES = {
    # Files whose content MLflow imports.
    "keras_module.txt": _IMPORTED["keras_module"],
    "pickle_module_info.txt": _IMPORTED["pickle_module"],
}
LONGEST_MODULE_FILE = 4096
_PATHS = words(
    "code data model_binary model_data model_json model_path path pickled_model "
    "python_model saved_model_dir transformer_model"
)
_NATIVE_NAMES = re.compile(r".*\.(so(\.\d+)*|dll|dylib|exe|pyd|node|wasm|bat|cmd|ps1|sh)", re.I)
_NATIVE_MAGIC = (
    *(b"\x7fELF", b"MZ\x90", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe"),
    *(b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm", b"#!/", b"#! /", b"dex\n0"),
)
_LOOK = "Read it before you load the model; allow it by this name, or log the model without it."


def code_findings(paths: Iterator[str] | list[str]) -> Iterator[Finding]:
    """Give a finding for each folder with Python code, for notebooks and for bytecode."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in (".py", ".pyi"):
            folders.setdefault(_folder(path), []).append(path)
        elif suffix in (".pyc", ".pyo"):
            why = "It is compiled Python, which may be imported and which nobody can read."
            yield Finding(Severity.CODE, path, path, why, "Log the model without it.")
        elif suffix == ".ipynb":
            yield Finding(Severity.CODE, path, path, "It is a notebook, which is code.", _LOOK)
        elif suffix == ".pth" and "/" in path and path.split("/")[0] == "code":
            why = "Python runs lines of such files where they lie on its path."
            yield Finding(Severity.CODE, path, path, why, _LOOK)
    for folder, files in sorted(folders.items()):
        what = f"{len(files)} files of Python code" if len(files) > 1 else "Python code"
        why = f"The model brings {what}, which MLflow or the model's own library imports."
        yield Finding(Severity.CODE, files[0], folder, why, _LOOK)


def _folder(path: str) -> str:
    top, found, _ = path.partition("/")
    return f"{top}/" if found else path


def own_modules(paths: list[str], flavors: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Give the top modules that lie in the model's own code folders."""
    folder = str(flavors.get("python_function", {}).get("code") or "code").strip("/")
    inside = [
        PurePosixPath(path).relative_to(folder).parts[0]
        for path in paths
        if path.startswith(f"{folder}/") and path.endswith((".py", ".pyc", ".so"))
    ]
    return frozenset(name.partition(".")[0] for name in inside) - {"", "os", "sys", "builtins"}


def native_finding(path: str, head: bytes) -> Finding | None:
    """Give a finding for a program or library for the machine itself."""
    if not (_NATIVE_NAMES.fullmatch(path) or head.startswith(_NATIVE_MAGIC)):
        return None
    why = "It is a program, a script or a native library; nobody can tell what it does."
    return Finding(Severity.CODE, path, path, why, "Log the model without it.")


def option_findings(flavors: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Give findings for what the MLmodel file makes MLflow import, or look for elsewhere."""
    for flavor, options in sorted(flavors.items()):
        for key, value in sorted(options.items(), key=str):
            where = f"{flavor}.{key}"
            if key == "loader_module" and value is not None:
                yield from _loader(where, str(value))
            elif (known := _IMPORTED.get(key)) and not known.fullmatch(str(value or "keras")):
                yield _imported("MLmodel", str(value), where)
            elif key in _PATHS and isinstance(value, str) and value and escapes(value):
                why = f"{where} points outside of the model's folder."
                advice = "Do not load it. Ask who logged it, and log it anew."
                yield Finding(Severity.DANGEROUS, "MLmodel", value, why, advice)
            elif key == "model_code_path" and value:
                # MLflow writes where the file was, and looks for its name in the model's folder.
                file = re.split(r"[/\\]", str(value))[-1]
                why = "It is a model from code: MLflow runs this file when it loads the model."
                yield Finding(Severity.CODE, "MLmodel", file, why, _LOOK)
            elif key == "trust_remote_code" and value:
                why = f"{where} lets the library run code that comes with the weights."
                yield Finding(Severity.CODE, "MLmodel", where, why, _LOOK)


def _loader(where: str, module: str) -> Iterator[Finding]:
    if module not in _LOADERS:
        why = f"{where} makes MLflow import it, and it is none of MLflow's own loaders."
        yield Finding(Severity.CODE, "MLmodel", module, why, _LOOK)


def _imported(file: str, name: str, where: str) -> Finding:
    why = f"{where} makes MLflow import it, and it is no known module or class for that."
    advice = "Look what it is; allow it by this name, or log the model anew."
    return Finding(Severity.UNKNOWN, file, name, why, advice)


def module_file_finding(path: str, content: bytes) -> Finding | None:
    """Give a finding for a file that says what is imported, where it says something unknown."""
    known = _IMPORTED_FILES.get(PurePosixPath(path).name)
    text = content.decode("utf-8", "replace").strip()
    return None if known is None or known.fullmatch(text) else _imported(path, text, "It")
