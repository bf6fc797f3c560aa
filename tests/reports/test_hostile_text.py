"""Text of others in Markdown: whatever it says, the document keeps the shape that we gave it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt
from sample_bentos import IMAGE, make_bento
from sample_loads import FAILURE, held, make_load
from sample_runs import failed_run, promoted_run

from kfp_bento.runtime import reports
from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.deployments import TARGETS, Deployed, ObjectRef, ReleaseDiff
from kfp_bento.runtime.deployments.release.diff import ObjectDiff
from kfp_bento.runtime.images import Image
from kfp_bento.runtime.promotion import Promotion
from kfp_bento.runtime.promotion.promotion import PromotedVersion
from kfp_bento.runtime.reports.releases import change_summary
from kfp_bento.runtime.reports.summaries import check_summary, promotion_summary

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](https://evil.example/x)",
    "![shown](https://evil.example/pixel.png)",
    "<https://evil.example/x>",
    "[a]: https://evil.example 'title'",
    "| one | more |",
    "a\n\n# A heading\n\n- a list",
    "```\n<script>alert(1)</script>\n```",
    "``` ` `` <b>x</b>",
    "~~~\n<iframe src=//evil.example>",
    "&lt;script&gt; &#60;script&#62;",
    "\\<b>\\`<b>",
    "</code></td></table><script>",
    "*a* **b** _c_ ~~d~~ a\\",
    "1. a\n2. b",
    "> quoted",
    "\u2028# A heading\u2029| x |\x0b# y\x0c",
    "$$\\href{javascript:alert(1)}{x}$$",
    "\ud800 <b>",
)
PLAIN = "word"


class Shape(HTMLParser):
    """The elements of a page in their order, with their attributes; texts do not count."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[Any, ...]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.elements.append((tag, tuple(sorted(attrs))))


def shape(markdown: str) -> list[tuple[str, tuple[Any, ...]]]:
    rendered = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table")
    return Shape(rendered.render(markdown)).elements


def filled(value: Any, text: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """One copy of a value for each text in it, with that text replaced; and where it was."""
    if isinstance(value, str):
        yield "/".join(path), text
    elif isinstance(value, dict):
        for key in value:
            for where, changed in filled(value[key], text, (*path, str(key))):
                yield where, {**value, key: changed}
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for where, changed in filled(item, text, (*path, str(number))):
                yield where, [*value[:number], changed, *value[number + 1 :]]


def image(data: dict[str, Any]) -> str:
    return reports.image_summary(Image.from_dict(data))


def check(data: dict[str, Any]) -> str:
    return check_summary(CheckReport(**{**data, "evidence": tuple(data["evidence"])}))


def load(data: dict[str, Any]) -> str:
    return reports.load_summary(CheckReport(**{**data, "evidence": tuple(data["evidence"])}))


def promotion(data: dict[str, Any]) -> str:
    models = tuple(PromotedVersion(**model) for model in data["models"])
    return promotion_summary(Promotion(data["alias"], models))


def change(data: dict[str, Any]) -> str:
    found = ReleaseDiff((ObjectDiff(ObjectRef(*data["ref"]), "changed", data["text"]),))
    release = TARGETS["workload"].render(IMAGE, make_bento())
    return change_summary(Deployed(release, "applied", diff=found))


CHANGE = {"ref": ["apps/v1", "Deployment", "models", "wine"], "text": "-a\n+b\n"}
CHECK = {**failed_run()["checks"][1], "summary": "Two values differ."}
LOADED = [FAILURE, {"limits": [held("p95_ms", 50.0, 14.2)]}, {"asked": {"payloads": "golden"}}]
LOAD = {**vars(make_load()), "evidence": LOADED, "model_digests": []}
DOCUMENTS: list[tuple[Callable[[dict[str, Any]], str], dict[str, Any]]] = [
    (image, promoted_run()["image"]),
    (check, CHECK),
    (load, LOAD),
    (promotion, promoted_run()["promoted"]),
    (change, CHANGE),
]


@pytest.mark.parametrize(
    ("write", "data"), DOCUMENTS, ids=lambda part: getattr(part, "__name__", "")
)
def test_no_text_changes_the_shape_of_a_document(
    write: Callable[[dict[str, Any]], str], data: dict[str, Any]
) -> None:
    places = [where for where, _ in filled(data, PLAIN)]
    assert len(places) >= len(dataclasses.fields(ObjectRef))
    for hostile in HOSTILE:
        for (where, harmless), (_, harmful) in zip(
            filled(data, PLAIN), filled(data, hostile), strict=True
        ):
            try:
                text = write(harmful)
            except (ValueError, KeyError):  # refused: no document, no harm
                continue
            assert shape(text) == shape(write(harmless)), (where, hostile)
