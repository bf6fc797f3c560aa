"""Pods of a bento that wants to listen elsewhere listen where Service and probes expect it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sample_bentos import IMAGE, write_bento
from test_bento_environment import lists_of_variables

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
from kfp_bento.runtime.deployments.release.good_release import believed, encode_good
from kfp_bento.runtime.deployments.targets.targets import TARGETS
from kfp_bento.runtime.errors import InvalidInput

MOVED = [
    "services:\n- {name: Wine, config: {http: {port: 5000}}}\n",
    "envs:\n- {name: PORT, value: '8080', stage: all}\n",
]
HOST, PORTS = "BENTOML_HOST", ("PORT", "BENTOML_PORT")
PREFIX = "{endpoints: {livez: /v1/livez, readyz: /v1/readyz}}"


def facts(folder: Path, more: str) -> BentoFacts:
    write_bento(folder)
    with (folder / "bento.yaml").open("a") as file:
        file.write(more)
    return BentoFacts.of(load_bento(folder))


def variables(manifests: Any) -> dict[str, str]:
    (found,) = [one for one in lists_of_variables([*manifests]) if one]
    return {one["name"]: one["value"] for one in found}


def options_of(target: str, mode: str = "") -> dict[str, Any]:
    if target == "bento-request":
        return {"archive_url": "https://store.example.com/wine.tar.gz?X-Amz-Signature=0"}
    return {"deployment_mode": mode} if mode else {}


@pytest.mark.parametrize("moved", MOVED, ids=["decorator", "variable"])
@pytest.mark.parametrize(
    ("target", "mode", "names"),
    [
        ("workload", "", {*PORTS, HOST}),
        ("inference-service", "Standard", {*PORTS, HOST}),
        # Knative and Yatai set PORT themselves, and take no other.
        ("inference-service", "Knative", {"BENTOML_PORT", HOST}),
        ("bento-deployment", "", {"BENTOML_PORT", HOST}),
    ],
)
def test_pods_listen_where_they_are_asked(
    tmp_path: Path, moved: str, target: str, mode: str, names: set[str]
) -> None:
    bento = facts(tmp_path / "bento", moved)
    made = TARGETS[target].render(IMAGE, bento, options_of(target, mode))
    found = variables(made.manifests)
    assert {name: found[name] for name in names} == {
        name: "0.0.0.0" if name == HOST else "3000" for name in names
    }
    assert not {*PORTS, HOST} - names & found.keys()
    # What was recorded comes back as it was.
    assert BentoFacts.from_dict(bento.to_dict()) == bento
    good = believed(encode_good(made), made.primary)
    assert good.release is not None and good.release.manifests == made.manifests


def test_others_are_told_nothing(tmp_path: Path) -> None:
    plain = facts(tmp_path / "plain", "services:\n- {name: Wine, config: {http: {port: 3000}}}\n")
    assert not {"moved", "hidden"} & plain.to_dict().keys()
    made = TARGETS["workload"].render(IMAGE, plain)
    assert not [*filter(None, lists_of_variables([*made.manifests]))]


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_that_no_probe_would_find_is_refused(target: str, tmp_path: Path) -> None:
    bento = facts(tmp_path / "bento", f"services:\n- {{name: Wine, config: {PREFIX}}}\n")
    image = IMAGE if target != "bento-request" else "registry.example.com/team/wine:v1"
    with pytest.raises(InvalidInput, match=r"no probe would find the service.*below /v1"):
        TARGETS[target].render(image, BentoFacts.from_dict(bento.to_dict()), options_of(target))
