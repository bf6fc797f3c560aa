"""What a scan found out, as a value that the next step can read and people can look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.scan.finding import Finding, Severity

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

NAME = "scan_model"
POLICIES = ("off", "warn", "enforce")
_TOLD = 3


@dataclass(frozen=True)
class ScanReport:
    """One scan of one model.

    Attributes:
        policy: off, warn or enforce.
        findings: What was found, the worst first; `allowed` ones too.
        files: How many files were looked at.
        bytes_: How many bytes these have.
        model_digest: `ModelVersion.digest` of the model.
    """

    policy: str
    findings: tuple[Finding, ...]
    files: int
    bytes_: int
    model_digest: str

    @property
    def counted(self) -> tuple[Finding, ...]:
        """What was found and is not allowed."""
        return tuple(one for one in self.findings if not one.allowed)

    @property
    def passed(self) -> bool:
        """Whether the policy lets the model go on."""
        return self.policy != "enforce" or not self.counted

    @property
    def summary(self) -> str:
        """One sentence for people."""
        if self.policy == "off":
            return "Nobody looked into the model: the policy is off."
        if not self.counted:
            allowed = f" that is not allowed by name ({len(self.findings)} are)"
            return f"{self.files} files hold nothing{allowed if self.findings else ' to tell'}."
        parts = [
            f"{number} {severity.value}"
            for severity in reversed(Severity)
            if (number := sum(one.severity is severity for one in self.counted))
        ]
        worst = "; ".join(f"{one.name} in {one.file}" for one in self.counted[:_TOLD])
        more = ", …" if len(self.counted) > _TOLD else ""
        return f"{self.files} files hold what loading may run: {', '.join(parts)} ({worst}{more})."

    def to_dict(self) -> dict[str, Any]:
        """Give the report as JSON values, in the form of the checks' reports."""
        return {
            "name": NAME,
            "policy": self.policy,
            "passed": self.passed,
            "summary": self.summary,
            "measures": self.measures,
            "evidence": [one.to_dict() for one in self.findings],
            "model_digest": self.model_digest,
            "url": "",
        }

    @property
    def measures(self) -> dict[str, float]:
        """Numbers of what was found, by severity, and of what was looked at."""
        numbers = {
            severity.value: float(sum(one.severity is severity for one in self.counted))
            for severity in Severity
        }
        allowed = len(self.findings) - len(self.counted)
        return {**numbers, "allowed": float(allowed), "files": float(self.files)}

    def verdict(self) -> dict[str, Any]:
        """Give what the next step needs to know, and no more."""
        return {
            "policy": self.policy,
            "passed": self.passed,
            "summary": self.summary,
            "model_digest": self.model_digest,
        }


def load_scanned(artifact: Any, verdict: Mapping[str, Any]) -> list[ModelVersion]:
    """Read the models of an input artifact to go on with, unless a scan did not let them pass.

    Args:
        artifact: What pull_model hands on: its `path`, and `record` of its metadata.
        verdict: What `ScanReport.verdict` gave; empty where nobody scanned.

    Raises:
        InvalidInput: It is no verdict, or one on another model.
        ModelError: The scan did not let it pass, or there is no such model.
    """
    record = str((getattr(artifact, "metadata", None) or {}).get("record", ""))
    return [let_pass(verdict, load_model(Path(artifact.path), record=record))]


def let_pass(verdict: Mapping[str, Any], model: ModelVersion) -> ModelVersion:
    """Give a model to go on with, unless a scan did not let it pass.

    Args:
        verdict: What `ScanReport.verdict` gave; empty where nobody scanned.
        model: The model to go on with.

    Raises:
        InvalidInput: It is no verdict, or one on another model.
        ModelError: The scan did not let it pass.
    """
    if not verdict:
        return model
    passed, digest = verdict.get("passed"), verdict.get("model_digest")
    if not isinstance(passed, bool) or digest != model.digest:
        raise InvalidInput(
            f"The scan's verdict is none on this model ({model.digest}).",
            hint="Hand on the verdict of scan_model for the very model that is built.",
        )
    if not passed:
        raise ModelError(
            f"The scan refused the model: {verdict.get('summary', '')}",
            hint="Its report says what to do about each finding; allow by name what is meant to "
            "be there, or set the policy to warn.",
        )
    return model


def checked_policy(policy: str) -> str:
    """Give a policy that there is.

    Raises:
        InvalidInput: There is none of that name.
    """
    if policy not in POLICIES:
        raise InvalidInput(
            f"The scan policy is {policy!r}.", hint=f"Give one of {', '.join(POLICIES)}."
        )
    return policy
