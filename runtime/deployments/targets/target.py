"""What every deployment target offers, so that one set of operations serves them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import WHERE_EXPECTED
from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.live_shapes import Live
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
from kfp_bento.runtime.deployments.options.options import Options
from kfp_bento.runtime.deployments.targets.marks import IMAGE, annotations_of, revision_on
from kfp_bento.runtime.deployments.targets.readiness import Watched
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento


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
POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")

OPTIONAL = frozenset({POLICY})
"""Kinds that only an option brings: who may not list them has never applied one."""

CONTROLLED = (AUTOSCALER, DEPLOYMENT, SERVICE)
"""What controllers make of a release."""

REQUEST_LOG = "KFP_BENTO_REQUEST_LOG"
"""What the variables of the log of requests begin with."""

Objects = Sequence[Manifest]
"""The objects of one release, rendered, or live with the primary one first."""


@dataclass(frozen=True)
class Canary:
    """How a share of requests goes to a new image while the last good one serves the rest.

    Attributes:
        options: Gives the rendering options, by percent of the requests and the last good image.
        address: Gives the URL where the new image alone answers, from the objects; "" where it
            has none.
    """

    options: Callable[[int, str], Mapping[str, Any]]
    address: Callable[[Objects], str] = lambda objects: ""


@dataclass(frozen=True)
class Target:
    """One way to serve an image on a cluster, and all that is known about that way.

    All functions are pure but `builder` and `completer`, which ask the cluster.

    Attributes:
        kind: Its name, for example `workload`.
        options_type: The model of its rendering options.
        renderer: Gives the manifests of an image and its bento; raises `InvalidInput` for
            whatever would be ignored.
        kinds: What it renders: the primary kind first, whose name is the release's.
        address: Gives the URL inside the cluster from the objects, and from the live primary
            object where only its status tells.
        watcher: Gives what a wait has to look at.
        names: Gives the names that an object may have to be one of a release, by the release's
            name and the object: what a deletion may remove.
        live_shapes: What is read of live objects that only this target has, by kind.
        facts_beside: Kind and suffix of the name of the object with the release's facts, where
            the primary object cannot hold them.
        leftovers: Further kinds that an earlier revision of a release may have left.
        unlabelled: Kinds of objects that belong to a release without its labels, each with how
            the primary object names its one.
        told_by: The kind whose presence tells it from a target with the same primary kind.
        traffic: Kinds that send requests to pods, which have to be there first.
        owned: Kinds that its controller makes and may never remove.
        stale_owned: Gives those among live ones that it should have removed, by the objects.
        is_in_use: Says whether a release whose primary object is among these needs an object too.
        shared: Kinds whose objects several releases of a namespace may use, as their names are
            not the release's; each says whether a live object is what a rendered one wants.
        writer: Gives the object whose controller writes one that is rendered here over.
        written: Gives the object that a controller writes for one that is rendered here.
        starts_anew: Says whether a live object has to go before a rendered one is applied, since
            its controller would not look at it again.
        hasty: Kinds whose controllers work on for an object that is being deleted: it goes at
            once, and what it owns after it.
        waker: Wakes a controller that has failed and does not try again by itself, when the same
            is applied again; and the kind of the object that it does so with.
        builder: Gives the image that the cluster itself has built for a release, by the digest
            that its pods run; None where the cluster builds nothing.
        completer: Gives the manifests of a release with what is made for one apply and recorded
            nowhere, such as a URL that is signed; told whether the release is restored.
        sets_port: Says whether its controller gives containers the variable PORT itself, by the
            options.
        needs_bento: Whether nothing can be rendered without a bento.
        powers: Annotations by which pods get more rights over their node, whatever the value.
        installs: What to do where a cluster lacks kinds of an API group, by the group.
        canary: How requests are shifted in steps; None where its controller knows no way.
    """

    kind: str
    options_type: type[Options]
    renderer: Callable[[str, Any, Any], tuple[Manifest, ...]]
    kinds: tuple[Kind, ...]
    address: Callable[[Objects, Manifest | None], str]
    watcher: Callable[[Objects], Watched]
    names: Callable[[str, Manifest], tuple[str, ...]]
    live_shapes: Mapping[str, type[Live]] = field(default_factory=dict)
    facts_beside: tuple[Kind, str] | None = None
    leftovers: tuple[Kind, ...] = ()
    unlabelled: Mapping[Kind, Callable[[Manifest], str]] = field(default_factory=dict)
    told_by: Kind | None = None
    traffic: tuple[Kind, ...] = ()
    owned: tuple[Kind, ...] = ()
    stale_owned: Callable[[Objects, Objects], list[Manifest]] = lambda objects, owned: []
    is_in_use: Callable[[Manifest, Objects], bool] | None = None
    shared: Mapping[Kind, Callable[[Manifest, Manifest], bool]] = field(default_factory=dict)
    writer: Callable[[Manifest], ObjectRef | None] | None = None
    written: Callable[[Manifest], ObjectRef | None] | None = None
    starts_anew: Callable[[ClusterConnection, Manifest, Manifest], bool] | None = None
    hasty: tuple[Kind, ...] = ()
    waker: tuple[Kind, Callable[[ClusterConnection, Manifest], None]] | None = None
    builder: Callable[[ClusterConnection, Objects], str] | None = None
    completer: Callable[[ClusterConnection, Release, bool], tuple[Manifest, ...]] | None = None
    sets_port: Callable[[Any], bool] = lambda options: False
    needs_bento: bool = True
    powers: frozenset[str] = frozenset()
    installs: Mapping[str, str] = field(default_factory=dict)
    canary: Canary | None = None

    @property
    def primary_kind(self) -> Kind:
        """The kind of the object whose name is the release's."""
        return self.kinds[0]

    @property
    def holder_kind(self) -> Kind:
        """The kind of the object whose annotations hold the facts of a release."""
        return self.facts_beside[0] if self.facts_beside else self.primary_kind

    def holder_of(self, primary: ObjectRef) -> ObjectRef:
        """Give the object whose annotations hold the facts of a release."""
        if self.facts_beside is None:
            return primary
        kind, suffix = self.facts_beside
        name = f"{primary.name}{suffix}"
        return ObjectRef(kind.api_version, kind.name, primary.namespace, name)

    def render(
        self, image: str, bento: Bento | BentoFacts | None, options: Mapping[str, Any] | None = None
    ) -> Release:
        """Give a release; the same arguments give the same one.

        Args:
            image: Image by digest; for a BentoRequest the tag to build, and "" where a stored
                model is served.
            bento: The bento inside; None where a stored model is served.
            options: What the user chose, by the names of the target's options.

        Raises:
            InvalidInput: An argument that cannot be honoured; the message names the field.
        """
        release = self.render_again(image, bento, options)
        _check_request_log(release.bento, self.options_type.of(self.kind, release.options))
        if release.bento is not None and release.bento.hidden:
            raise InvalidInput(
                f"bento: no probe would find the service of {release.bento.tag}: "
                f"{'; '.join(release.bento.hidden)}.",
                hint="Build the bento again without it.",
            )
        return release

    def render_again(
        self, image: str, bento: Bento | BentoFacts | None, options: Mapping[str, Any] | None = None
    ) -> Release:
        """Give a release that was applied before.

        What would have no effect today is no reason to leave it out then. Otherwise as `render`.
        """
        given = dict(options or {})
        chosen = self.options_type.of(self.kind, given)
        if bento is None and self.needs_bento:
            raise InvalidInput(
                f"bento: the target {self.kind} serves bentos only.", hint="Give the bento."
            )
        facts = bento if bento is None or isinstance(bento, BentoFacts) else BentoFacts.of(bento)
        if facts is not None and facts.environment:
            chosen = self._with_environment(facts.environment, chosen, given)
        if facts is not None and facts.moved:
            chosen = self._listening(chosen)
        return Release(self, self.renderer(image, facts, chosen), image, facts, given)

    def _with_environment(
        self, environment: Mapping[str, str], chosen: Any, given: Mapping[str, Any]
    ) -> Any:
        """Give the options with the variables that a bento leaves to its release.

        What the user sets wins. A target without pods of its own takes none.
        """
        if "envs" not in self.options_type.model_fields:
            return chosen
        own = [dict(one) for one in chosen.envs]
        taken = {one["name"] for one in own}
        left = [
            {"name": name, "value": value}
            for name, value in environment.items()
            if name not in taken
        ]
        return self.options_type.of(self.kind, {**given, "envs": [*left, *own]})

    def _listening(self, chosen: Any) -> Any:
        """Give the options with variables by which a service listens where probes expect it."""
        if "envs" not in self.options_type.model_fields:
            return chosen
        given = {"PORT"} if self.sets_port(chosen) else set()
        names = [name for name in WHERE_EXPECTED if name not in given]
        fixed = [{"name": name, "value": WHERE_EXPECTED[name]} for name in names]
        # Not checked again: users may not set these.
        return chosen.model_copy(update={"envs": [*fixed, *chosen.envs]})

    def primary(self, objects: Objects) -> Manifest:
        """Give the object whose name is the release's."""
        return next(one for one in objects if one["kind"] == self.primary_kind.name)

    def watched(self, objects: Objects) -> Watched:
        """Give what a wait has to look at, by the recorded or the live objects of a release."""
        watched = self.watcher(objects)
        holder = self.holder_of(watched.primary)
        held = next((one for one in objects if ObjectRef.of(one) == holder), None)
        # A tag to build is completed where it is rendered, and may be left to the builder.
        image = "" if self.builder else annotations_of(held).get(IMAGE, "")
        return replace(watched, holder=holder, revision=revision_on(held), image=image)


def _check_request_log(bento: BentoFacts | None, options: Any) -> None:
    """Refuse to set up a log of requests that nobody would write.

    Raises:
        InvalidInput: The service is none that we wrote.
    """
    names = [str(one["name"]) for one in getattr(options, "envs", ())]
    names += bento.environment if bento is not None else ()
    asked = next((name for name in names if name.startswith(REQUEST_LOG)), "")
    if not asked or (bento is not None and bento.generated):
        return
    served = "a stored model" if bento is None else f"the service of {bento.tag}"
    raise InvalidInput(
        f"envs: {asked} would have no effect: {served} is none that kfp-bento generated (or its "
        "folder is not here to be looked at), and writes no log of requests.",
        hint="Leave it out; a service of your own logs in its code, for example with "
        "bentoml.monitor.",
    )


def first_of_kind(objects: Objects, kind: str) -> Manifest | None:
    """Give the first object of a kind."""
    return next((one for one in objects if one.get("kind") == kind), None)
