"""What a check found out, as a value that promotion can read and people can look at."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import CheckError, plain_text
from kfp_bento.runtime.files import parse_json, read_small_file, reading, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_REPORT = 256 << 20
"""Bytes; a report holds the first rows of requests and answers, which may be pictures."""


@dataclass(frozen=True)
class CheckReport:
    """One check of one served model, carried out to the end.

    Attributes:
        name: Which check, such as `smoke_test` or `compare_predictions`.
        passed: Whether what was checked holds.
        summary: One sentence for people.
        measures: Numbers by name; the unit is in the name. Always finite.
        evidence: Requests, answers and differences worth looking at, as JSON values.
        model_digests: `ModelVersion.digest` of the models the service was checked against.
        url: Root of the service that was checked.
        image: The image that served, by digest; empty where a bare URL was checked.
        release: `ReleaseFacts.title` of the release that was checked; empty as well then.
    """

    name: str
    passed: bool
    summary: str
    measures: dict[str, float]
    evidence: tuple[dict[str, Any], ...]
    model_digests: tuple[str, ...]
    url: str
    image: str = ""
    release: str = ""

    def __post_init__(self) -> None:
        # It quotes columns and answers of whoever made the model, and is shown in many places.
        object.__setattr__(self, "summary", plain_text(self.summary))

    def to_dict(self) -> dict[str, Any]:
        """Give the report as JSON values; numbers that JSON lacks become strings."""
        return {
            "name": self.name,
            "passed": self.passed,
            "summary": self.summary,
            "measures": dict(self.measures),
            "evidence": [json_value(entry) for entry in self.evidence],
            "model_digests": list(self.model_digests),
            "url": self.url,
            "image": self.image,
            "release": self.release,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckReport:
        """Read what `to_dict` gave.

        Raises:
            CheckError: A field is missing or is no such thing; `passed` is never guessed.
        """
        try:
            if not isinstance(data["passed"], bool):
                raise TypeError("passed is neither true nor false")
            measures = {str(key): float(value) for key, value in data["measures"].items()}
            if not all(map(math.isfinite, measures.values())):
                raise ValueError("a measure is not finite")
            texts = {name: data[name] for name in ("name", "summary", "url")}
            texts |= {name: data.get(name, "") for name in ("image", "release")}
            digests = data["model_digests"]
            if not isinstance(digests, list):
                raise TypeError("model_digests is no list")
            if not all(isinstance(text, str) for text in (*texts.values(), *digests)):
                raise TypeError("a text is none")
            return cls(
                **texts,
                passed=data["passed"],
                measures=measures,
                evidence=tuple(dict(entry) for entry in data["evidence"]),
                model_digests=tuple(digests),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckError(
                f"This is no check report: {error!r}.", hint="Run the check again."
            ) from error

    def save(self, path: Path) -> None:
        """Write the report as JSON, in one step."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        try:
            write_whole(text.encode("ascii"), path)
        except OSError as error:
            raise CheckError(
                f"The report cannot be written to {path}: {error.strerror or error}."
            ) from error

    @classmethod
    def load(cls, path: Path) -> CheckReport:
        """Read a report that `save` wrote.

        Raises:
            CheckError: There is no such file, or it holds no report.
        """
        problem = f"There is no check report in {path}"
        with reading(problem, CheckError, hint="Run the check again."):
            return cls.from_dict(parse_json(read_small_file(Path(path), LARGEST_REPORT)))


def json_value(value: Any) -> Any:
    """Give a value that strict JSON can hold: `NaN` and infinities become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value
