"""Whatever stands in a signature, it stays data: nothing of it becomes code of the service."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from generated_source import model, shape, source_for, strangers

from kfp_bento.runtime.errors import KfpBentoError, ModelError
from kfp_bento.runtime.models import ModelSignature, Tensor, load_model

MARKER = "MARKER"

HOSTILE: list[Any] = [
    "4) if not __import__('os').system('touch MARKER') else tensor('float32'",
    "__import__('os').system('touch MARKER')",
    '"); __import__("os").system("touch MARKER"); ("',
    "'); __import__('os').system('touch MARKER'); ('",
    '"""\n__import__("os").system("touch MARKER")\n"""',
    "'''\n__import__('os').system('touch MARKER')\n'''",
    '\\"""\n__import__("os").system("touch MARKER")\n#',
    "\\",
    '\\"',
    "x\\\n__import__('os')",
    "x\n    y = __import__('os').system('touch MARKER')",
    "x\r__import__('os')",
    "x\x0c__import__('os')",
    "x\u2028__import__('os')",
    "x\x85__import__('os')",
    "x\x00__import__('os')",
    "\ud800\udfff",
    "{__import__('os')}",
    "%s{0!r}",
    "a = __import__('os')",
    "a: __import__('os').system('touch MARKER')",
    "a] = 1; __import__('os'",
    "# -*- coding: utf-7 -*-",
    "+AGEAYgBj-",
    "\N{FULLWIDTH LOW LINE}\N{FULLWIDTH LOW LINE}import\N{FULLWIDTH LOW LINE}__",
    "__builtins__",
    "__class__",
    "print",
    "tensor",
    "Row",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eevil",
    "-1, *__import__('os').environ",
    "True",
    "1_000",
    "x" * 300,
    ["4", "__import__('os')"],
    ["__import__('os')"],
    {"__import__('os')": "__import__('os')"},
    True,
    1.5,
    -2,
    1e308,
    10**30,
    float("nan"),
    None,
]

