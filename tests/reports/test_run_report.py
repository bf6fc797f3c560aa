"""The page of a whole run: complete, honest, escaped, and dependent on nothing."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from parsed_page import Page
from sample_runs import IMAGE_DIGEST, MANIFESTS, MODEL_DIGEST, failed_run, layer, promoted_run

from kfp_bento.runtime.reports import run_report

MARKUP = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def report(summary: dict[str, Any]) -> Page:
    return Page(run_report(summary, MANIFESTS))


@cache
def promoted_page() -> Page:
    """The page of a run that ended well, for all who only read it."""
    return report(promoted_run())


def texts(value: Any) -> Any:
    """The value with markup at the end of every text in it, and in every key of it."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [texts(item) for item in value]
    return value + MARKUP if isinstance(value, str) else value


@pytest.mark.parametrize(
    "fact",
    [
        "wine, version 4",
        "Promoted. The service answers all 3 rows exactly as the registry's model predicts.",
        "The alias champion moved from version 3 to version 4.",
        "models:/wine/4",
        "e0dcfa8cf23e478f92f9348174530df7",
        MODEL_DIGEST[:19],
        "alcohol double input",
        "hue double input, optional",
        "tensor of int64, shape (any)",
        "7 files hold what loading may run: 1 high (shop.load in model.pkl).",
        "high shop.load model.pkl A module of one's own is called. Look at the code of shop.",
        "allowed code/shop.py",
        "wine:ff201666d239ce13",
        "localhost/wine@sha256:1234abcd5678",
        "180.0 MiB in 3 layers",
        "dependencies the dependencies layer 150.0 MiB 83 %",
        "reused",
        "Base host: made of this machine's own interpreter: for trying out, not for production.",
        "as a process without a container. Why not in a container: podman is not installed.",
        'kind: BentoDeployment spec: cpu: "500m"',
        "Proof proven The bento was started and asked 4 requests.",
        "passed compare predictions",
        "Time to ready 0.3 s",
        "Request 12.7 ms",
        "1 1 1 equal",
        "build-image 9.4 s",
        "start, end and in between 2.3 s",
        "MlflowClient().set_registered_model_alias('wine', 'champion', '3')",
        "docker.io/library/python:3.11-slim",
    ],
)
def test_a_promoted_run_tells(fact: str) -> None:
    assert fact in promoted_page().text


def test_the_story_goes_along_the_road() -> None:
    text = promoted_page().text
    titles = ["Promoted.", "The road", "Model URI", "BentoML", "Layers, from", "Manifests"]
    titles += ["Served beside expected", "History tag", "7 steps, 34.0 s", "What to do next"]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)


def test_the_strip_has_the_seconds_of_each_stop() -> None:
    assert "Checks 2 of 2 passed done 4.2 s" in promoted_page().text


def test_a_shortened_digest_has_the_whole_one_as_its_title() -> None:
    titles = {attributes.get("title") for attributes in promoted_page().all("code")}
    assert {MODEL_DIGEST, IMAGE_DIGEST} <= titles


def test_a_failed_check_is_told_in_words() -> None:
    page = report(failed_run())
    assert (
        "Check failed. compare_predictions failed. "
        "2 served values differ from what the model predicts. No alias was moved." in page.text
    )
    assert "Checks 1 of 2 passed failed" in page.text
    assert "all rows[1] 2 1 other value" in page.text
    assert "1 2 1 differs" in page.text
    assert "2 no answer 2 missing" in page.text
    assert "Promoted" not in page.text


def test_a_promotion_after_a_failed_check_is_no_success() -> None:
    run = failed_run() | {"promoted": promoted_run()["promoted"]}
    text = report(run).text
    assert "Check failed." in text
    assert "Yet the alias champion points to version 4." in text


def test_a_bento_that_nobody_proved_is_told_in_words() -> None:
    run = promoted_run()
    run["bento"] |= {"verified": "off", "verified_reason": "Verify is off."}
    assert "Proof not proven Verify is off." in report(run).text


def test_a_missing_promotion_is_told_in_words() -> None:
    run = promoted_run()
    del run["promoted"]
    text = report(run).text
    assert "Not promoted. The service answers all 3 rows" in text
    assert "Promotion not done" in text
    assert "Not promoted: no alias was moved." in text


def test_a_missing_promotion_looks_failed_in_the_strip() -> None:
    run = promoted_run()
    del run["promoted"]
    stops = [stop.get("class") for stop in report(run).all("li")][:6]
    assert stops == ["done", "done", "done", "done", "done", "failed"]


def test_a_run_without_checks_is_not_called_promoted() -> None:
    text = report(promoted_run() | {"checks": [], "prediction": None}).text
    assert "Not checked." in text
    assert "Promoted." not in text


def test_a_check_that_does_not_say_whether_it_passed_has_not() -> None:
    run = promoted_run()
    del run["checks"][0]["passed"]
    assert "Check failed. smoke_test failed." in report(run).text


def test_different_answers_that_no_check_looked_at_are_a_failure() -> None:
    run = promoted_run()
    run["checks"] = run["checks"][:1]
    run["prediction"]["served"] = [0, 1, True]
    text = report(run).text
    assert "Answers differ. The service does not answer as the registry's model predicts." in text
    assert "2 true 2 differs" in text


def test_answers_within_the_tolerance_are_not_called_equal() -> None:
    run = promoted_run()
    run["prediction"]["served"] = run["checks"][1]["evidence"][0]["served"] = [0, 1, 2.0000001]
    text = report(run).text
    assert "within the allowed tolerance of what the registry's model predicts" in text
    assert "2 2.0000001 2 within tolerance" in text


