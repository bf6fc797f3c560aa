"""Markdown, metrics and files of single steps."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sample_bentos import make_bento
from sample_runs import IMAGE_DIGEST, MANIFESTS, MODEL_DIGEST, failed_run, promoted_run

from kfp_bento.runtime import reports
from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.deployments import (
    TARGETS,
    Applied,
    Deployed,
    ObjectRef,
    Release,
    ReleaseDiff,
    Rollout,
    Verdict,
)
from kfp_bento.runtime.deployments.release.diff import ObjectDiff
from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.files import record_digest
from kfp_bento.runtime.images import Image
from kfp_bento.runtime.promotion import Promotion
from kfp_bento.runtime.promotion.promotion import PromotedVersion
from kfp_bento.runtime.reports.releases import release_summary, roll_back_summary
from kfp_bento.runtime.reports.summaries import check_summary, promotion_summary
from kfp_bento.runtime.reports.wording import human_seconds, shorten_digests


def image() -> Image:
    return Image.from_dict(promoted_run()["image"])


def check(*, failed: bool = False) -> CheckReport:
    data = (failed_run() if failed else promoted_run())["checks"][1]
    return CheckReport(**{**data, "evidence": tuple(data["evidence"])})


def release() -> Release:
    options = {"namespace": "models", "name": "wine"}
    made = make_bento(version="ff20")
    return TARGETS["workload"].render(f"registry.example.com/wine@{IMAGE_DIGEST}", made, options)


def only(mode: str) -> Deployed:
    return Deployed(release(), mode, release().image)


SERVICE = ObjectRef("v1", "Service", "models", "wine")
DEPLOYMENT = ObjectRef("apps/v1", "Deployment", "models", "wine")
OLD_ROUTE = ObjectRef("gateway.networking.k8s.io/v1", "HTTPRoute", "models", "old")
READY = Verdict(True, "Ready", "Deployment models/wine serves: wine 1/1.")
CRASHED = Verdict(
    False,
    "CrashLoopBackOff",
    "Container bento of pod wine-5f <x> keeps ending.",
    ("Pod wine-5f: BackOff (3 times)", "wine-5f/bento: ```", "wine-5f/bento: # no heading"),
)


def deployed(verdict: Verdict = READY, **rollout: Any) -> Deployed:
    """A release on a cluster: one object new, one changed, one removed."""
    applied = (Applied(SERVICE, "unchanged"), Applied(DEPLOYMENT, "changed"))
    done = Rollout("r2", applied, verdict, removed=(OLD_ROUTE,), **rollout)
    change = ReleaseDiff((ObjectDiff(DEPLOYMENT, "changed", "-a\n+b\n"),))
    url, made = "http://wine.models.svc:3000", release()
    return Deployed(made, "applied", made.image, url, change, done, seconds=12.34, waited=True)


class Places:
    """Where a deploying step writes."""

    def __init__(self, directory: Path) -> None:
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        for name, text in MANIFESTS.items():
            (self.manifests / name).write_text(text)
        self.files = {name: directory / name for name in ("record", "diff", "summary")}
        self.metrics: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}

    def write(self, written: Deployed, **more: Any) -> None:
        reports.write_deployment(
            written, self.manifests, **self.files, facts=self.facts, metrics=self.metrics, **more
        )
        told = json.loads(self.text("record"))
        assert told.pop("seal")
        record = record_digest(self.files["record"].read_bytes())
        assert self.facts == {**told, "record": record}

    def text(self, name: str) -> str:
        return self.files[name].read_text()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def promotion(**changes: object) -> Promotion:
    facts = {**promoted_run()["promoted"]["models"][0], **changes}
    return Promotion("champion", (PromotedVersion(**facts),))


def test_an_image_is_named_by_its_whole_digest() -> None:
    assert f"`localhost/wine@{IMAGE_DIGEST}`" in reports.image_summary(image())


def test_each_layer_is_a_row() -> None:
    row = "| dependencies | the dependencies layer | 150.0 MiB | reused | `sha256:646570656e64` |"
    assert row in reports.image_summary(image()).splitlines()


def test_layers_of_dependencies_with_one_origin_are_one_row() -> None:
    whole = image()
    found = next(layer for layer in whole.layers if layer.kind == "dependencies")
    many = [replace(found, title=f"w{n} 1.0", size=1024) for n in range(50)]
    made = replace(found, title="new 1.0", origin="built")
    rows = reports.image_summary(replace(whole, layers=(*many, made))).splitlines()
    named = "w0 1.0, w1 1.0, w2 1.0 and 47 more"
    assert f"| dependencies | {named} | 50.0 KiB | reused |  |" in rows
    assert any("| new 1.0 | 150.0 MiB | built | `sha256:" in row for row in rows)


def test_image_metrics_tell_built_from_reused() -> None:
    metrics = reports.image_metrics(image())
    assert metrics["bytes"] == 180 * 1024**2 + 10240
    assert metrics["bytes_reused"] == 150 * 1024**2
    assert (metrics["layers"], metrics["layers_built"], metrics["layers_reused"]) == (3, 2, 1)


def test_a_release_shows_its_manifests(tmp_path: Path) -> None:
    for name, text in MANIFESTS.items():
        (tmp_path / name).write_text(text)
    summary = release_summary(only("rendered"), tmp_path)
    blocks = [block.split("\n```")[0] for block in summary.split("```yaml\n")[1:]]
    assert [yaml.safe_load(block)["kind"] for block in blocks] == ["Bento", "BentoDeployment"]
    assert "no cluster was touched" in summary


def test_a_manifest_cannot_end_its_own_fence(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("note: |\n  ```\n  # no heading\n")
    assert "````yaml\n" in release_summary(only("rendered"), tmp_path)


def test_a_release_that_serves_says_so_and_what_it_changed() -> None:
    summary = release_summary(deployed())
    assert summary.startswith("# Release wine serves\n")
    assert "- Answers at: `http://wine.models.svc:3000`" in summary
    assert "- Waited: 12.3 s" in summary
    assert [line for line in summary.splitlines() if line.startswith("| ")] == [
        "| Object | Name | Change |",
        "| Service | `wine` | unchanged |",
        "| Deployment | `wine` | changed |",
        "| HTTPRoute | `old` | removed |",
    ]


def test_a_release_that_was_not_waited_for_is_not_said_to_serve() -> None:
    applied = Verdict(False, "NotWaited", "Whether it serves was not waited for.")
    found = deployed(applied)
    summary = release_summary(replace(found, waited=False))
    assert summary.startswith("# Release wine\n")
    assert "not waited for" in summary


def test_a_failed_release_is_a_headline_with_its_evidence() -> None:
    summary = release_summary(deployed(CRASHED))
    assert summary.startswith("# Release wine: FAILED (CrashLoopBackOff)\n")
    assert "wine-5f &lt;x&gt; keeps ending" in summary
    evidence = summary.split("## Evidence\n\n")[1]
    assert evidence.startswith("````text\nPod wine-5f: BackOff (3 times)\n")


def test_a_first_release_that_failed_answers_nowhere_and_is_said_to_be_gone() -> None:
    assert "Answers at" not in release_summary(deployed(CRASHED))
    summary = release_summary(deployed(CRASHED, taken_away=(DEPLOYMENT,)))
    assert "was taken away again: nothing serves." in summary


@pytest.mark.parametrize(("restored", "told"), [(READY, "serves"), (CRASHED, "does NOT serve")])
def test_a_roll_back_by_itself_is_told_with_what_came_of_it(restored: Verdict, told: str) -> None:
    summary = release_summary(deployed(CRASHED, rolled_back_to="r1", restored=restored))
    assert f"**Rolled back** to revision `r1`, which {told}: " in summary
    assert ("## Evidence about the restored release" in summary) is not restored.ready


def test_the_sample_request_can_be_pasted_into_a_shell(places: Places) -> None:
    request = {"inputs": [{"name": "O'Brien $HOME", "hue": 1.5}]}
    places.write(deployed(), request=request)
    block = places.text("summary").split("```sh\n")[1].split("\n```")[0]
    command = shlex.split(block)
    assert command[:3] == ["curl", "-sS", "http://wine.models.svc:3000/predict"]
    assert json.loads(command[-1]) == request
    assert "From a pod of the cluster" in places.text("summary")


def test_there_is_no_sample_request_to_what_does_not_serve_or_is_endless(places: Places) -> None:
    places.write(deployed(CRASHED), request={"inputs": [1]})
    assert "curl" not in places.text("summary")
    assert "curl" not in release_summary(deployed(), request={"inputs": [1] * 5000})
    assert "curl" not in release_summary(only("rendered"), request=None)


def test_a_deploying_step_leaves_record_diff_summary_and_metrics(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.write(deployed())
    assert deployed().to_dict().items() <= json.loads(places.text("record")).items()
    assert places.text("diff").startswith("# What the release changes\n")
    assert "```diff\n-a\n+b\n```" in places.text("diff")
    assert "### bentodeployment-wine.yaml" in places.text("summary")
    assert places.metrics == {
        "seconds_to_serve": 12.3,
        "objects_rendered": 0.0,
        "objects_created": 0.0,
        "objects_changed": 1.0,
        "objects_unchanged": 1.0,
        "objects_removed": 1.0,
        "failed": 0.0,
        "rolled_back": 0.0,
    }
    assert capsys.readouterr().out == ""


def test_the_log_gets_what_kubeflow_does_not_keep_of_a_failed_task(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.write(deployed(CRASHED, rolled_back_to="r1", restored=READY))
    log = capsys.readouterr().out
    assert "wine-5f/bento: # no heading" in log
    assert "Rolled back" in log and "yaml" not in log
    assert (places.metrics["failed"], places.metrics["rolled_back"]) == (1.0, 1.0)
    assert "seconds_to_serve" not in places.metrics


@pytest.mark.parametrize(
    ("mode", "why"), [("rendered", "Rendered only"), ("local", "Started on this machine")]
)
def test_where_nothing_was_compared_the_diff_says_why(places: Places, mode: str, why: str) -> None:
    places.write(only(mode))
    assert "Nothing was compared with what runs." in places.text("diff")
    assert why in places.text("diff")
    assert places.metrics["objects_created"] == 0.0


def test_a_roll_back_names_what_serves_now(tmp_path: Path) -> None:
    metrics: dict[str, Any] = {}
    done = Rollout("r1", (Applied(DEPLOYMENT, "changed"),), READY, rolled_back_to="r1", image="i")
    reports.write_roll_back(done, "wine", summary=tmp_path / "summary", metrics=metrics)
    summary = (tmp_path / "summary").read_text()
    assert summary.startswith("# Release wine is back at revision r1\n")
    assert "- Image: `i`" in summary
    assert (metrics["objects_changed"], metrics["failed"]) == (1.0, 0.0)


def test_a_roll_back_to_what_serves_already_says_that_it_changed_nothing() -> None:
    done = Rollout("r1", (Applied(DEPLOYMENT, "unchanged"),), READY, rolled_back_to="r1")
    assert "nothing was changed" in roll_back_summary(done, "wine")


def test_a_roll_back_that_failed_goes_to_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics: dict[str, Any] = {}
    done = Rollout("r1", (Applied(DEPLOYMENT, "changed"),), CRASHED, rolled_back_to="r1")
    reports.write_roll_back(done, "wine", summary=tmp_path / "summary", metrics=metrics)
    assert "FAILED (CrashLoopBackOff)" in (tmp_path / "summary").read_text()
    assert "wine-5f/bento: # no heading" in capsys.readouterr().out
    assert metrics["failed"] == 1.0


def test_names_of_a_release_are_taken_literally() -> None:
    found = deployed(Verdict(False, "A|B", "x\n# y <b>"))
    summary = release_summary(found)
    assert "<b>" not in summary
    assert "\n# y" not in summary
    assert summary.startswith("# Release wine: FAILED (A\\|B)\n")


def test_a_failed_check_is_a_headline() -> None:
    summary = check_summary(check(failed=True))
    assert summary.startswith("# compare\\_predictions: FAILED\n")
    assert "| all rows\\[1\\] | `2` | `1` | other value |" in summary


def test_a_passed_check_shows_measures_and_evidence() -> None:
    summary = check_summary(check())
    assert summary.startswith("# compare\\_predictions: passed\n")
    assert "| Mismatches | 0 |" in summary
    assert '"expected": [0, 1, 2]' in summary


@pytest.mark.parametrize("failed", [False, True])
def test_check_metrics_say_passed_as_a_number(failed: bool) -> None:
    metrics = reports.check_metrics(check(failed=failed))
    assert metrics["passed"] == float(not failed)
    assert metrics["rows"] == 3.0


def test_a_promotion_names_the_previous_version() -> None:
    summary = promotion_summary(promotion())
    assert "The alias `champion` now points to version 4 of wine." in summary
    assert "| wine | 4 | 3 | yes | `kfp-bento.promoted.champion.1` |" in summary


def test_a_repeated_promotion_does_not_claim_to_have_moved_anything() -> None:
    assert "already pointed to" in promotion_summary(promotion(changed=False))


def test_markdown_takes_names_literally() -> None:
    summary = promotion_summary(promotion(name="<b>a|b</b> [x](y)\n# z"))
    assert "<b>" not in summary
    assert "[x](y)" not in summary
    assert "\n# z" not in summary


def test_json_is_ascii_with_sorted_keys_and_a_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "data.json"
    reports.write_json({"b": "é", "a": 1}, path)
    assert path.read_bytes() == b'{\n  "a": 1,\n  "b": "\\u00e9"\n}\n'


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        reports.write_json({"a": float("nan")}, tmp_path / "data.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["é", "é\n"])
def test_text_is_utf8_with_one_last_newline(tmp_path: Path, text: str) -> None:
    reports.write_text(text, tmp_path / "a" / "text.md")
    assert (tmp_path / "a" / "text.md").read_bytes() == "é\n".encode()


def test_text_that_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    reports.write_text("a\udc80", tmp_path / "text.md")
    assert (tmp_path / "text.md").read_text() == "a\\udc80\n"


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(KfpBentoError, match="cannot be written: Is a directory"):
        reports.write_text("text", tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KfpBentoError) as caught:
        reports.write_json({}, tmp_path / "file" / "below" / "data.json")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1536 * 1024**2, "1.5 GiB"),
        (3 * 1024**4, "3.0 TiB"),
    ],
)
def test_bytes_are_shown_in_binary_units(size: int, text: str) -> None:
    assert reports.human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.44, "9.4 s"), (89.96, "1 min 30 s"), (3599.9, "1 h 00 min")],
)
def test_seconds_have_one_decimal_and_long_times_minutes(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_a_digest_is_shortened_wherever_it_stands() -> None:
    assert shorten_digests(f"a@{MODEL_DIGEST}") == "a@sha256:608346a232f8"
    assert shorten_digests("host") == "host"


def test_evidence_with_long_values_is_broken_into_lines() -> None:
    from kfp_bento.runtime.reports.json_text import readable

    value = {"inputs": [{"column": "x" * 50, "other": number} for number in range(3)], "a": [1, 2]}
    text = readable(value)
    assert json.loads(text) == value
    assert max(map(len, text.splitlines())) <= 88
    assert '"a": [1, 2]' in text
