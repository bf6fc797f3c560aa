"""What --options, --set, --env and options of their own make of a target's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.cli.option_values import mapping_of, option_values
from kfp_bento.runtime.deployments.targets.kserve.options import InferenceServiceOptions
from kfp_bento.runtime.deployments.targets.workload.options import WorkloadOptions
from kfp_bento.runtime.errors import InvalidInput


def values(*settings: str, **more: Any) -> dict[str, Any]:
    return option_values(WorkloadOptions, settings=settings, **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "options.yaml"
    path.write_text(
        "name: red\n"
        "resources: {limits: {cpu: 1, memory: 1Gi}}\n"
        "envs: {A: '1', B: '2'}\n"
        "tolerations:\n- key: gpu\n"
    )
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("-0.5", -0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", ""),
        ("1Gi", "1Gi"),
        ("a=b", "a=b"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("2026-01-01", "2026-01-01"),
        ("NaN", "NaN"),
        ("'2'", "2"),
        ('"2"', "2"),
        ("[a, 1, {b: true}]", ["a", 1, {"b": True}]),
        ("{a: {b: [c]}}", {"a": {"b": ["c"]}}),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: Any) -> None:
    assert values(f"labels.x={text}") == {"labels": {"x": value}}


def test_dots_lead_inside_unless_they_belong_to_the_key() -> None:
    assert values("resources.limits.cpu=2", "resources.limits.memory=1Gi") == {
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}}
    }
    assert values(r"annotations.example\.com/note=x") == {"annotations": {"example.com/note": "x"}}


def test_where_an_option_wants_text_a_number_is_text() -> None:
    wanted = option_values(InferenceServiceOptions, settings=["model_version=2", "timeout=2"])
    assert wanted == {"model_version": "2", "timeout": 2}


def test_what_is_set_is_put_into_what_the_file_says(file: Path) -> None:
    found = values("resources.limits.cpu=4", "name=blue", file=file)
    assert found["resources"] == {"limits": {"cpu": 4, "memory": "1Gi"}}
    assert (found["name"], found["tolerations"]) == ("blue", [{"key": "gpu"}])


def test_an_option_of_its_own_replaces_what_the_file_says(file: Path) -> None:
    named = {"name": "green", "namespace": "", "resources": {"limits": {"cpu": 9}}}
    found = values(file=file, named=named)
    assert found["name"] == "green"
    assert found["resources"] == {"limits": {"cpu": 9}}
    assert "namespace" not in found


def test_variables_come_beside_those_of_the_file(file: Path) -> None:
    assert values(file=file, variables=["B=x=y", "C="])["envs"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "x=y"},
        {"name": "C", "value": ""},
    ]
    file.write_text("envs: [{name: A, valueFrom: {}}, {name: B, value: '2'}]")
    assert values(file=file, variables=["A=1"])["envs"] == [
        {"name": "B", "value": "2"},
        {"name": "A", "value": "1"},
    ]


def test_json_is_a_file_of_options_too(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text('{"labels": {"a": "b"}}')
    assert values(file=path) == {"labels": {"a": "b"}}


@pytest.mark.parametrize(
    ("settings", "more", "told"),
    [
        (["name=x"], {"named": {"name": "y"}}, "name: it is given by --set and by --name"),
        (["envs.A=1"], {"variables": ["B=2"]}, "envs: it is given by --set and by --env"),
        (["name=x", "name=y"], {}, "--set name=y: the key is set twice"),
        (["labels.a=1", "labels={}"], {}, "--set labels={}: the key is set twice"),
        (["labels={}", "labels.a=1"], {}, "--set labels.a=1: the key is set twice"),
        (["labels"], {}, "--set labels is not KEY=VALUE"),
        (["=1"], {}, "--set =1 is not KEY=VALUE"),
        (["a..b=1"], {}, "--set a..b=1 is not KEY=VALUE"),
        (["labels={a"], {}, "--set labels={a is neither JSON nor YAML"),
        (["labels={1: a}"], {}, "--set labels={1: a}: the key 1 is no text"),
        (["labels={a: 2026-01-01}"], {}, "labels={a: 2026-01-01}: a: 2026-01-01 is a date"),
        ([], {"variables": ["A"]}, "--env A is not NAME=VALUE"),
        ([], {"variables": ["=1"]}, "--env =1 is not NAME=VALUE"),
    ],
)
def test_a_mistake_names_what_was_said(
    settings: list[str], more: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        values(*settings, **more)
    assert told in refused.value.message


def test_a_key_is_not_put_into_a_list_of_the_file(file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"--set tolerations.key: tolerations is no mapping"):
        values("tolerations.key=x", file=file)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [", "is no YAML or JSON"),
        ("- a", "is no mapping"),
        ("", "is no mapping"),
        ("{1: a}", "the key 1 is no text"),
        ("a: !!python/object:os.system {}", "is no YAML or JSON"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(file: Path, content: str, told: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidInput) as refused:
        values(file=file)
    assert told in refused.value.message
    assert str(file) in refused.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        values(file=tmp_path / "none")


def test_a_mapping_is_json_or_yaml_or_not_given() -> None:
    assert mapping_of("--resources", "") is None
    assert mapping_of("--resources", '{"limits": {"cpu": "1"}}') == {"limits": {"cpu": "1"}}
    assert mapping_of("--resources", "limits: {cpu: 1}") == {"limits": {"cpu": 1}}
    with pytest.raises(InvalidInput, match="--resources is no mapping"):
        mapping_of("--resources", "[1]")