BASE: dict[str, Any] = {
    "columns": {
        "inputs": [
            {"type": "double", "name": "a b", "required": True},
            {"type": "string", "name": "plain", "required": False},
            {"type": "array", "items": {"type": "long"}, "name": "many of", "required": True},
            {"type": "map", "values": {"type": "any"}, "name": "by name", "required": True},
            {
                "type": "object",
                "name": "one object",
                "properties": {
                    "in side": {"type": "string", "required": True},
                    "deep er": {"type": "array", "items": {"type": "double"}, "required": False},
                },
                "required": True,
            },
        ],
        "outputs": [
            {"type": "double", "name": "p q", "required": True},
            {"type": "string", "name": "r", "required": True},
        ],
        "params": [
            {"name": "k l", "type": "double", "default": 0.5, "shape": None},
            {"name": "m n", "type": "string", "default": ["s"], "shape": [-1]},
            {"name": "t u", "type": "datetime", "default": "2024-05-06T07:08:09", "shape": None},
            {"name": "b c", "type": "boolean", "default": True, "shape": None},
            {"name": "i j", "type": "integer", "default": 3, "shape": None},
            {
                "name": "o o",
                "type": "object",
                "properties": {"x y": {"type": "string", "required": True}},
                "default": {"x y": "z"},
                "shape": None,
            },
        ],
    },
    "tensor": {
        "inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}],
        "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}],
    },
    "tensors": {
        "inputs": [
            {"type": "tensor", "name": "a b", "tensor-spec": {"dtype": "int64", "shape": [-1]}},
            {"type": "tensor", "name": "c d", "tensor-spec": {"dtype": "str", "shape": [-1, 2]}},
        ],
        "outputs": [
            {"type": "tensor", "name": "e f", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
        ],
    },
    "unnamed": {
        "inputs": [{"type": "double"}, {"type": "array", "items": {"type": "string"}}],
        "outputs": [{"type": "long"}],
    },
}
HARMLESS: list[Any] = [
    *("a word", "word", ["a", "b"], ["a"], {"a": "b"}),
    *(7, -7, 2.5, True, None, float("nan")),
]

NO_MORE = object()


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a signature: each value, and each key of `properties` and defaults."""
    found: list[tuple[Any, ...]] = []
    if isinstance(data, dict | list):
        for key, item in data.items() if isinstance(data, dict) else enumerate(data):
            found += [(*path, key), *places(item, (*path, key))]
            if path and path[-1] in ("properties", "default") and isinstance(data, dict):
                found.append((*path, ("key", key)))
    return found


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(data)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    last = path[-1]
    if isinstance(last, tuple):
        if isinstance(value, str):
            inner[value] = inner.pop(last[1])
    else:
        inner[last] = value
    return changed


PLACES = [(kind, place) for kind, data in BASE.items() for place in places(data)]


@pytest.mark.parametrize(("kind", "data"), BASE.items(), ids=list(BASE))
def test_hostile_text_in_any_place_is_refused_or_stays_text(
    kind: str, data: dict[str, Any], tmp_path: Path
) -> None:
    every = 9  # all of them are tried by the slow test
    for number, place in enumerate(places(data)):
        check_place(data, place, HOSTILE[number % every :: every], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "place"), PLACES, ids=[f"{k}-{'.'.join(map(str, p))}" for k, p in PLACES]
)
def test_every_hostile_text_in_any_place_is_refused_or_stays_text(
    kind: str, place: tuple[Any, ...], tmp_path: Path
) -> None:
    check_place(BASE[kind], place, HOSTILE, tmp_path)


def check_place(data: Any, place: tuple[Any, ...], values: list[Any], tmp_path: Path) -> None:
    def source(value: Any) -> str | None:
        try:
            return source_for(model(tmp_path, put(data, place, value)))
        except KfpBentoError as error:
            assert error.hint
            return None

    sources = [(value, text) for value in values if (text := source(value)) is not None]
    forms = {shape(source_for(model(tmp_path, data)))}
    harmless = iter(HARMLESS)
    for value, text in sources:
        assert strangers(text) == set()
        form = shape(text)
        while form not in forms:  # most have that of the signature as it was
            other = next(harmless, NO_MORE)
            assert other is not NO_MORE, value
            if (usual := source(other)) is not None:
                forms.add(shape(usual))
        compile(text, "service.py", "exec")


@pytest.mark.parametrize("field", ["name", "version", "uri", "content_digest"])
def test_hostile_names_of_a_model_stay_text(field: str, tmp_path: Path) -> None:
    other = model(tmp_path, BASE["tensor"], name="other", content_digest="sha256:" + "ef" * 32)
    form = shape(source_for(model(tmp_path, BASE["columns"]), other))
    for value in HOSTILE[:36]:
        changed = {"name": "", field: value} if field == "uri" else {field: value}
        if field == "version":  # two models of one name are told apart by their versions
            changed["name"] = "other"
        text = source_for(model(tmp_path, BASE["columns"], **changed), other)
        assert strangers(text) == set()
        assert shape(text) == form
        assert "\x1b" not in text and "\u202e" not in text


def test_not_even_a_signature_made_by_hand_puts_code_where_a_number_should_be(
    tmp_path: Path,
) -> None:
    shape: Any = (-1, "4) if not __import__('os').system('true') else tensor('float32'")
    made = ModelSignature(inputs=(Tensor("float32", shape),))

    with pytest.raises(ValueError, match="format code 'd'"):
        source_for(model(tmp_path, made))


def mlmodel(**sides: Any) -> str:
    lines = [f"  {side}: {json.dumps(json.dumps(specs))}\n" for side, specs in sides.items()]
    return "flavors: {python_function: {loader_module: x}}\nsignature:\n" + "".join(lines)


def imported(files: dict[str, bytes], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import the generated service, as `bentoml build` does."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    monkeypatch.syspath_prepend(str(directory))
    try:
        __import__("kfp_bento_service")
    finally:
        for name in ("kfp_bento_service", "pyfunc_json"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("record", [False, True])
def test_a_shape_that_is_code_does_not_run_when_the_service_is_built(
    record: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp_bento.runtime.bentos.build import bento_models
    from kfp_bento.runtime.bentos.service_source import generated_files

    marker = tmp_path / "marker"
    code = f"4) if not __import__('os').system('touch {marker}') else tensor('float32'"
    hostile = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, code]}}]
    directory, built = tmp_path / "model", tmp_path / "built"
    directory.mkdir()
    built.mkdir()
    harmless = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]
    (directory / "MLmodel").write_text(mlmodel(inputs=harmless if record else hostile))
    if record:
        facts = load_model(directory).to_dict()
        facts["signature"]["inputs"] = hostile
        (directory / ".kfp-bento.json").write_text(json.dumps(facts))
    try:
        found = load_model(directory)
        imported(generated_files("a", [found], bento_models([found])), built, monkeypatch)
    except ModelError as error:
        assert "shape" in error.message
    assert not marker.exists()
    assert record == any(built.iterdir())
