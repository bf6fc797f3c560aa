"""Requests to a generated service, and what came back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

JSON = {"content-type": "application/json"}


@dataclass
class Conversation:
    """What was answered, and what stands in the log."""

    answers: list[dict[str, Any]]
    log: str
    error: str = ""

    @property
    def statuses(self) -> list[int]:
        return [answer["status"] for answer in self.answers]

    def bodies(self) -> list[Any]:
        return [json.loads(answer["text"]) for answer in self.answers]


@dataclass
class Ask:
    """One request; a body that is no text is sent as JSON."""

    body: Any = ""
    path: str = "/predict"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    chunks: int = 0

    def as_job(self) -> dict[str, Any]:
        body = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return {**vars(self), "body": body}


@dataclass
class Write:
    """A file that changes between two requests."""

    file: Path
    content: str

    def as_job(self) -> dict[str, Any]:
        return {"write": str(self.file), "content": self.content}