def test_only_the_rows_beyond_the_tolerance_differ_in_a_failed_check() -> None:
    run = failed_run()
    run["checks"][1]["measures"]["mismatches"] = 1.0
    run["checks"][1]["evidence"][1] |= {"served": [0.1, 2, 2], "expected": [0, 1, 2]}
    text = report(run).text
    assert "0 0.1 0 within tolerance" in text
    assert "1 2 1 differs" in text


def test_an_alias_that_was_there_already_did_not_move() -> None:
    run = promoted_run()
    run["promoted"]["changed"] = run["promoted"]["models"][0]["changed"] = False
    assert "The alias champion already pointed to version 4." in report(run).text


@pytest.mark.parametrize("stop", sorted(promoted_run()))
def test_any_part_may_be_missing(stop: str) -> None:
    run = promoted_run()
    del run[stop]
    assert not report(run).unbalanced


@pytest.mark.parametrize("stop", ["bento", "image", "release", "promoted"])
def test_all_but_one_field_of_a_part_may_be_missing(stop: str) -> None:
    run = promoted_run()
    for key, value in run[stop].items():
        assert report(run | {stop: {key: value}}).text


def test_all_but_one_field_of_a_model_may_be_missing() -> None:
    run = promoted_run()
    for key, value in run["models"][0].items():
        assert report(run | {"models": [{key: value}]}).text
    for key, value in run["promoted"]["models"][0].items():
        assert report(run | {"promoted": {"alias": "a", "models": [{key: value}]}}).text


def test_each_of_several_models_is_told() -> None:
    run = promoted_run()
    run["models"].append(run["models"][0] | {"name": "fraud", "version": "2", "served_as": "f"})
    other = {"name": "fraud", "version": "2", "previous": "", "changed": True, "history_tag": "h"}
    run["promoted"]["models"].append(other)
    text = report(run).text
    for fact in (
        "Promoted: wine, version 4 and fraud, version 2",
        "The alias champion moved to version 4 of wine and version 2 of fraud.",
        "champion to version 4 of wine, version 2 of fraud",
        "Name in the bento f",
        "Points to fraud version 2 Pointed before to nothing: this is its first version",
        'model_uris=["models:/wine@champion", "models:/fraud@champion"]',
    ):
        assert fact in text, text


def test_nothing_at_all_is_a_page_too() -> None:
    text = Page(run_report({}, {})).text
    assert "Not checked." in text
    assert "No model was pulled." in text


def test_the_flat_form_of_a_summary_is_read_as_well() -> None:
    run = promoted_run()
    model = run["models"][0]
    model |= {"inputs": model.pop("signature")["inputs"], "metrics": {"accuracy": 1}}
    run["image"] |= {"size": 5 * 1024, "reference": "localhost/wine@sha256:ab", "base_note": "mine"}
    run["bento"] = {"tag": "wine:1"}
    text = report(run).text
    for fact in ("alcohol double input", "Accuracy 1", "5.0 KiB", "Base host: mine.", "wine:1"):
        assert fact in text


def test_what_there_is_to_tell_of_an_image_is_on_the_page() -> None:
    run = promoted_run()
    run["image"]["notes"] = ["not taken over from the base: PORT=8080", "left out: curl"]
    text = report(run).text
    assert "not taken over from the base: PORT=8080." in text
    assert "left out: curl." in text


def test_every_text_is_escaped() -> None:
    run = texts(failed_run())
    run["image"]["base"] = "host"
    for name in ("checks", "seconds"):
        assert run[name]
    run["seconds"][MARKUP] = 1.0
    run["checks"][0]["measures"][MARKUP] = 2.0
    run["models"][0]["metrics"] = {MARKUP: MARKUP}
    html = run_report(run, {MARKUP: f"{MARKUP}: {MARKUP}\nkey: {MARKUP}\n"})
    page = Page(html)
    assert "<script" not in html
    assert not page.all("img")
    assert not [one for _, attributes in page.elements for one in attributes if one[:2] == "on"]
    assert MARKUP in page.text


def test_the_page_loads_nothing_and_links_nowhere() -> None:
    html = run_report(promoted_run(), MANIFESTS)
    loading = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"}
    used = {name for _, attributes in Page(html).elements for name in attributes}
    assert not used & loading
    assert not Page(html).all("script")
    assert not re.search(r"url\(|@import", html)


@pytest.mark.parametrize("run", [promoted_run(), failed_run(), {}])
def test_the_page_is_well_formed(run: dict[str, Any]) -> None:
    page = report(run)
    assert not page.unbalanced
    assert not page.open


def test_headings_do_not_skip_a_level() -> None:
    page = promoted_page()
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_table_head_has_a_scope() -> None:
    heads = promoted_page().all("th")
    assert heads
    assert {head.get("scope") for head in heads} == {"col", "row"}


def test_every_table_has_a_caption() -> None:
    page = report(failed_run())
    assert len(page.all("caption")) == len(page.all("table")) >= 5


def test_the_same_summary_gives_the_same_page() -> None:
    assert run_report(promoted_run(), MANIFESTS) == run_report(promoted_run(), MANIFESTS)


def test_layers_are_in_proportion() -> None:
    run = promoted_run()
    run["image"]["layers"] = [layer("base", 250), layer("dependencies", 750)]
    spans = report(run).all("span")
    styles = [one["style"] for one in spans if (one.get("class") or "").startswith("layer ")]
    assert styles == ["flex-grow:0.25000", "flex-grow:0.75000"]


def test_a_signature_with_very_many_columns_is_folded() -> None:
    run = promoted_run()
    run["models"][0]["signature"]["inputs"] = [
        {"name": f"column_{number}", "type": "double"} for number in range(300)
    ]
    text = report(run).text
    assert "277 fields more" in text
    assert "column_299" in text
