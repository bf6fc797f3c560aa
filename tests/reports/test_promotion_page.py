"""The end of a run as one page, which Kubeflow shows: models, image, checks, approval, alias."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from parsed_page import Page
from sample_runs import IMAGE_DIGEST, promoted_run

from kfp_bento.runtime.checks import CheckReport, ReleaseReports
from kfp_bento.runtime.deployments import ReleaseFacts
from kfp_bento.runtime.promotion import Promotion
from kfp_bento.runtime.promotion.promotion import PromotedVersion
from kfp_bento.runtime.reports.promotion_page import promotion_page

MARKUP = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
RUN = promoted_run()


def page(text: str = "", *, asked: bool = False) -> str:
    release = ReleaseFacts(
        **{"target": "workload", "mode": "applied", "name": "wine" + text, "namespace": "models"},
        **{"revision": "00ff" * 4, "url": "http://wine.models" + text},
        **{"image": f"registry.example.com/wine@{IMAGE_DIGEST}", "bento_tag": "wine:ff20"},
    )
    found = ReleaseReports(release, tuple(report(one, text) for one in RUN["checks"]))
    approval = CheckReport("approval", True, f"Approved by ann{text}.", {}, (), (), "")
    models = [
        SimpleNamespace(to_dict=lambda one=one: {**one, "uri": text}) for one in RUN["models"]
    ]
    promoted = (PromotedVersion(**{**RUN["promoted"]["models"][0], "previous": "3"}),)
    return promotion_page(
        Promotion("champion", promoted, "The release is the good one now."),
        models,
        found,
        ReleaseReports(release, (approval,)) if asked else None,
    )


def report(data: dict[str, Any], text: str) -> CheckReport:
    return CheckReport(
        **{**data, "summary": data["summary"] + text, "evidence": tuple(data["evidence"])}
    )


@pytest.mark.parametrize(
    "fact",
    [
        "wine, version 4",
        "The alias champion moved from version 3 to version 4.",
        "version 3",
        "wine:ff20",
        "workload",
        "http://wine.models",
        "The release is the good one now.",
        "Approved by ann.",
        "kfp-bento roll-back wine -n models --alias champion",
        *(one["name"].replace("_", " ") for one in RUN["checks"]),
    ],
)
def test_the_page_tells(fact: str) -> None:
    assert fact.lower() in Page(page(asked=True)).text.lower()


def test_the_image_is_named_by_its_digest() -> None:
    titles = [str(one.get("title")) for _, one in Page(page()).elements]
    assert any(IMAGE_DIGEST in one for one in titles)


def test_where_nobody_was_asked_no_approval_is_told() -> None:
    assert "Approv" not in Page(page()).text


def test_what_others_wrote_is_no_markup_in_it() -> None:
    html = page(MARKUP, asked=True)
    assert "<script" not in html
    assert not Page(html).all("img")
    assert MARKUP in Page(html).text


def test_it_loads_nothing_and_is_well_formed() -> None:
    found = Page(page(asked=True))
    assert not found.unbalanced
    assert not found.open
    assert not {"src", "href"} & {name for _, attributes in found.elements for name in attributes}
    assert not re.search(r"url\(|@import", page())
