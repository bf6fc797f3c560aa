"""The scan of a model: every file, by content, without importing or running anything of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kfp_bento.runtime.files import open_plain_file
from kfp_bento.runtime.models import model_files, read_flavors
from kfp_bento.runtime.scan.allowlist import families
from kfp_bento.runtime.scan.contents import Contents
from kfp_bento.runtime.scan.finding import Finding, Severity
from kfp_bento.runtime.scan.layout import code_findings, option_findings, own_modules
from kfp_bento.runtime.scan.limits import Budget, LimitReached, Limits
from kfp_bento.runtime.scan.report import ModelScan, ScanReport, checked_policy
from kfp_bento.runtime.scan.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.models import ModelVersion

_ORDER = {severity: -number for number, severity in enumerate(Severity)}
_MOST_FINDINGS = 1_000


def scan_models(
    models: Sequence[ModelVersion], *, policy: str = "warn", allow: Iterable[str] = ()
) -> ScanReport:
    """Look what loading some models would run, without loading them; see `scan_model`."""
    allowed = frozenset(allow)
    return ScanReport(
        checked_policy(policy),
        tuple(scan_model(model, policy=policy, allow=allowed) for model in models),
    )


def scan_model(
    model: ModelVersion,
    *,
    policy: str = "warn",
    allow: Iterable[str] = (),
    limits: Limits | None = None,
) -> ModelScan:
    """Look what loading a model would run, without loading it.

    Args:
        model: The model.
        policy: off looks at nothing, warn reports, enforce also lets nothing pass that was found.
        allow: Names of findings, exactly as they are reported, that do not count.
        limits: How much is looked at; what is left out is a finding.

    Returns:
        What was found. A model that does not pass is a report, not an error.

    Raises:
        InvalidInput: There is no such policy.
        ModelError: The model's MLmodel file cannot be read, or its folder holds what is no file.
    """
    checked_policy(policy)
    if policy == "off":
        return ModelScan(policy, (), 0, 0, model.name_in_bento, model.digest)
    allowed = frozenset(allow)
    # All files: also those that are no part of the model's digest can be loaded by name.
    files = model_files(model.directory, leave_out=frozenset())
    found = _findings(model, files, Budget(limits or Limits()))
    marked = (replace(one, allowed=one.name in allowed) for one in found)
    ordered = sorted(
        marked, key=lambda one: (one.allowed, _ORDER[one.severity], one.file, one.name)
    )
    size = sum(path.stat().st_size for path in files.values())
    return ModelScan(policy, tuple(ordered), len(files), size, model.name_in_bento, model.digest)


def _findings(model: ModelVersion, files: dict[str, Path], budget: Budget) -> list[Finding]:
    flavors = read_flavors(model.directory)
    findings: dict[tuple[str, str], Finding] = {}

    def found(one: Finding) -> None:
        if len(findings) >= _MOST_FINDINGS:
            raise LimitReached(f"there are more than {_MOST_FINDINGS} findings")
        findings.setdefault((one.file, one.name), one)

    paths = list(files)
    contents = Contents(families(flavors), own_modules(paths, flavors), budget, found)
    try:
        for one in (*option_findings(flavors), *code_findings(paths)):
            found(one)
        for path, file in files.items():
            budget.take_entry()
            with open_plain_file(file) as opened:
                contents.look(path, Source.of(opened))
    except LimitReached as limit:
        one = _unfinished(".", str(limit))
        findings[one.file, one.name] = one
    return list(findings.values())


def _unfinished(path: str, why: str) -> Finding:
    words = f"The scan did not come to its end: {why}."
    advice = "Scan it with larger limits, or log a smaller model."
    return Finding(Severity.UNKNOWN, path, "the rest", words, advice)
