"""A release: an image and its bento, rendered for one target, with all that follows from that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.targets.marks import (
    BENTO,
    IMAGE,
    KIND_LABEL,
    RELEASE_LABEL,
    REVISION,
)
from kfp_bento.runtime.deployments.targets.readiness import Watched

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
    from kfp_bento.runtime.deployments.targets.target import Target


@dataclass(frozen=True)
class Release:
    """One image of one bento, rendered for one target; what `Target.render` gives.

    Attributes:
        target: Who rendered it.
        manifests: Its objects as they were rendered.
        image: Image reference by digest; the tag to build where the cluster builds it, and empty
            for a stored model.
        bento: The facts of the bento inside; None for a stored model.
        options: The rendering options as the user wrote them, plain JSON values.
        completed: Its objects as one apply hands them over, where its target completes them; the
            revision is that of `manifests`.
    """

    target: Target
    manifests: tuple[Manifest, ...]
    image: str = ""
    bento: BentoFacts | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    completed: tuple[Manifest, ...] = field(default=(), compare=False, repr=False)

    @cached_property
    def primary(self) -> ObjectRef:
        """The object whose name is the release's."""
        return ObjectRef.of(self.target.primary(self.manifests))

    @property
    def name(self) -> str:
        """Name of the deployment and of its service."""
        return self.primary.name

    @property
    def namespace(self) -> str:
        """Namespace of all its objects."""
        return self.primary.namespace

    @property
    def bento_tag(self) -> str:
        """`name:version` of the bento; empty where there is none."""
        return self.bento.tag if self.bento else ""

    @property
    def holder(self) -> ObjectRef:
        """The object whose annotations hold the facts of the release."""
        return self.target.holder_of(self.primary)

    @cached_property
    def revision(self) -> str:
        """Digest of the manifests, 16 hex digits, the same for the same content."""
        return _digest(sorted(self.manifests, key=ObjectRef.of))

    @cached_property
    def recorded(self) -> tuple[dict[str, Any], ...]:
        """The manifests as they are applied, with the release's labels and facts.

        Every object gets the labels that a deletion looks for and the revision, the holder also
        image and bento. What several releases may use gets a revision of its own, so that it is
        the same while it need not change: a builder begins anew with every annotation. A primary
        object that is not the holder gets no annotation: KServe hands every one of an
        InferenceService on to its pod templates, where each change would start another rollout
        (kserve, predictor reconciler: only a fixed list of keys is filtered).
        """
        whole = self.completed or self.manifests
        return tuple(_marked(one, self._labels, self._facts(one)) for one in whole)

    @cached_property
    def watched(self) -> Watched:
        """What a wait has to look at."""
        return self.target.watched(self.recorded)

    def url(self, live: Manifest | None = None) -> str:
        """Give the URL inside the cluster.

        Args:
            live: The primary object as the API server has it; KServe writes its address there.
        """
        return self.target.address(self.manifests, live)

    @property
    def canary_url(self) -> str:
        """The URL inside the cluster where a canary alone answers; empty where it has none."""
        return self.target.canary.address(self.manifests) if self.target.canary else ""

    @property
    def _labels(self) -> dict[str, str]:
        return labels_of(self.primary)

    def _facts(self, manifest: Manifest) -> dict[str, str]:
        ref = ObjectRef.of(manifest)
        if ref.kind in [kind.name for kind in self.target.shared]:
            rendered = next(one for one in self.manifests if ObjectRef.of(one) == ref)
            return {REVISION: _digest(rendered)}
        if ref == self.holder:
            told = {REVISION: self.revision, IMAGE: self.image, BENTO: self.bento_tag}
            return {key: value for key, value in told.items() if value}
        return {} if ref == self.primary else {REVISION: self.revision}


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labels_of(primary: ObjectRef) -> dict[str, str]:
    """Give the labels of all objects of the release with this primary object."""
    return {RELEASE_LABEL: primary.name, KIND_LABEL: primary.kind.lower()}


def annotated(manifest: Manifest, annotations: Mapping[str, str]) -> Manifest:
    """Give a manifest with further annotations."""
    metadata = dict(manifest["metadata"])
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**manifest, "metadata": metadata}


def _marked(
    manifest: Manifest, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, Any]:
    found = dict(annotated(manifest, annotations))
    metadata = dict(found["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    return {**found, "metadata": metadata}
