"""Requests are shifted in steps: each is checked, and the first that does not pass ends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checked_models import make_golden
from faulty_services import Service, serve
from sample_bentos import make_bento, make_model
from stub_api_server import ApiServer, serve_api, write_kubeconfig
from trials import KINDS, RUN, Endpoint, image_of, played_waits

from kfp_bento.runtime.checks import ReleaseReports
from kfp_bento.runtime.deployments import TARGETS, Release, Waiting
from kfp_bento.runtime.deployments.release.verdict import Verdict
from kfp_bento.runtime.errors import InvalidInput, PromotionRefused
from kfp_bento.runtime.promotion import Shifting, require_passed, shift_requests, shifting

ROUTE = {"route": {"gateway": "public"}}


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """Version 1 serves behind a route, and was found good."""
    with serve_api(ApiServer(kinds=KINDS)) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = Endpoint(server, tmp_path)
        with played_waits(found):
            found.good("1", **ROUTE)
            yield found


def weights(endpoint: Endpoint) -> dict[str, int]:
    route = endpoint.api.objects["httproutes/wine"]["spec"]["rules"][0]
    return {one["name"]: one.get("weight", 1) for one in route["backendRefs"]}


def render(version: str = "2", target: str = "workload", **options: Any) -> Any:
    bento = make_bento(version=f"{version:0>16}", models=(make_model(version=version),))

    def rendered(more: Any) -> Release:
        given = {**(ROUTE if target == "workload" else {}), **options, **more}
        return TARGETS[target].render(image_of(version), bento, given)

    return rendered


def shift(
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
    *,
    rendered: Any = None,
    **more: Any,
) -> ReleaseReports:
    """Shifts; the canary's address leads to a service of the test."""
    with serve(service) as running:
        monkeypatch.setattr(Release, "canary_url", property(lambda _: running.url))
        facts = {"steps": (10, 50), "soak_seconds": 0.01, "mode": "apply", "run": RUN, **more}
        return shift_requests(
            rendered or render(),
            make_golden(),
            endpoint.folder / "steps",
            Shifting(waiting=Waiting(60), **facts),
        )


def zeros(body: Any) -> Any:
    return 200, [0 for _ in body["inputs"]]


def test_each_step_is_checked_and_the_last_one_stays(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, int]] = []

    def answer(body: Any) -> Any:
        if weights(endpoint) not in seen:
            seen.append(weights(endpoint))
        return zeros(body)

    found = shift(endpoint, monkeypatch, Service(predict=answer))
    assert found.passed
    assert seen == [{"wine": 90, "wine-canary": 10}, {"wine": 50, "wine-canary": 50}]
    assert [one.name for one in found.reports] == [
        *("smoke_test at 10 %", "compare_predictions at 10 %", "served_image at 10 %"),
        *("smoke_test at 50 %", "compare_predictions at 50 %", "served_image at 50 %"),
    ]
    assert endpoint.serves == "1"
    assert sorted(path.name for path in (endpoint.folder / "steps").iterdir()) == ["10", "50"]


def test_a_step_that_does_not_pass_is_the_last_and_is_left(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shift(endpoint, monkeypatch, Service(predict=lambda _: (200, [7, 7])))
    assert not found.passed
    assert weights(endpoint) == {"wine": 1}
    assert {name.partition(" at ")[2] for name in (one.name for one in found.reports)} == {"10 %"}
    assert "rolled back to revision" in found.settled


def test_what_goes_wrong_only_after_a_while_is_seen(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def tires(body: Any) -> Any:
        asked.append(body)
        return zeros(body) if len(asked) <= 4 else (500, {"error": "tired"})

    found = shift(endpoint, monkeypatch, Service(predict=tires), soak_seconds=0.01)
    assert not found.passed
    assert weights(endpoint) == {"wine": 1}


def test_pods_that_crash_while_it_soaks_are_seen(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = Verdict(False, "CrashLoopBackOff", "The container crashes.")
    monkeypatch.setattr(shifting, "wait_for_release", lambda *_, **__: crashed)
    found = shift(endpoint, monkeypatch, Service(predict=zeros))
    assert [one.summary for one in found.failed] == ["The container crashes."]
    assert weights(endpoint) == {"wine": 1}


def test_the_first_release_has_nothing_to_shift_from(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.api.objects.clear()
    found = shift(endpoint, monkeypatch, Service())
    assert found.passed
    assert "no other release was good before" in found.reports[0].summary
    assert endpoint.serves == ""


def test_without_a_cluster_nothing_is_shifted(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shift(endpoint, monkeypatch, Service(), mode="render")
    assert "no cluster is deployed to" in found.reports[0].summary


def test_a_target_that_cannot_split_requests_is_refused(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="cannot split requests") as refused:
        shift(endpoint, monkeypatch, Service(), rendered=render(target="bento-deployment"))
    assert "inference-service and workload" in refused.value.hint


@pytest.mark.parametrize("steps", [(), (0,), (100,), (50, 10), (10, 10)])
def test_steps_that_are_none_are_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="steps: "):
        Shifting(steps=steps)


def test_what_follows_refuses_where_a_step_did_not_pass(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    artifact = SimpleNamespace(path=str(tmp_path / "reports"))
    found = shift(endpoint, monkeypatch, Service(predict=lambda _: (200, [7, 7])))
    artifact.metadata = {"record": found.save(Path(artifact.path))}
    with pytest.raises(PromotionRefused, match="compare_predictions at 10 %") as refused:
        require_passed(artifact)
    assert "rolled back" in refused.value.message
    passed = replace(found, reports=tuple(replace(one, passed=True) for one in found.reports))
    artifact.metadata = {"record": passed.save(Path(artifact.path))}
    require_passed(artifact)
    require_passed(None)
