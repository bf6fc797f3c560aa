"""A release on trial is checked, one check after the other, and left where one does not pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checked_models import DIGEST
from faulty_services import Service, serve
from stub_api_server import ApiServer, serve_api, write_kubeconfig
from trials import KINDS, Endpoint, image_of, played_waits

from kfp_bento.runtime.checks import CheckReport, ReleaseReports, check_release
from kfp_bento.runtime.checks.release_reports import load_given_reports
from kfp_bento.runtime.deployments import ReleaseFacts, Waiting, confirm_release
from kfp_bento.runtime.errors import CheckError, DeploymentError, InvalidInput
from kfp_bento.runtime.proof import Golden
from kfp_bento.runtime.reports.release_checks import checks_page, checks_summary

WAITING = Waiting(60)


def zeros(body: Any) -> Any:
    return 200, [0 for _ in body["inputs"]]


def wrong(body: Any) -> Any:
    return 200, [7 for _ in body["inputs"]]


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """Version 1 serves, and was found good."""
    with serve_api(ApiServer(kinds=KINDS)) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = Endpoint(server, tmp_path)
        with played_waits(found):
            found.good("1")
            yield found


def checked(
    release: ReleaseFacts, golden: Golden, service: Service | None = None, **options: Any
) -> ReleaseReports:
    with serve(service or Service(predict=zeros)) as running:
        at = replace(release, url=running.url)
        return check_release(at, golden, waiting=WAITING, **options)


def test_what_passes_stays_on_trial(endpoint: Endpoint, golden: Golden) -> None:
    release = endpoint.trial("2")
    found = checked(release, golden)
    assert (found.passed, found.settled, endpoint.serves) == (True, "", "2")
    assert [report.name for report in found.reports] == [
        *("smoke_test", "compare_predictions", "served_image")
    ]
    assert {report.image for report in found.reports} == {release.image}
    assert {report.release for report in found.reports} == {release.title}


def test_what_does_not_pass_is_left_at_once(endpoint: Endpoint, golden: Golden) -> None:
    found = checked(endpoint.trial("2"), golden, Service(predict=wrong))
    assert (found.passed, endpoint.serves) == (False, "1")
    assert "rolled back to revision" in found.settled
    assert found.failed[0].name == "compare_predictions"


def test_right_answers_of_another_image_do_not_pass(endpoint: Endpoint, golden: Golden) -> None:
    release = endpoint.trial("2")
    endpoint.runs = image_of("3")
    found = checked(release, golden)
    assert (found.passed, endpoint.serves) == (False, "1")
    (failed,) = found.failed
    assert failed.name == "served_image"
    assert failed.summary == (f"pod wine-1 runs image {image_of('3')}, not {image_of('2')}")


def test_the_pods_that_were_asked_are_evidence(endpoint: Endpoint, golden: Golden) -> None:
    found = checked(endpoint.trial("2"), golden)
    report = found.report("served_image")
    assert report is not None
    titles = re.findall("<summary>(.*?)</summary>", checks_page(found))
    assert titles[-1] == "Evidence" and "Request and answer" in titles
    image = image_of("2")
    assert report.evidence == ({"name": "wine-1", "image": image, "runs": image, "ready": True},)
    assert report.summary == f"Deployment default/wine answers. Asked: wine-1. Pods run {image}."


def test_the_first_check_that_does_not_pass_is_the_last(endpoint: Endpoint, golden: Golden) -> None:
    down = Service(readyz=lambda _: (500, b""))
    found = checked(endpoint.trial("2"), golden, down, gates={"contract": {}}, ready_seconds=0.5)
    assert [report.name for report in found.reports] == ["smoke_test"]


def test_it_can_be_checked_without_being_left(endpoint: Endpoint, golden: Golden) -> None:
    found = checked(endpoint.trial("2"), golden, Service(predict=wrong), leave=False)
    assert (found.passed, found.settled, endpoint.serves) == (False, "", "2")


def test_a_release_that_does_not_serve_is_a_report(endpoint: Endpoint, golden: Golden) -> None:
    endpoint.broken = {"2"}
    release = endpoint.trial("2")
    found = check_release(release, golden, waiting=WAITING)
    assert not found.passed
    assert "The container crashes." in found.reports[0].summary
    assert endpoint.serves == "1"


def test_a_check_of_ones_own_counts(endpoint: Endpoint, golden: Golden) -> None:
    own = CheckReport("fairness", False, "It is not fair.", {}, (), (DIGEST,), "")
    found = checked(endpoint.trial("2"), golden, others=(own,))
    assert (found.passed, endpoint.serves) == (False, "1")
    report = found.report("fairness")
    assert report is not None and report.release == found.release.title


@pytest.mark.parametrize(
    ("gates", "told"),
    [
        ({"speed": {}}, "'speed' is no gate"),
        ({"load": [1]}, "load has no options by name"),
        ({"load": {"userz": 1}}, "userz"),
        ({"contract": {"strict": True}}, "no option 'strict'"),
    ],
)
def test_a_gate_that_is_none_is_refused_before_anything_is_asked(
    endpoint: Endpoint, golden: Golden, gates: dict[str, Any], told: str
) -> None:
    service = Service(predict=zeros)
    with pytest.raises(InvalidInput, match=told):
        checked(endpoint.trial("2"), golden, service, gates=gates)
    assert (service.paths, endpoint.serves) == ([], "2")


def test_what_was_only_rendered_cannot_be_checked(endpoint: Endpoint, golden: Golden) -> None:
    with pytest.raises(CheckError, match="only rendered"):
        check_release(replace(endpoint.trial("2"), mode="rendered"), golden)


def description(**fields: str) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in fields.items()}
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    content = {"application/json": {"schema": schema}}
    answers = {"200": {"content": {"application/json": {"schema": {"type": "array"}}}}}
    posted = {"requestBody": {"content": content}, "responses": answers}
    return {"openapi": "3.0.2", "paths": {"/predict": {"post": posted}}}


def described(**fields: str) -> Service:
    """Ready at `/readyz`, and its description at `/docs.json`: the same answer does for both."""
    return Service(readyz=lambda _: (200, description(**fields)), predict=zeros)


def test_a_release_is_held_to_what_the_last_good_one_has_promised(
    endpoint: Endpoint, golden: Golden
) -> None:
    gates: dict[str, Any] = {"contract": {}}
    second = endpoint.trial("2")
    first = checked(second, golden, described(a="number"), gates=gates)
    assert first.passed, first.failed
    confirm_release(second)
    # A trial that was refused has promised nothing.
    for fields in ({"a": "string"}, {"a": "string"}):
        found = checked(endpoint.trial("3"), golden, described(**fields), gates=gates)
        assert [one.name for one in found.failed] == ["check_contract"]
        assert endpoint.serves == "2"
    assert checked(endpoint.trial("3"), golden, described(a="number"), gates=gates).passed


def test_a_contract_on_record_that_somebody_changed_is_an_error(
    endpoint: Endpoint, golden: Golden
) -> None:
    second = endpoint.trial("2")
    checked(second, golden, described(a="number"), gates={"contract": {}})
    confirm_release(second)
    endpoint.api.noted["deployments/wine"]["kfp-bento/contract"] = "?"
    with pytest.raises(DeploymentError, match="cannot be read") as refused:
        checked(endpoint.trial("3"), golden, described(a="number"), gates={"contract": {}})
    assert "remove it" in refused.value.hint


def test_the_reports_are_believed_by_the_step_that_gets_them(
    endpoint: Endpoint, golden: Golden, tmp_path: Path
) -> None:
    found = checked(endpoint.trial("2"), golden, Service(predict=wrong))
    path = tmp_path / "reports"
    given = SimpleNamespace(path=str(path), metadata={"record": found.save(path)})
    assert load_given_reports(given) == found
    path.write_text(path.read_text().replace('"passed": false', '"passed": true'))
    with pytest.raises(CheckError, match="somebody changed them"):
        load_given_reports(given)


def test_people_read_what_was_found_and_what_became_of_it(
    endpoint: Endpoint, golden: Golden
) -> None:
    found = checked(endpoint.trial("2"), golden, Service(predict=wrong))
    page, summary = checks_page(found), checks_summary(found)
    for text in (page, summary):
        assert "rolled back to revision" in text
        assert "compare" in text and "smoke" in text
    assert "Refused." in page and "REFUSED" in summary
    assert "<script" not in page
