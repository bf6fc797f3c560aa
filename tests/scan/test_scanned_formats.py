"""Formats beside pickle that can run something, and how much of anything is looked at."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import warnings
import zipfile
import zlib
from types import ModuleType
from typing import Any

import pytest
from planted_pickles import SYSTEM, looked, stack_global, text, whole

from kfp_bento.runtime.scan import allowlist
from kfp_bento.runtime.scan.limits import LimitReached, Limits
from kfp_bento.runtime.scan.values import Name


def found(data: bytes, name: str) -> set[tuple[str, str]]:
    return {(one.severity.value, one.name) for one in looked(data, name)}


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"units": 2, "activation": "relu", "kernel_initializer": {
        "module": "keras.initializers", "class_name": "GlorotUniform", "config": {}}},
    "registered_name": None,
}  # fmt: skip
KERAS = {
    "plain": (DENSE, set()),
    "Lambda": (
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {
            "class_name": "__lambda__", "config": {"code": "4wAA"}}}},
        {("code", "keras.layers.Lambda")},
    ),
    "any module": (
        {"module": "os", "class_name": "System", "config": {}},
        {("unknown", "os.System")},
    ),
    "a function of Keras that writes files": (
        {"module": "keras.utils", "class_name": "function", "config": "get_file"},
        {("unknown", "keras.utils.get_file")},
    ),
    "an activation": ({"module": "builtins", "class_name": "function", "config": "relu"}, set()),
    "a pickle of torch inside": (
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}},
        {("dangerous", "keras.layers.TorchModuleWrapper")},
    ),
    "a path": (
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/a/b"}},
        {("dangerous", "vocabulary /a/b")},
    ),
    "a class of somebody's": (
        {"module": None, "class_name": "Own", "config": {}, "registered_name": "mine>Own"},
        {("unknown", "mine>Own")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", KERAS)
def test_what_keras_would_run_is_told(what: str) -> None:
    layer, expected = KERAS[what]
    model = {"module": "keras", "class_name": "Sequential", "config": {"layers": [DENSE, layer]}}
    data = zipped({"metadata.json": b"{}", "config.json": json.dumps(model).encode()})
    assert found(data, "model.keras") == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"class_name": "Sequential", "module": "keras.src.models"}', set()),
        ('{"class_name": "Lambda"}', {("code", "keras.layers.Lambda")}),
        ('{"class_name" : "L\\u0061mbda"}', {("unknown", "hidden names of layers")}),
        ('{"module": "evil"}', {("unknown", "evil")}),
    ],
)
def test_layers_in_hdf5_files_are_looked_at(config: str, expected: set[tuple[str, str]]) -> None:
    data = b"\x89HDF\r\n\x1a\n" + bytes(1 << 20) + config.encode() + bytes(200)
    assert found(data, "model.h5") == expected


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    size = b""
    length = len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def onnx(location: str, *, value_first: bool = False) -> bytes:
    pair = [field(1, b"location"), field(2, location.encode())]
    entry = b"".join(reversed(pair) if value_first else pair)
    tensor = (
        field(9, bytes(300)) + field(13, field(1, b"offset") + field(2, b"0")) + field(13, entry)
    )
    return b"\x08\x08" + field(2, b"maker") + field(7, field(1, b"") + field(5, tensor))


def test_tensors_of_onnx_that_lie_elsewhere_are_told() -> None:
    for location in ("../../../etc/passwd", "/etc/passwd", "a/../../b"):
        for order in (False, True):
            data = onnx(location, value_first=order)
            for name in ("model.onnx", "model.bin"):
                assert found(data, name) == {("dangerous", location)}
    assert found(onnx("weights.bin"), "model.onnx") == set()
    assert {one for one, _ in found(onnx("x")[:-3], "model.onnx")} == {"unknown"}


def saved_model(operation: str, *, in_function: bool) -> bytes:
    node = field(1, b"name") + field(2, operation.encode())
    inner = field(2, field(1, field(3, node))) if in_function else field(1, node)
    return b"\x08\x01" + field(2, field(2, inner))


def test_graphs_of_tensorflow_that_touch_files_are_told() -> None:
    for where in (False, True):
        for operation in ("ReadFile", "WriteFile", "EagerPyFunc"):
            data = saved_model(operation, in_function=where)
            assert found(data, "a/saved_model.pb") == {("dangerous", f"tensorflow {operation}")}
        assert found(saved_model("MatMul", in_function=where), "saved_model.pb") == set()


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (("builtins", "list", "ListNode"), set()),
        (("numpy", "log1p", "FunctionNode"), set()),
        (("sklearn.svm._classes", "SVC", "ObjectNode"), set()),
        (("os", "system", "FunctionNode"), {("dangerous", "os.system")}),
        (
            ("operator", "methodcaller", "OperatorFuncNode"),
            {("dangerous", "operator.methodcaller")},
        ),
        (("builtins", "list", "NewNode"), {("unknown", "skops.io.loader NewNode")}),
    ],
)
def test_what_skops_would_import_is_judged_as_pickles_are(
    node: tuple[str, str, str], expected: set[tuple[str, str]]
) -> None:
    named = dict(zip(("__module__", "__class__", "__loader__"), node, strict=True))
    schema = {"protocol": 2, **named, "content": []}
    assert found(zipped({"schema.json": json.dumps(schema).encode()}), "m.skops") == expected


def test_a_method_that_skops_would_look_up_is_told() -> None:
    method = {
        "__module__": "sklearn.svm._classes",
        "__class__": "SVC",
        "__loader__": "MethodNode",
        "content": {"func": "fit", "obj": {}},
    }
    data = zipped({"schema.json": json.dumps(method).encode()})
    assert ("unknown", "sklearn.svm._classes.SVC.fit") in found(data, "m.skops")


def nested(data: bytes, times: int) -> bytes:
    for _ in range(times):
        data = zlib.compress(data)
    return data


def test_what_is_packed_too_deeply_is_not_passed_over_in_silence() -> None:
    limits = Limits(depth=4)
    assert {one.name for one in looked(nested(SYSTEM, 4), limits=limits)} == {"os.system"}
    with pytest.raises(LimitReached, match="4 times"):
        looked(nested(SYSTEM, 5), limits=limits)


LIMITED = {
    "a bomb": (zlib.compress(bytes(1 << 22)), Limits(unpacked_bytes=1 << 20)),
    "a bomb in a zip": (zipped({"a": bytes(1 << 22)}), Limits(unpacked_bytes=1 << 20)),
    "many files": (zipped({str(n): b"" for n in range(50)}), Limits(entries=40)),
    "a full memo": (whole(b"N" + b"\x94" * 40_000), Limits(stack=20_000)),
    "a high stack": (whole(b"N" * 40_000), Limits(stack=20_000)),
    "many marks": (whole(b"(" * 40_000), Limits(stack=20_000)),
    "no time": (whole(b"N0" * 40_000), Limits(seconds=0)),
}


@pytest.mark.parametrize("what", LIMITED)
def test_there_is_an_end_to_what_is_looked_at(what: str) -> None:
    data, limits = LIMITED[what]
    with pytest.raises(LimitReached):
        looked(data, limits=limits)


def test_an_end_that_was_reached_is_a_finding(tmp_path: Any) -> None:
    from planted_pickles import scanned

    report = scanned(tmp_path, zlib.compress(bytes(1 << 22)), limits=Limits(unpacked_bytes=99))
    assert not report.passed
    assert "did not come to its end" in report.findings[0].why


def modules_of(prefix: str) -> list[ModuleType]:
    """A module and all below it that can be imported here."""
    top = importlib.import_module(prefix)
    below = [
        one.name
        for one in pkgutil.walk_packages(getattr(top, "__path__", ()), f"{prefix}.")
        if ".tests" not in one.name and "conftest" not in one.name
    ]
    found = [top]
    for name in below:
        try:
            found.append(importlib.import_module(name))
        except ImportError:  # an optional dependency that is not installed here
            continue
    return found


HARMLESS = {
    *("scipy.interpolate._bsplines.BSpline", "builtins.AxisInt", "builtins.PositionalIndexerTuple"),
}
INERT = {
    # Of Python's own library, imported by modules of the lists: calling it does nothing by itself.
    *("abc", "collections", "collections.abc", "decimal", "numbers", "re", "typing"),
}


@pytest.mark.parametrize(
    "prefix",
    sorted({
        prefix for prefixes in allowlist._CLASSES.values() for prefix in prefixes
        if prefix.partition(".")[0] in ("sklearn", "pandas", "mlflow")
    }),
)  # fmt: skip
def test_classes_that_the_lists_take_are_of_that_library(prefix: str) -> None:
    """Modules import much for their own use; through them a pickle must not reach beyond."""
    top = prefix.partition(".")[0]
    beyond = {}
    for module in modules_of(prefix):
        for name, value in vars(module).items():
            home = str(getattr(value, "__module__", ""))
            if (
                callable(value)
                and allowlist.is_listed(Name(module.__name__, name), tuple(allowlist._CLASSES))
                and home.partition(".")[0] not in (top, "numpy")
                and home not in INERT
                and not (isinstance(value, type) and issubclass(value, BaseException))
                and f"{home}.{name}" not in HARMLESS
            ):
                beyond[f"{module.__name__}.{name}"] = home
    assert beyond == {}


def test_what_the_lists_name_is_what_it_says() -> None:
    """Of the libraries that are installed here, each name exists, or did in an older one."""
    wrong = []
    for text_ in sorted(allowlist._EXACT["sklearn"] | allowlist._EXACT[""]):
        module, _, name = text_.rpartition(".")
        try:
            with warnings.catch_warnings():  # what an older library wrote may be deprecated by now
                warnings.simplefilter("ignore", DeprecationWarning)
                value = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        if isinstance(value, ModuleType):
            wrong.append(text_)
    assert wrong == []


def test_a_name_with_dots_is_on_no_list_of_classes() -> None:
    data = whole(stack_global("sklearn.svm._classes", "SVC.fit"))
    assert found(data, "m.pkl") == {("unknown", "sklearn.svm._classes.SVC.fit")}
    assert found(whole(text("sklearn.svm") + text("SVC") + b"\x93"), "m.pkl") == set()
