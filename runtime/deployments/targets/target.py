"""What every deployment target offers, so that one set of operations serves them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.live_shapes import Live
from kfp_bento.runtime.deployments.kube.shapes import Shape
from kfp_bento.runtime.deployments.options.options import Options
from kfp_bento.runtime.deployments.targets.readiness import Watched
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

Manifest = dict[str, Any]


@dataclass(frozen=True, order=True)
class Kind:
    """A kind of object: its API version, its name, and its plural in paths and in rights."""

    api_version: str
    name: str
    plural: str

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]


CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
BENTO = Kind("resources.yatai.ai/v1alpha1", "Bento", "bentoes")
BENTO_REQUEST_KIND = Kind("resources.yatai.ai/v1alpha1", "BentoRequest", "bentorequests")
BENTO_DEPLOYMENT_KIND = Kind("serving.yatai.ai/v2alpha1", "BentoDeployment", "bentodeployments")
INFERENCE_SERVICE_KIND = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")

OPTIONAL = frozenset({POLICY})
"""Kinds that only an option brings: who may not list them has never applied one."""

CONTROLLED = (AUTOSCALER, DEPLOYMENT, SERVICE)
"""What controllers make of a release."""


@dataclass(frozen=True)
class Target:
    """One way to serve an image on a cluster.

    All functions are pure.

    Attributes:
        kind: Its name, for example `workload`.
        options_type: The model of its rendering options.
        renderer: Gives the manifests of an image and its bento; raises `InvalidInput` for
            whatever would be ignored.
        kinds: What it renders or keeps beside it: the primary one first, whose name is the
            release's, then the one that always goes with it, then what options bring.
        address: Gives the URL inside the cluster from the manifests, and from the live primary
            object where only its status tells.
        watcher: Gives what a wait has to look at.
        rendered_shapes: Gives, by the release's name and manifests of it, a closed shape for each
            object that the renderer may give, by kind and name: what a roll back may apply, and
            what a deletion may remove.
        live_shapes: What is read of live objects that only this target has, by kind.
        leftovers: Further kinds that an earlier revision of a release may have left.
        owned: Kinds that its controller makes and may never remove.
        stale_owned: Gives those among live ones that it should have removed, by the manifests.
        is_in_use: Says whether a release whose primary object is among these needs an object too.
        needs_bento: Whether nothing can be rendered without a bento.
    """

    kind: str
    options_type: type[Options]
    renderer: Callable[[str, Any, Any], tuple[Manifest, ...]]
    kinds: tuple[Kind, ...]
    address: Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any] | None], str]
    watcher: Callable[[Sequence[Mapping[str, Any]]], Watched]
    rendered_shapes: Callable[[str, Sequence[Mapping[str, Any]]], Mapping[tuple[str, str], Shape]]
    live_shapes: Mapping[str, type[Live]] = field(default_factory=dict)
    leftovers: tuple[Kind, ...] = ()
    owned: tuple[Kind, ...] = ()
    stale_owned: Callable[
        [Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], list[Mapping[str, Any]]
    ] = lambda manifests, owned: []
    is_in_use: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], bool] | None = None
    needs_bento: bool = True

    @property
    def primary_kind(self) -> Kind:
        """The kind of the object whose name is the release's."""
        return self.kinds[0]

    @property
    def essential_kinds(self) -> tuple[Kind, ...]:
        """The kinds that no rendering lacks."""
        return self.kinds[:2]

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
        return next(one for one in manifests if one["kind"] == self.primary_kind.name)

    def url(
        self, manifests: Sequence[Mapping[str, Any]], live: Mapping[str, Any] | None = None
    ) -> str:
        """Give the URL inside the cluster.

        Args:
            manifests: What was rendered.
            live: The primary object as the API server has it; KServe writes its address there.
        """
        return self.address(manifests, live)

    def watched(self, manifests: Sequence[Mapping[str, Any]]) -> Watched:
        """Give what a wait has to look at, by the manifests or the live objects they became."""
        return self.watcher(manifests)


def first_of_kind(objects: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """Give the first object of a kind."""
    return next((one for one in objects if one.get("kind") == kind), None)
