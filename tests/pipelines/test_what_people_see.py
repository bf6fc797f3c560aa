"""What the Kubeflow Pipelines UI shows of a pipeline is complete, and in an order that helps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_bento.pipelines.signatures import in_order
from kfp_bento.runtime.local.pipelines import SHIPPED, load_pipeline

ROOT = Path(__file__).parents[2]
OWN_ROADS = ("batch_score",)  # its rows have stops of their own


@cache
def compiled(name: str) -> dict[str, Any]:
    path = ROOT / f"pipelines/compiled/{name}.yaml"
    return dict(next(yaml.safe_load_all(path.read_text())))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_pipeline_has_a_name_in_words_and_says_what_it_does(name: str) -> None:
    facts = compiled(name)["pipelineInfo"]
    assert facts["displayName"][0].isupper() and "-" not in facts["displayName"]
    assert facts["description"].endswith(".")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_parameter_says_what_it_is(name: str) -> None:
    found = compiled(name)["root"]["inputDefinitions"]["parameters"]
    assert [key for key, one in found.items() if len(one.get("description", "")) < 10] == []


STOPS = {
    "resolve-models": ("bento",),
    # First words of parameters that go into a step.
    "detect-drift": {"drift"},
    "build-bento": {"bento"},
    "import-bento": {"bento"},
    "importer": {"golden"},
    "export-bento": {"archive"},
    "scan-model": {"scan"},
    "build-image": {"image"},
    "package-model": {"bento", "image"},
    "deploy-bento": {"deploy"},
    "move-release": {"deploy"},
    "roll-back": {"deploy", "promote"},
    "shift-requests": {"deploy", "canary"},
    "check-release": {"deploy", "check"},
    "check-and-promote": {"deploy", "check", "promote"},
    "confirm-release": {"deploy"},
    "await-approval": {"approval", "promote"},
    "promote-model": {"deploy", "promote"},
    "settle-run": {"deploy"},
}
OTHER_NAMES = {
    # Yatai's builder pushes where build_image would; the resource calls that its image.
    ("image_destination", "deploy-bento", "image"),
}


def routes(specification: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Give each parameter of a pipeline with the steps and the inputs that it goes into."""

    def below(dag: dict[str, Any], known: dict[str, str]) -> Iterator[tuple[str, str, str]]:
        for name, task in dag["tasks"].items():
            inner = specification["components"][task["componentRef"]["name"]]
            given = task.get("inputs", {}).get("parameters", {})
            sources = {key: one.get("componentInputParameter") for key, one in given.items()}
            inside = {key: known[one] for key, one in sources.items() if one in known}
            if "dag" in inner:
                yield from below(inner["dag"], inside)
            else:
                yield from (
                    (outer, name.removesuffix("-2"), key)
                    for key, outer in inside.items()
                    if not key.startswith("pipelinechannel--")  # the image, which KFP takes along
                )

    parameters = specification["root"]["inputDefinitions"]["parameters"]
    return set(below(specification["root"]["dag"], {key: key for key in parameters}))


def well_named(parameter: str, step: str, given: str) -> bool:
    """Tell whether a parameter is called as the input, with the step's group before it or not."""
    names = {given, *(f"{group}_{given}" for group in STOPS.get(step, ()))}
    return parameter in names or (parameter, step, given) in OTHER_NAMES


@pytest.mark.parametrize("name", SHIPPED)
def test_one_thing_has_one_name(name: str) -> None:
    found = routes(compiled(name))
    assert len(found) > 5
    assert [one for one in found if not well_named(*one)] == []


def test_another_name_for_the_same_thing_is_seen() -> None:
    assert well_named("deploy_wait_seconds", "check-release", "wait_seconds")
    assert not well_named("check_timeout_seconds", "check-release", "ready_seconds")
    assert not well_named("mlflow_tracking_uri", "pull-model", "tracking_uri")


def test_no_two_things_are_called_mode() -> None:
    modes = {
        (step, key)
        for name in SHIPPED
        for _, step, key in routes(compiled(name))
        if "mode" in key.split("_")
    }
    assert modes == {(step, "mode") for step in ("deploy-bento", "settle-run", "shift-requests")}


@pytest.mark.parametrize("name", SHIPPED)
def test_parameters_stand_in_the_order_of_the_road(name: str) -> None:
    inputs = load_pipeline(name).component_spec.inputs
    needed = [spec.optional for spec in inputs.values()]
    assert needed == sorted(needed), "what must be given comes first"
    assert name in OWN_ROADS or list(inputs) == list(in_order(inputs))
    secrets = [key.endswith("_secret") for key in inputs]
    assert secrets == sorted(secrets), "the names of Secrets come last"


@pytest.mark.parametrize("name", SHIPPED)
def test_parameters_of_one_kind_stand_in_one_order_in_all_pipelines(name: str) -> None:
    inputs = load_pipeline(name).component_spec.inputs
    optional = [key for key, spec in inputs.items() if spec.optional]
    served = load_pipeline("serve_model").component_spec.inputs
    shared = [key for key, spec in served.items() if spec.optional and key in optional]
    assert [key for key in optional if key in shared] == shared
