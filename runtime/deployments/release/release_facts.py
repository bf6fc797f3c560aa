"""A release as one step hands it on to the next: where it is, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.files import JSON_LIMIT, load_record, save_record

PURPOSE = "deployed"
_LONGEST_TEXT = 4096
_AGAIN = "Deploy again; the step writes it."


@dataclass(frozen=True)
class ReleaseFacts:
    """A release on trial, or one that was only rendered.

    Attributes:
        target: Kind of target, one of `TARGETS`.
        mode: `applied`, `local` or `rendered`.
        name: Name of the release.
        namespace: Its namespace.
        revision: Digest of its manifests, 16 hex digits.
        url: Root of the HTTP service; empty when it was only rendered.
        image: Image reference by digest; empty for a stored model.
        bento_tag: `name:version` of the bento; empty where there is none.
        failure: Why it does not serve, in a sentence; empty where it does or nobody waited.
        context: Context of the kubeconfig that leads to its cluster; empty for the current one,
            and in pods.
    """

    target: str
    mode: str
    name: str
    namespace: str
    revision: str
    url: str = ""
    image: str = ""
    bento_tag: str = ""
    failure: str = ""
    context: str = ""

    @property
    def title(self) -> str:
        """Target, place and revision, as people and reports name it."""
        return f"{self.target} {self.namespace}/{self.name} at revision {self.revision}"

    def to_dict(self) -> dict[str, str]:
        """Give the facts as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReleaseFacts:
        """Read what `to_dict` gave.

        Raises:
            DeploymentError: A field is missing, or is no such text.
        """
        told = {one.name: data.get(one.name) for one in fields(cls)}
        for name, value in told.items():
            if not isinstance(value, str) or len(value) > _LONGEST_TEXT or "\0" in value:
                raise DeploymentError(f"This is no release: {name} is no text.", hint=_AGAIN)
        return cls(**{name: str(value) for name, value in told.items()})

    def save(self, path: Path) -> str:
        """Write the facts, sealed as our own, and give the digest for the steps that read them."""
        return save_record(self.to_dict(), PURPOSE, path, DeploymentError)

    @classmethod
    def load(cls, path: Path, *, record: str = "") -> ReleaseFacts:
        """Read a file that `save` wrote.

        Args:
            path: The file.
            record: `sha256:…` of it, as the step that wrote it says; "" takes any.

        Raises:
            DeploymentError: There is no such file, or it is not what the step wrote.
        """
        facts = load_record(
            path,
            PURPOSE,
            told=record,
            largest=JSON_LIMIT,
            absent="There is no release",
            changed=f"The release in {path} is not what the deployment wrote: somebody changed it.",
            error=DeploymentError,
            hint=_AGAIN,
        )
        return cls.from_dict(facts)


def load_given_release(artifact: Any) -> ReleaseFacts:
    """Read the release of an input artifact: its `path`, and `record` of its metadata."""
    record = str((getattr(artifact, "metadata", None) or {}).get("record", ""))
    return ReleaseFacts.load(Path(artifact.path), record=record)
