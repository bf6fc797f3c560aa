"""Markdown, metrics and files of single steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from sample_runs import IMAGE_DIGEST, MANIFESTS, MODEL_DIGEST, failed_run, promoted_run

from kfp_bento.runtime import reports
from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.deployments import Release
from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.images import Image
from kfp_bento.runtime.promotion import Promotion


def image() -> Image:
    return Image.from_dict(promoted_run()["image"])


def check(*, failed: bool = False) -> CheckReport:
    data = (failed_run() if failed else promoted_run())["checks"][1]
    return CheckReport(**{**data, "evidence": tuple(data["evidence"])})


def release() -> Release:
    data = promoted_run()["release"]
    return Release(**{key: data[key] for key in data if not key.startswith("runtime")})


def promotion(**changes: object) -> Promotion:
    return Promotion(**{**promoted_run()["promoted"], **changes})


def test_an_image_is_named_by_its_whole_digest() -> None:
    assert f"`localhost/wine@{IMAGE_DIGEST}`" in reports.image_summary(image())


def test_each_layer_is_a_row() -> None:
    row = "| dependencies | the dependencies layer | 150.0 MiB | reused | `sha256:646570656e64` |"
    assert row in reports.image_summary(image()).splitlines()


def test_image_metrics_tell_built_from_reused() -> None:
    metrics = reports.image_metrics(image())
    assert metrics["bytes"] == 180 * 1024**2 + 10240
    assert metrics["bytes_reused"] == 150 * 1024**2
    assert (metrics["layers"], metrics["layers_built"], metrics["layers_reused"]) == (3, 2, 1)


def test_a_release_shows_its_manifests(tmp_path: Path) -> None:
    for name, text in MANIFESTS.items():
        (tmp_path / name).write_text(text)
    summary = reports.release_summary(release(), tmp_path)
    blocks = [block.split("\n```")[0] for block in summary.split("```yaml\n")[1:]]
    assert [yaml.safe_load(block)["kind"] for block in blocks] == ["Bento", "BentoDeployment"]
    assert "no cluster was touched" in summary


def test_a_manifest_cannot_end_its_own_fence(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("note: |\n  ```\n  # no heading\n")
    assert "````yaml\n" in reports.release_summary(release(), tmp_path)


def test_a_failed_check_is_a_headline() -> None:
    summary = reports.check_summary(check(failed=True))
    assert summary.startswith("# compare\\_predictions: FAILED\n")
    assert "| all rows\\[1\\] | `2` | `1` | other value |" in summary


def test_a_passed_check_shows_measures_and_evidence() -> None:
    summary = reports.check_summary(check())
    assert summary.startswith("# compare\\_predictions: passed\n")
    assert "| Mismatches | 0 |" in summary
    assert '"expected": [0, 1, 2]' in summary


@pytest.mark.parametrize("failed", [False, True])
def test_check_metrics_say_passed_as_a_number(failed: bool) -> None:
    metrics = reports.check_metrics(check(failed=failed))
    assert metrics["passed"] == float(not failed)
    assert metrics["rows"] == 3.0


def test_a_promotion_names_the_previous_version() -> None:
    summary = reports.promotion_summary(promotion())
    assert "The alias `champion` now points to version 4 of wine." in summary
    assert "- Previous version: 3" in summary


def test_a_repeated_promotion_does_not_claim_to_have_moved_anything() -> None:
    assert "already pointed to" in reports.promotion_summary(promotion(changed=False))


def test_markdown_takes_names_literally() -> None:
    summary = reports.promotion_summary(promotion(name="<b>a|b</b> [x](y)\n# z"))
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
    assert reports.human_seconds(seconds) == text


def test_a_digest_is_shortened_wherever_it_stands() -> None:
    assert reports.short_digest(f"a@{MODEL_DIGEST}") == "a@sha256:608346a232f8"
    assert reports.short_digest("host") == "host"


def test_evidence_with_long_values_is_broken_into_lines() -> None:
    from kfp_bento.runtime.reports.json_text import readable

    value = {"inputs": [{"column": "x" * 50, "other": number} for number in range(3)], "a": [1, 2]}
    text = readable(value)
    assert json.loads(text) == value
    assert max(map(len, text.splitlines())) <= 88
    assert '"a": [1, 2]' in text
