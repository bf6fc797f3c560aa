"""What a scan found out, as a value that the next step can read and people can look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import load_given_models
from kfp_bento.runtime.scan.finding import Finding, Severity

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

NAME = "scan_model"
POLICIES = ("off", "warn", "enforce")
_TOLD = 3


@dataclass(frozen=True)
class ModelScan:
    """One scan of one model.

    Attributes:
        policy: off, warn or enforce.
        findings: What was found, the worst first; `allowed` ones too.
        files: How many files were looked at.
        bytes_: How many bytes these have.
        model: The model's name in the bento.
        digest: `ModelVersion.digest` of the model.
    """

    policy: str
    findings: tuple[Finding, ...]
    files: int
    bytes_: int
    model: str
    digest: str

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

    @property
    def measures(self) -> dict[str, float]:
        """Numbers of what was found, by severity, and of what was looked at."""
        numbers = {
            severity.value: float(sum(one.severity is severity for one in self.counted))
            for severity in Severity
        }
        allowed = len(self.findings) - len(self.counted)
        return {**numbers, "allowed": float(allowed), "files": float(self.files)}


@dataclass(frozen=True)
class ScanReport:
    """The scans of all models that belong together.

    Attributes:
        policy: off, warn or enforce.
        scans: One of each model.
    """

    policy: str
    scans: tuple[ModelScan, ...]

    @property
    def passed(self) -> bool:
        """Whether the policy lets all models go on."""
        return all(one.passed for one in self.scans)

    @property
    def summary(self) -> str:
        """One sentence for people, with several models one for each."""
        if len(self.scans) == 1:
            return self.scans[0].summary
        return " ".join(f"{one.model}: {one.summary}" for one in self.scans)

    @property
    def measures(self) -> dict[str, float]:
        """The numbers of all models together."""
        names = self.scans[0].measures if self.scans else {}
        return {name: sum(one.measures[name] for one in self.scans) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Give the report as JSON values, in the form of the checks' reports."""
        return {
            "name": NAME,
            "policy": self.policy,
            "passed": self.passed,
            "summary": self.summary,
            "measures": self.measures,
            "evidence": [
                {"model": one.model, **found.to_dict()}
                for one in self.scans
                for found in one.findings
            ],
            "model_digests": [one.digest for one in self.scans],
            "url": "",
        }

    def verdict(self) -> dict[str, Any]:
        """Give what the next step needs to know of each model, by its digest, and no more."""
        return {
            "policy": self.policy,
            "models": {
                one.digest: {"passed": one.passed, "summary": f"{one.model}: {one.summary}"}
                for one in self.scans
            },
        }


def load_scanned(artifact: Any, verdict: Mapping[str, Any]) -> list[ModelVersion]:
    """Read the models of an input artifact to go on with, unless a scan did not let them pass.

    Args:
        artifact: What pull_model hands on; see `load_given_models`.
        verdict: What `ScanReport.verdict` gave; empty where nobody scanned.

    Raises:
        InvalidInput: It is no verdict, or one on other models.
        ModelError: The scan did not let one pass, or a model cannot be read.
    """
    models = load_given_models(artifact)
    if verdict:
        for model in models:
            _require_passed(verdict, model)
    return models


def _require_passed(verdict: Mapping[str, Any], model: ModelVersion) -> None:
    by_digest = verdict.get("models")
    found = by_digest.get(model.digest) if isinstance(by_digest, Mapping) else None
    passed = found.get("passed") if isinstance(found, Mapping) else None
    if not isinstance(passed, bool) or found is None:
        raise InvalidInput(
            f"The scan's verdict is none on the model {model.name_in_bento} ({model.digest}).",
            hint="Hand on the verdict of scan_model for the very models that are built.",
        )
    if not passed:
        raise ModelError(
            f"The scan refused the model {found.get('summary', '')}",
            hint="Its report says what to do about each finding; allow by name what is meant to "
            "be there, or set the policy to warn.",
        )


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
