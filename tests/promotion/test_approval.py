"""A person approves exactly one image for exactly one version and alias, or it stays."""

from __future__ import annotations

import json
import os
import shlex
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp_bento_command import assert_refused, kfp_bento_here

from kfp_bento.runtime.checks import CheckReport, ReleaseReports
from kfp_bento.runtime.deployments import ReleaseFacts
from kfp_bento.runtime.errors import InvalidInput, PromotionRefused
from kfp_bento.runtime.models import ModelVersion, pull_models
from kfp_bento.runtime.promotion import await_approval, decide, promote_release
from kfp_bento.runtime.promotion.approval import Decision, Question, _read

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TAG, QUESTION = "kfp-bento.approval.prod", "kfp-bento.approval-asked.prod"
RELEASE = ReleaseFacts(
    "workload", "rendered", "wine", "default", "0" * 16, image=f"registry.example.com/w@{DIGEST}"
)

Told = Callable[[str], None]


@pytest.fixture
def client(mlflow_server: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(mlflow_server)


@pytest.fixture
def models(
    wine_model: ModelVersion, client: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> list[ModelVersion]:
    """Two registered models, one with a blank in its name."""
    import mlflow

    stem = f"ask-{zlib.crc32(request.node.name.encode()):x}"
    for name in (f"{stem} a", f"{stem}-b"):
        mlflow.register_model("models:/wine/1", name)
    uris = [f"a=models:/{stem} a/1", f"b=models:/{stem}-b/1"]
    return list(pull_models(uris, tmp_path / "models"))


def checked(models: list[ModelVersion], *, passed: bool = True) -> ReleaseReports:
    digests = tuple(model.digest for model in models)
    report = CheckReport(
        *("smoke_test", passed, "fine", {}, (), digests, ""),
        image=RELEASE.image,
        release=RELEASE.title,
    )
    return ReleaseReports(RELEASE, (report,))


def ask(models: list[ModelVersion], told: Told, seconds: float = 60) -> CheckReport:
    found = await_approval(
        models, checked(models), "prod", seconds=seconds, poll_seconds=0.02, progress=told
    )
    (report,) = found.reports
    return report


def approve(words: list[str], *more: str) -> Any:
    """Run the command, where the server is the one of the environment."""
    return kfp_bento_here(*words, *more, MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])


def command_in(text: str, kind: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"  {kind}:"))
    return shlex.split(line.partition(":")[2])[1:]


def tags(client: Any, model: ModelVersion) -> dict[str, str]:
    return dict(client.get_model_version(model.name, model.version).tags)


def test_the_command_that_the_log_shows_approves(models: list[ModelVersion], client: Any) -> None:
    texts: list[str] = []

    def told(text: str) -> None:
        texts.append(text)
        assert QUESTION in tags(client, models[0])
        assert approve(command_in(text, "approve"), "--why", "fine").returncode == 0

    report = ask(models, told)
    assert report.passed
    assert report.summary.endswith("(fine).")
    assert (report.name, report.image, report.release) == ("approval", RELEASE.image, RELEASE.title)
    assert set(report.model_digests) == {model.digest for model in models}
    assert len(texts) == 1
    assert QUESTION not in tags(client, models[0])


def test_the_command_that_the_log_shows_refuses(models: list[ModelVersion]) -> None:
    report = ask(models, lambda text: approve(command_in(text, "refuse")) and None)
    assert not report.passed
    assert report.summary.startswith("Refused by ")


def test_an_approval_is_found_without_naming_the_image(
    models: list[ModelVersion], client: Any
) -> None:
    uris = [f"models:/{model.name}/{model.version}" for model in models]
    assert ask(models, lambda _: decide(uris, "prod") and None).passed
    assert json.loads(tags(client, models[1])[TAG])["image"] == DIGEST


def test_without_a_question_the_image_has_to_be_named(models: list[ModelVersion]) -> None:
    uri = f"models:/{models[0].name}/1"
    with pytest.raises(InvalidInput, match="No run asks"):
        decide([uri], "prod")
    assert decide([uri], "prod", image=f"registry.example.com/w@{DIGEST}")[uri].image == DIGEST


def test_a_question_whose_time_is_over_is_not_answered(
    models: list[ModelVersion], client: Any
) -> None:
    late = json.dumps({"image": DIGEST, "release": "r", "until": "2020-01-01T00:00:00Z"})
    client.set_model_version_tag(models[0].name, "1", QUESTION, late)
    with pytest.raises(InvalidInput, match="waited until 2020"):
        decide([f"models:/{models[0].name}/1"], "prod")


def test_nobody_approves_in_time(models: list[ModelVersion], client: Any) -> None:
    report = ask(models, lambda _: None, seconds=0.2)
    assert (report.passed, report.summary) == (False, "Nobody approved within 0.2 s.")
    assert QUESTION not in tags(client, models[0])


