"""The report of a whole run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import plain_text
from kfp_bento.runtime.reports import wording
from kfp_bento.runtime.reports.check_view import MOST_ROWS, checked, loose_rows
from kfp_bento.runtime.reports.json_text import one_line, readable
from kfp_bento.runtime.reports.signature import signature_fields
from kfp_bento.runtime.reports.story import Facts, Story, part, sentence

TEMPLATES = Path(__file__).with_name("templates")
_MOST_FIELDS = 24
_PARTS = ("scan", "bento", "image", "release", "promoted")
_YAML_KEY = re.compile(r"^(\s*(?:- )*)([^\s#:'\"-][^:]*|\"[^\"]*\"|'[^']*')(:(?:\s.*)?)$")


def run_report(summary: Facts, manifests: Mapping[str, str]) -> str:
    """Give the report of a run as one HTML page.

    The page loads nothing and runs no script, so it reads the same from a disk, in a mail and in
    the sandboxed frame of the Kubeflow Pipelines UI. The same arguments give the same page.

    Args:
        summary: What summary.json of a run says. Any part may be missing: the page shows that it
            is, and does not call such a run promoted.
        manifests: File name to YAML text.
    """
    story = Story(summary)
    return str(
        templates()
        .get_template("report.html")
        .render(
            run=story,
            verdict=story.verdict,
            models=shown_models(story),
            checked=[checked(check) for check in story.checks],
            loose_rows=loose_rows(story),
            manifests=manifests,
            **{name: part(summary, name) for name in _PARTS},
        )
    )


def shown_models(story: Story) -> list[dict[str, Any]]:
    """Give the models of a run as model.html shows them."""
    return [
        {
            "facts": model,
            "metrics": wording.measures(part(model, "metrics")),
            "signature": signature_fields(model.get("signature") or model),
        }
        for model in story.models
    ]


def templates() -> Any:
    """Give the jinja2 environment of all pages, which escapes whatever is not markup of theirs."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=wording.human_bytes,
        seconds=wording.human_seconds,
        counted=wording.counted,
        short=wording.shorten_digests,
        json=one_line,
        readable=readable,
        sentence=sentence,
        arguments=_arguments,
        yaml_keys=_yaml_keys,
    )
    environment.globals.update(MOST_FIELDS=_MOST_FIELDS, MOST_ROWS=MOST_ROWS)
    return environment


def _shown(value: Any) -> Any:
    """Give what a template shows as plain text, unless it is markup of the template's own."""
    if hasattr(value, "__html__"):
        return value
    return "" if value is None else plain_text(str(value))


def _arguments(values: Iterable[Any]) -> str:
    """Give texts as the arguments of a call in Python."""
    return ", ".join(repr(str(value)) for value in values)


def _yaml_keys(text: str) -> Iterator[tuple[str, str, str]]:
    """Split each line of YAML into its indent, its key and the rest."""
    for line in text.rstrip().splitlines():
        found = _YAML_KEY.match(line)
        yield (found[1], found[2], found[3]) if found else ("", "", line)
