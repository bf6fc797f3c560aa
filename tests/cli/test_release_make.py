"""kfp-bento release MODEL_URI: the parameters of the short road, out of a few options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kfp_bento.runtime.cli import release_make
from kfp_bento.runtime.cli.application import app


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would be run."""
    found: list[dict[str, Any]] = []

    def note(pipeline: str, arguments: dict[str, Any], to: Path, **more: Any) -> None:
        assert pipeline == "release_model"
        found.append({**arguments, "to": to, **more})

    monkeypatch.setattr(release_make, "run_here", note)
    return found


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_uri_in_place_of_a_command_makes_a_release(asked: list[dict[str, Any]]) -> None:
    run("release", "models:/credit@prod", "b=models:/other/2", "--to", "oci:image", "--keep")
    run("release", "make", "models:/credit@prod", "--to", "oci:image")
    first, second = asked
    assert first["model_uris"] == ["models:/credit@prod", "b=models:/other/2"]
    assert (first["image_destination"], first["deploy_mode"]) == ("oci:image", "local")
    assert (first["promote_alias"], first["keep"], second["keep"]) == ("", True, False)


def test_a_target_applies_it_to_the_cluster(asked: list[dict[str, Any]]) -> None:
    run(
        *("release", "models:/credit/3", "--to", "registry.example.com/ml/credit"),
        *("--target", "workload", "-n", "models", "--promote", "prod"),
        *(
            "-p",
            'deploy_options={"route": {"hostname": "credit.example.com"}}',
            "-p",
            "deploy_name=c",
        ),
    )
    (found,) = asked
    assert (found["deploy_mode"], found["deploy_target"]) == ("apply", "workload")
    assert (found["deploy_namespace"], found["promote_alias"]) == ("models", "prod")
    assert found["deploy_options"] == {"route": {"hostname": "credit.example.com"}}
    assert found["deploy_name"] == "c"


@pytest.mark.parametrize("more", [("-n", "models"), ("--keep", "--target", "workload")])
def test_what_would_be_ignored_is_refused(
    asked: list[dict[str, Any]], more: tuple[str, ...]
) -> None:
    given = ("release", "make", "models:/credit@prod", "--to", "oci:image")
    result = CliRunner().invoke(app, [*given, *more])
    assert (result.exit_code, asked) == (2, [])
    assert "--target" in result.output


def test_a_command_that_is_none_is_told_so() -> None:
    result = CliRunner().invoke(app, ["release", "stauts", "credit"])
    assert result.exit_code == 2
    assert "stauts" in result.output
