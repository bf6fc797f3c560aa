"""What every deployment target offers, so that one set of operations serves them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput

from .parameters import Options

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

Manifest = dict[str, Any]

POD_REVISION = "kfp-bento/pod-revision"
"""Annotation of pod templates: a digest of all that makes one pod differ from another."""


@dataclass(frozen=True)
class Workload:
    """One Deployment that must serve the new revision, and how its pods are recognised.

    Attributes:
        namespace: Where it is.
        name: The Deployment's name; "" where its controller chooses one (Knative), and then it is
            the one that `labels` select and whose pod template has `template_annotations`.
        labels: Select the Deployment's pods (and the Deployment itself where `name` is empty).
        container: The container that runs the image; "" where a controller names it.
        image: The image by digest that this container must have; "" where a controller
            chooses it.
        template_annotations: What the pod template of the new revision has, and no other.
        template_labels: The same for labels.
        minimum: Pods that must be available: 0 where scaling to zero is allowed.
        owned: Whether a controller makes it; otherwise it is one of the manifests.
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    container: str
    image: str
    template_annotations: Mapping[str, str] = field(default_factory=dict)
    template_labels: Mapping[str, str] = field(default_factory=dict)
    minimum: int = 1
    owned: bool = True


@dataclass(frozen=True)
class Problem:
    """What the conditions of a live object have against the release.

    Attributes:
        subject: Kind and name of the object.
        reason: One word, the controller's own where it gives one.
        message: The sentence behind it.
        final: Whether waiting cannot help. Otherwise it is what the wait still waits for, or an
            error that its controller retries.
    """

    subject: str
    reason: str
    message: str
    final: bool = False


@dataclass(frozen=True)
class Target:
    """One way to serve an image on a cluster.

    All functions are pure.

    Attributes:
        kind: Its name, for example `workload`.
        options_type: The dataclass of its rendering options.
        renderer: Gives the manifests of an image and its bento; the first raises `InvalidInput`
            for whatever would be ignored.
        primary_kind: Kind of the manifest whose name is the release's.
        address: Gives the URL inside the cluster from the manifests, and from the live primary
            object where only its status tells.
        watcher: Gives the Deployments that must serve the new revision.
        inspector: Gives what the conditions of live objects have against the release.
        needs_bento: Whether nothing can be rendered without a bento.
    """

    kind: str
    options_type: type[Options]
    renderer: Callable[[str, Any, Any], tuple[Manifest, ...]]
    primary_kind: str
    address: Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any] | None], str]
    watcher: Callable[[Sequence[Mapping[str, Any]]], tuple[Workload, ...]]
    inspector: Callable[[Sequence[Mapping[str, Any]]], tuple[Problem, ...]]
    needs_bento: bool = True

    def options(self, parameters: Mapping[str, Any] | None = None) -> Options:
        """Give typed options out of a component's or a command's parameters.

        Raises:
            InvalidInput: An unknown name or a value of the wrong type, by its name.
        """
        return self.options_type.of(self.kind, parameters or {})

    def render(
        self,
        image: str,
        bento: Bento | None,
        options: Options | Mapping[str, Any] | None = None,
    ) -> tuple[Manifest, ...]:
        """Give the manifests; the same arguments give the same manifests.

        Args:
            image: Image by digest; for a BentoRequest the tag to build, and "" where a stored
                model is served.
            bento: The bento inside; None where a stored model is served.
            options: What `options` gave, or the parameters that it takes.

        Raises:
            InvalidInput: An argument that cannot be honoured; the message names the field.
        """
        chosen = options if isinstance(options, Options) else self.options(options)
        if not isinstance(chosen, self.options_type):
            raise TypeError(f"{self.kind} takes {self.options_type.__name__}")
        if bento is None and self.needs_bento:
            raise InvalidInput(
                f"bento: the target {self.kind} serves bentos only.", hint="Give the bento."
            )
        return self.renderer(image, bento, chosen)

    def primary(self, manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Give the manifest whose name is the release's, and that carries its record."""
        return next(one for one in manifests if one["kind"] == self.primary_kind)

    def url(
        self, manifests: Sequence[Mapping[str, Any]], live: Mapping[str, Any] | None = None
    ) -> str:
        """Give the URL inside the cluster.

        Args:
            manifests: What was rendered.
            live: The primary object as the API server has it; KServe writes its address there.
        """
        return self.address(manifests, live)

    def watched(self, manifests: Sequence[Mapping[str, Any]]) -> tuple[Workload, ...]:
        """Give the Deployments that must serve the new revision."""
        return self.watcher(manifests)

    def problems(self, objects: Sequence[Mapping[str, Any]]) -> tuple[Problem, ...]:
        """Give what the conditions of live objects have against the release.

        Args:
            objects: The manifests' objects as the API server has them, with status.

        Returns:
            Nothing when the conditions have no objection. That alone is no readiness: the
            Deployments of `watched` must serve.
        """
        return self.inspector(objects)


def condition(live: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Give one condition of a live object, None where it has none of that type."""
    conditions = (live.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), None)


def subject_of(live: Mapping[str, Any]) -> str:
    """Give kind and name, for messages."""
    return f"{live.get('kind')} {(live.get('metadata') or {}).get('name')}"


def first_of_kind(objects: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """Give the first object of a kind."""
    return next((one for one in objects if one.get("kind") == kind), None)
