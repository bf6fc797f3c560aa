"""What a scan finds: where, what, why it matters and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kfp_bento.runtime.errors import plain_text

_LONGEST = 500


class Severity(StrEnum):
    """How bad a finding is."""

    CODE = "code"
    """It brings code of its own, by design: whoever loads it runs that."""
    UNKNOWN = "unknown"
    """It is on no list of what is known to be harmless, or it could not be looked at."""
    DANGEROUS = "dangerous"
    """It is known to run programs, or to reach files, the network or the loading process."""


@dataclass(frozen=True)
class Finding:
    """One thing that happens when a model is loaded, or may happen.

    Attributes:
        severity: How bad it is.
        file: The file in the model; what is packed in it stands behind `!`.
        name: What was found; the very text that `allow` takes.
        why: Why it matters.
        advice: What to do.
        allowed: Whether the user allowed it.
    """

    severity: Severity
    file: str
    name: str
    why: str
    advice: str
    allowed: bool = False

    def __post_init__(self) -> None:
        # Whoever made the model chose these texts; they are shown in many places.
        for field in ("file", "name", "why", "advice"):
            text = plain_text(getattr(self, field))
            object.__setattr__(
                self, field, text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give the finding as JSON values."""
        return {
            "severity": self.severity.value,
            "file": self.file,
            "name": self.name,
            "why": self.why,
            "advice": self.advice,
            "allowed": self.allowed,
        }
