"""What the Kubeflow Pipelines UI shows of a pipeline is complete, and in an order that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_bento.runtime.local.pipelines import SHIPPED, load_pipeline

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("name", SHIPPED)
def test_what_must_be_given_comes_first(name: str) -> None:
    inputs = load_pipeline(name).component_spec.inputs
    needed = [spec.optional for spec in inputs.values()]
    trains = name in ("train_to_serve", "retrain_on_drift")  # the trainer's own come after
    assert trains or needed == sorted(needed)
