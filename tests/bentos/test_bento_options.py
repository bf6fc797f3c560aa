"""The rarer wishes: read with their names, and put where BentoML itself puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.bentos import Bento, BentoOptions, build_bento, read_bento_file
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import parse_yaml
from kfp_bento.runtime.images.assembly.qualify import qualify

OWN = """\
import bentoml

image = bentoml.images.Image().system_packages("git")

@bentoml.service(
    image=image,
    envs=[{"name": "THREADS", "value": "1"}, {"name": "MODE", "value": "own"}],
    labels={"team": "own", "owner": "ada"},
)
class Own:
    @bentoml.api
    def ask(self) -> str:
        return "yes"
"""
WISHES = {
    "system_packages": ["libgomp1", "curl=7.88.1-10"],
    "envs": {"THREADS": "4", "AREA": "eu"},
    "labels": {"team": "risk"},
}


@pytest.fixture(scope="module")
def wished(tmp_path_factory: pytest.TempPathFactory) -> Bento:
    return build(tmp_path_factory.mktemp("wished") / "bento", WISHES)


def build(directory: Path, options: dict[str, Any], source: str = OWN) -> Bento:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "kfp_bento.runtime.bentos.build.lock_requirements", lambda *_: "six==1.17.0\n"
        )
        return build_bento([], directory, service=source, options=options)


def test_wishes_are_joined_with_those_of_the_service(wished: Bento) -> None:
    data = parse_yaml((wished.directory / "bento.yaml").read_bytes())
    assert data["labels"] == {"owner": "ada", "team": "risk"}
    found = {one.name: one.value for one in read_bento_file(wished.directory).environment}
    assert found == {"THREADS": "4", "AREA": "eu", "MODE": "own"}
    dockerfile = (wished.directory / "env/docker/Dockerfile").read_text()
    assert "THREADS=4" in dockerfile.replace('"', "")
    assert "THREADS=1" not in dockerfile.replace('"', "")


def test_the_image_of_the_bento_has_them(wished: Bento) -> None:
    lock = wished.directory / "env/python/requirements.txt"
    digest = "--hash=sha256:" + "0" * 64
    lock.write_text(f"six==1.17.0 {digest}\nbentoml==1.4.39 {digest}\n")
    wanted = qualify(wished.directory)
    lock.write_text("six==1.17.0\n")
    assert set(wanted.system_packages) == {"git", "libgomp1", "curl=7.88.1-10"}
    assert wanted.environment == {"THREADS": "4", "AREA": "eu", "MODE": "own"}


@pytest.mark.parametrize(
    "other",
    [
        {"labels": {"team": "other"}},
        pytest.param({"envs": {"AREA": "us"}}, marks=pytest.mark.slow),
        pytest.param({"system_packages": ["libgomp1"]}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_another_wish_is_another_version(
    wished: Bento, other: dict[str, Any], tmp_path: Path
) -> None:
    assert build(tmp_path / "bento", WISHES | other).version != wished.version


def test_the_order_of_wishes_does_not_matter(wished: Bento, tmp_path: Path) -> None:
    turned = {
        "labels": WISHES["labels"],
        "envs": [{"name": "AREA", "value": "eu"}, {"name": "THREADS", "value": 4.0}],
        "system_packages": ["curl=7.88.1-10", "libgomp1", "curl=7.88.1-10"],
        "show_example": None,
        "max_batch_size": 0.0,
    }
    assert build(tmp_path / "bento", turned).digest == wished.digest


@pytest.mark.parametrize(
    ("options", "told", "way_out"),
    [
        (
            {"system_package": ["x"]},
            "system_package: the build of a",
            "Did you mean system_packages",
        ),
        ({"colour": 1}, "colour: the build of a bento has no such option", "It has envs"),
        ({"system_packages": "x"}, "system_packages: 'x' is no list", "[...]"),
        ({"system_packages": ["a; b"]}, "'a; b' is no name of a Debian package", "libgomp1"),
        ({"envs": {"A-B": "1"}}, "envs[A-B]: 'A-B' cannot name a variable", "letters"),
        ({"envs": {"PATH": "/x"}}, "cannot name a variable", "not PATH"),
        ({"envs": {"ON": True}}, "envs[ON]: True is no string", "Quote"),
        ({"envs": [{"name": "A"}]}, "envs[0]: it is no name and value", "name"),
        ({"envs": [{"name": "A", "value": "1"}] * 2}, "envs[1]: A is given twice", "Keep one"),
        ({"envs": {"DB_PASSWORD": "x1y2"}}, "envs[DB_PASSWORD]: its name", "secretKeyRef"),
        ({"labels": {"team": "a b"}}, "labels[team]: 'a b' is no value of a label", "63"),
        ({"protocols": ["v3"]}, "'v3' is no protocol", "v2"),
        ({"max_batch_size": 1}, "max_batch_size is 1", "0 asks"),
        ({"show_example": "no"}, "show_example: 'no' is neither true nor false", "without quotes"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_name(
    options: dict[str, Any], told: str, way_out: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        BentoOptions.of(options)
    assert told in refused.value.message
    assert way_out in refused.value.hint
    assert "x1y2" not in str(refused.value)


@pytest.mark.parametrize("option", [{"show_example": False}, {"protocols": []}], ids=str)
def test_what_is_for_generated_services_is_refused_for_ones_own(
    option: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="is up to it"):
        build(tmp_path / "bento", option)


def test_what_traces_and_writes_to_buckets_is_there_where_it_is_wanted(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def lock(needed: list[str], *_: Any) -> str:
        asked.append(needed)
        return "six==1.17.0\n"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kfp_bento.runtime.bentos.build.lock_requirements", lock)
        for number, options in enumerate(({}, {"traces": False}, {"traces": True})):
            build_bento([], tmp_path / str(number), service=OWN, options=options)
    without, also_without, traced = asked
    assert without == also_without
    assert set(traced) - set(without) == {"opentelemetry-exporter-otlp-proto-http"}
    assert BentoOptions.of({"log_to_bucket": True}).requirements() == ["boto3>=1.36"]
    with pytest.raises(InvalidInput, match="log_to_bucket is for generated services"):
        build(tmp_path / "own", {"log_to_bucket": True})