@pytest.mark.parametrize(
    "decision",
    [
        {"uris": slice(0, 1), "image": DIGEST, "alias": "prod"},
        {"uris": slice(0, 2), "image": OTHER, "alias": "prod"},
        {"uris": slice(0, 2), "image": DIGEST, "alias": "staging"},
    ],
    ids=["one model of two", "another image", "another alias"],
)
def test_an_approval_of_something_else_does_not_count(
    decision: dict[str, Any], models: list[ModelVersion]
) -> None:
    uris = [f"models:/{model.name}/{model.version}" for model in models][decision["uris"]]
    decide(uris, decision["alias"], image=decision["image"])
    assert not ask(models, lambda _: None, seconds=0.2).passed


def test_what_was_approved_beforehand_is_not_asked_again(models: list[ModelVersion]) -> None:
    decide([f"models:/{model.name}/1" for model in models], "prod", image=DIGEST)
    assert ask(models, pytest.fail).passed


def test_nobody_is_asked_where_a_check_did_not_pass(models: list[ModelVersion]) -> None:
    found = await_approval(
        models, checked(models, passed=False), "prod", seconds=60, progress=pytest.fail
    )
    assert "a check did not pass" in found.reports[0].summary
    assert not found.passed


def test_a_registry_that_is_away_for_a_while_is_waited_for(
    models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp_bento.runtime.promotion import approval

    real, faults = approval.read_standing, iter([1, 1])
    texts: list[str] = []

    def flaky(*arguments: Any) -> Any:
        if len(texts) > 0 and next(faults, None):
            raise ConnectionError("reset by peer")
        return real(*arguments)

    def told(text: str) -> None:
        texts.append(text)
        if len(texts) == 1:
            decide([f"models:/{model.name}/1" for model in models], "prod")

    monkeypatch.setattr(approval, "read_standing", flaky)
    assert ask(models, told).passed
    assert texts[1:] == ["The registry cannot be read: reset by peer"]


def test_an_alias_moves_after_an_approval_and_the_history_says_whose(
    models: list[ModelVersion], client: Any
) -> None:
    decide([f"models:/{model.name}/1" for model in models], "prod", image=DIGEST, why="reviewed")
    found = checked(models)
    approval = await_approval(models, found, "prod", seconds=60)
    promote_release(models, found, "prod", required=["smoke"], approval=approval)
    entry = json.loads(tags(client, models[0])["kfp-bento.promoted.prod.1"])
    assert entry["why"].endswith("(reviewed).")
    assert "approval" in entry["checks"]


def test_an_alias_stays_where_nobody_approved(models: list[ModelVersion], client: Any) -> None:
    found = checked(models)
    approval = await_approval(models, found, "prod", seconds=0.1, poll_seconds=0.1)
    with pytest.raises(PromotionRefused, match="'approval' did not pass: Nobody approved"):
        promote_release(models, found, "prod", required=["smoke"], approval=approval)
    assert not client.get_registered_model(models[0].name).aliases


def test_an_approval_of_another_release_does_not_count(models: list[ModelVersion]) -> None:
    decide([f"models:/{model.name}/1" for model in models], "prod", image=DIGEST)
    found = checked(models)
    approval = await_approval(models, found, "prod", seconds=60)
    other = replace(approval.reports[0], release="workload default/other at revision 1")
    for wrong in (replace(approval, reports=(other,)), replace(approval, reports=())):
        with pytest.raises(PromotionRefused, match=r"another release|there is no report"):
            promote_release(models, found, "prod", required=["smoke"], approval=wrong)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["models:/a@prod", "--image", DIGEST], "names no version"),
        (["models:/a/1", "--image", "registry.example.com/a:latest"], "no image by digest"),
        (["models:/nothing/1", "--image", DIGEST], "There is no models:/nothing/1"),
    ],
)
def test_what_cannot_be_approved_is_refused(
    words: list[str], told: str, mlflow_server: str
) -> None:
    assert_refused(approve(["approve", *words, "--alias", "prod"]), told)


@given(st.text() | st.recursive(st.none() | st.text(), lambda of: st.lists(of)).map(json.dumps))
def test_what_somebody_else_wrote_is_no_decision(value: str) -> None:
    assert _read(Decision, value) is None
    assert _read(Question, value) is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.text() | st.none() | st.just(DIGEST) | st.just("approved")
            for name in ("decision", "image", "by", "at", "why")
        },
    )
)
def test_a_decision_is_approved_only_in_so_many_words(told: dict[str, Any]) -> None:
    found = _read(Decision, json.dumps(told))
    assert found is None or (told["decision"] == found.decision and told["image"] == DIGEST)
