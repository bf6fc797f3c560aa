"""Variables that a bento leaves to its release are in the manifests of every target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sample_bentos import IMAGE, generated_bento, make_bento, write_bento

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
from kfp_bento.runtime.deployments.release.good_release import believed, encode_good
from kfp_bento.runtime.deployments.targets.targets import TARGETS
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVS = """\
envs:
- {name: AREA, value: eu, stage: runtime}
- {name: LATER, value: '', stage: runtime}
- {name: BAKED, value: x, stage: all}
- {name: BUILT, value: x, stage: build}
"""


def facts(folder: Path, envs: str = ENVS) -> BentoFacts:
    write_bento(folder)
    with (folder / "bento.yaml").open("a") as file:
        file.write(envs)
    return BentoFacts.of(load_bento(folder))


def lists_of_variables(value: Any) -> Iterator[list[dict[str, Any]]]:
    """All lists of variables in a manifest."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if key in {"env", "envs"}:
                yield inside
            else:
                yield from lists_of_variables(inside)
    elif isinstance(value, list):
        for item in value:
            yield from lists_of_variables(item)


def test_facts_take_no_second_reading_of_the_bento(tmp_path: Path) -> None:
    write_bento(tmp_path / "bento")
    with (tmp_path / "bento/bento.yaml").open("a") as file:
        file.write(ENVS)
    bento = load_bento(tmp_path / "bento")
    (tmp_path / "bento/bento.yaml").unlink()
    assert BentoFacts.of(bento).environment == {"AREA": "eu"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_release_sets_what_the_bento_leaves_to_it(target: str, tmp_path: Path) -> None:
    bento = facts(tmp_path / "bento")
    image = IMAGE if target != "bento-request" else "registry.example.com/team/wine:v1"
    archive = {"archive_url": "https://store.example.com/wine.tar.gz?X-Amz-Signature=0"}
    options = archive if target == "bento-request" else {}
    plain = TARGETS[target].render(image, bento, options)
    assert [{"name": "AREA", "value": "eu"}] in list(lists_of_variables([*plain.manifests]))
    given = {**options, "envs": {"AREA": "us", "OWN": "1"}}
    chosen = TARGETS[target].render(image, bento, given)
    wanted = [{"name": "AREA", "value": "us"}, {"name": "OWN", "value": "1"}]
    assert wanted in list(lists_of_variables([*chosen.manifests]))
    # A release that is rendered from what was recorded is the same one.
    recorded = BentoFacts.from_dict(bento.to_dict())
    assert TARGETS[target].render(image, recorded, options).manifests == plain.manifests


def test_a_bento_without_such_variables_has_the_facts_that_it_had(tmp_path: Path) -> None:
    assert "environment" not in facts(tmp_path / "bento", "").to_dict()


def test_a_variable_that_no_release_may_set_is_refused_here_too(tmp_path: Path) -> None:
    bento = facts(tmp_path / "bento", "envs:\n- {name: PORT, value: '80', stage: runtime}\n")
    with pytest.raises(InvalidInput, match="PORT"):
        TARGETS["workload"].render(IMAGE, bento)


def test_a_release_takes_values_as_long_as_a_bento_does(tmp_path: Path) -> None:
    value = "x" * (32 << 10)
    bento = facts(tmp_path / "bento", f"envs:\n- {{name: RULES, value: {value}, stage: runtime}}\n")
    assert BentoFacts.from_dict(bento.to_dict()).environment == {"RULES": value}


LOG = {"KFP_BENTO_REQUEST_LOG_RATE": "0.5"}
"""What a generated service reads, and no other."""


@pytest.mark.parametrize("target", TARGETS)
def test_a_log_of_requests_that_nobody_would_write_is_refused(target: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"envs": LOG}
    if target == "bento-request":
        options["archive_url"] = "https://store.example.com/wine.tar.gz"
    image = IMAGE if target != "bento-request" else "registry.example.com/team/wine:v1"
    with pytest.raises(InvalidInput, match="REQUEST_LOG_RATE would have no effect: the service of"):
        TARGETS[target].render(image, make_bento(), options)
    made = TARGETS[target].render(image, generated_bento(tmp_path / "bento"), options)
    wanted = [{"name": name, "value": value} for name, value in LOG.items()]
    assert wanted in list(lists_of_variables([*made.manifests]))


def test_a_log_that_a_bento_leaves_to_its_release_is_refused_too(tmp_path: Path) -> None:
    bento = facts(
        tmp_path / "bento",
        "envs:\n- {name: KFP_BENTO_REQUEST_LOG, value: stdout, stage: runtime}\n",
    )
    with pytest.raises(InvalidInput, match="envs: KFP_BENTO_REQUEST_LOG would have no effect"):
        TARGETS["workload"].render(IMAGE, bento)


def test_a_release_on_record_with_such_a_log_can_come_back() -> None:
    """It was applied by a version that did not say so."""
    made = TARGETS["workload"].render_again(IMAGE, make_bento(), {"envs": LOG})
    good = believed(encode_good(made), made.primary)
    assert good.release is not None
    assert good.release.manifests == made.manifests
