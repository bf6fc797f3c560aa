"""What a deployment leaves behind: the release, and where it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Release:
    """One image of one bento, rendered for or running on one target.

    Attributes:
        target: The kind of target that serves it, for example `bento-deployment`.
        mode: `rendered` (manifests were written and nothing else happened), `applied`
            (a cluster took them) or `local` (the image runs on this machine).
        name: Name of the deployment and of its service.
        namespace: Kubernetes namespace the manifests name.
        revision: Digest of the rendered manifests, the same for the same content.
        url: Root of the HTTP service; empty when the release was only rendered.
        image: Image reference by digest; for an image that the cluster builds what its pods run.
        bento_tag: `name:version` of the bento.
    """

    target: str
    mode: str
    name: str
    namespace: str
    revision: str
    url: str
    image: str
    bento_tag: str

    def to_dict(self) -> dict[str, Any]:
        """Give the release as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Release:
        """Read what `to_dict` gave."""
        return cls(**{field: str(data.get(field, "")) for field in cls.__dataclass_fields__})
