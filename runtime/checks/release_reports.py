"""All that was found out about one release on trial: what a promotion asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.checks.check_report import LARGEST_REPORT, CheckReport
from kfp_bento.runtime.deployments import ReleaseFacts
from kfp_bento.runtime.errors import CheckError, DeploymentError
from kfp_bento.runtime.files import load_record, save_record

PURPOSE = "reports"
_AGAIN = "Run the checks again; their step writes it."


@dataclass(frozen=True)
class ReleaseReports:
    """The reports of one release.

    Attributes:
        release: The release.
        reports: One of each check, in the order in which they ran.
        settled: What became of the release because of them, in a sentence; empty where it is still
            on trial.
    """

    release: ReleaseFacts
    reports: tuple[CheckReport, ...]
    settled: str = ""

    @property
    def passed(self) -> bool:
        """Whether there are any, and all passed."""
        return bool(self.reports) and all(report.passed for report in self.reports)

    @property
    def failed(self) -> tuple[CheckReport, ...]:
        """Those that did not pass."""
        return tuple(report for report in self.reports if not report.passed)

    def report(self, name: str) -> CheckReport | None:
        """Give the report of a check."""
        return next((one for one in self.reports if one.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Give them as JSON values."""
        return {
            "release": self.release.to_dict(),
            "reports": [report.to_dict() for report in self.reports],
            "passed": self.passed,
            "settled": self.settled,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReleaseReports:
        """Read what `to_dict` gave; whether they passed is not believed but seen from each.

        Raises:
            CheckError: A field is missing, or is no such thing.
        """
        reports, release, settled = (data.get(key) for key in ("reports", "release", "settled"))
        if not isinstance(reports, Sequence) or not isinstance(release, Mapping):
            raise CheckError("These are no reports of a release.", hint=_AGAIN)
        if not all(isinstance(one, Mapping) for one in reports) or not isinstance(settled, str):
            raise CheckError("These are no reports of a release.", hint=_AGAIN)
        try:
            facts = ReleaseFacts.from_dict(release)
        except DeploymentError as error:
            raise CheckError(error.message, hint=_AGAIN) from error
        return cls(facts, tuple(map(CheckReport.from_dict, reports)), settled)

    def save(self, path: Path) -> str:
        """Write them, sealed as our own, and give the digest for the steps that read them.

        Raises:
            CheckError: They cannot be written.
        """
        return save_record(self.to_dict(), PURPOSE, path, CheckError)

    @classmethod
    def load(cls, path: Path, *, record: str = "") -> ReleaseReports:
        """Read a file that `save` wrote.

        Args:
            path: The file.
            record: `sha256:…` of it, as the step that wrote it says; "" takes a file with our own
                seal only.

        Raises:
            CheckError: There is no such file, or it is not what the step wrote.
        """
        facts = load_record(
            path,
            PURPOSE,
            told=record,
            largest=LARGEST_REPORT,
            absent="There are no reports",
            changed=f"The reports in {path} are not what the checks wrote: somebody changed them, "
            "or wrote them elsewhere.",
            error=CheckError,
            hint=_AGAIN,
            claims=False,
        )
        return cls.from_dict(facts)


def given_report(artifact: Any) -> tuple[CheckReport, ...]:
    """Read the report of an optional input artifact; none where there is no artifact."""
    return () if artifact is None else (CheckReport.load(Path(artifact.path)),)


def load_given_reports(artifact: Any) -> ReleaseReports:
    """Read the reports of an input artifact: its `path`, and `record` of its metadata."""
    record = str((getattr(artifact, "metadata", None) or {}).get("record", ""))
    return ReleaseReports.load(Path(artifact.path), record=record)
