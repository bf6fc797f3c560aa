"""Summaries in Markdown, for the Kubeflow Pipelines UI and for reading as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .json_text import one_line, readable
from .quantities import counted, human_bytes, measure, short_digest

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.deployments import Release
    from kfp_bento.runtime.images import Image
    from kfp_bento.runtime.promotion import Promotion

_SPECIAL = re.compile(r"([\\`*_\[\]{}|~#])")
_MODES = {
    "rendered": "Rendered only: the manifests were written and no cluster was touched.",
    "applied": "Applied to the cluster, server-side.",
    "local": "Started on this machine; no cluster was touched.",
}


def image_summary(image: Image) -> str:
    """Give an image as Markdown: its name by digest, base, size, and the layers as a table."""
    facts = {
        "Reference": _code(image.reference),
        "Tags": ", ".join(_code(tag) for tag in image.tags),
        "Base": _code(image.base),
        "Platform": _code(image.platform),
        "Size": f"{human_bytes(image.size)} in {counted(len(image.layers), 'layer')}",
        "Location": _code(image.location),
    }
    rows = (
        (
            _text(layer.kind),
            _text(layer.title),
            human_bytes(layer.size),
            _text(layer.origin),
            _code(short_digest(layer.digest)),
        )
        for layer in image.layers
    )
    return _document(
        f"# Image {_text(image.repository)}",
        _facts(facts),
        "## Layers",
        _table(("Kind", "Content", "Size", "Origin", "Digest"), rows, right=frozenset({2})),
    )


def release_summary(release: Release, manifests_dir: Path) -> str:
    """Give a release as Markdown, with its manifests as fenced YAML.

    Args:
        release: What was rendered, applied or started.
        manifests_dir: Holds the manifests, *.yaml.
    """
    facts = {
        "Answers at": _code(release.url),
        "Namespace": _code(release.namespace),
        "Revision": _code(release.revision),
        "Bento": _code(release.bento_tag),
        "Image": _code(release.image),
    }
    manifests = (
        f"### {_text(path.name)}\n\n{_fenced(path.read_text(encoding='utf-8'), 'yaml')}"
        for path in sorted(manifests_dir.glob("*.yaml"))
    )
    return _document(
        f"# Release {_text(release.name)}",
        _MODES.get(release.mode, _text(release.mode)),
        _facts(facts),
        "## Manifests",
        *manifests,
    )


def check_summary(report: CheckReport) -> str:
    """Give a check as Markdown: passed or FAILED, its measures, and the evidence."""
    measures = (measure(name, value) for name, value in report.measures.items())
    differences = [entry for entry in report.evidence if "reason" in entry]
    others = [entry for entry in report.evidence if "reason" not in entry]
    return _document(
        f"# {_text(report.name)}: {'passed' if report.passed else 'FAILED'}",
        _text(report.summary),
        _table(
            ("Measure", "Value"),
            ((_text(label), _text(value)) for label, value in measures),
            right=frozenset({1}),
        ),
        _differences(differences),
        *(_fenced(readable(entry), "json") for entry in others),
        _facts({"Service": _code(report.url), "Model": _code(short_digest(report.model_digest))}),
    )


def promotion_summary(promotion: Promotion) -> str:
    """Give a promotion as Markdown: which version holds the alias, and which one held it."""
    alias, version = _code(promotion.alias), _text(promotion.version)
    name = _text(promotion.name)
    verb = "now points to" if promotion.changed else "already pointed to"
    facts = {
        "Alias": alias,
        "Version": version,
        "Previous version": _text(promotion.previous) or "none",
        "History tag": _code(promotion.history_tag),
    }
    return _document(
        f"# {name} version {version} is {_text(promotion.alias)}",
        f"All checks passed. The alias {alias} {verb} version {version} of {name}.",
        _facts(facts),
    )


def _differences(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    rows = (
        (
            _text(f"{entry.get('request', '')}{entry.get('path', '')}"),
            _code(one_line(entry.get("served"))),
            _code(one_line(entry.get("expected"))),
            _text(str(entry["reason"])),
        )
        for entry in entries
    )
    return "## Differences\n\n" + _table(("Where", "Served", "Expected", "Why"), rows)


def _document(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()
) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    rule = "|".join("---:" if column in right else "---" for column in range(len(headers)))
    return "\n".join([f"| {' | '.join(headers)} |", f"|{rule}|", *lines])


def _text(text: str) -> str:
    """Give text that Markdown and HTML take literally, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """Give text as a code span, or nothing for nothing."""
    if not text:
        return ""
    line = " ".join(text.split()).replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
