"""What a user may ask of pods, and the labels and annotations that go with them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.options.core import (
    Affinity,
    Annotations,
    Env,
    EnvFrom,
    EnvVar,
    Labels,
    Name,
    Namespace,
    OptionalName,
    SecretNames,
    Tolerations,
    TopologySpread,
)
from kfp_bento.runtime.deployments.options.network_policy import NetworkPolicy
from kfp_bento.runtime.deployments.options.options import Count, Options, Settings
from kfp_bento.runtime.deployments.options.quantities import PodResources, quantity_problem
from kfp_bento.runtime.deployments.targets.kserve import annotations as kserve
from kfp_bento.runtime.deployments.targets.yatai import annotations as yatai
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import Refused, between, optional, valid

TEMPORARY = "/tmp"  # noqa: S108 - the mount point in the container
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the same
PROBE_SECONDS = 5
# Where an image has its bento, and the environment that it runs in.
_INSIDE = ("/home/bentoml/bento", "/app/.venv")

API_TOKEN = "KFP_BENTO_API_TOKEN"  # noqa: S105 - the name of a variable
"""The variable by which a generated service wants a token with each request."""

_MOVES_THE_PORT = "moves the port away from 3000, where the Service and the probes expect it"
RESERVED_ENVS: Mapping[str, str] = {
    "PORT": _MOVES_THE_PORT,
    "BENTOML_PORT": _MOVES_THE_PORT,
    "BENTOML_HOST": "moves the server to another address than the one that probes reach",
    "BENTO_PATH": "is where the image has its bento",
    API_TOKEN: "is set by the option api_token_secret; everybody could read it here",
}

_ON_PODS = "It belongs on the pods: extra_pod_metadata={'annotations': {...}}."
# Read from pods alone; on the metadata of what makes the pods they do nothing.
POD_ANNOTATIONS: Mapping[str, str] = dict.fromkeys(
    (
        "prometheus.io/",
        "sidecar.istio.io/",
        "proxy.istio.io/",
        "traffic.sidecar.istio.io/",
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "container.apparmor.security.beta.kubernetes.io/",
    ),
    _ON_PODS,
)
NO_OPERATOR: Mapping[str, str] = {**yatai.READ_ELSEWHERE, **kserve.READ_ELSEWHERE}
POD_MISPLACED: Mapping[str, str] = {**yatai.NOT_ON_PODS, **kserve.NOT_ON_PODS}


MISPLACED = ": nothing reads it in this place"
RESERVED = ": the operator or the renderer writes this label itself, and selectors depend on it"


def refuse_keys(
    given: Iterable[str], reason: str, refused: Mapping[str, str], at: str = ""
) -> None:
    """Refuse labels or annotations by their keys.

    Args:
        given: The keys.
        reason: Why, as it stands behind the field.
        refused: Keys, or prefixes that end with '/', each with what to do instead.
        at: The place of the mapping below the field that is checked.

    Raises:
        Refused: The first of them.
    """
    for key, one in ((key, one) for key in given for one in refused):
        if key == one or (one.endswith("/") and key.startswith(one)):
            raise Refused(reason, refused[one], f"{at}[{key}]")


def without_keys(reason: str, refused: Mapping[str, str]) -> AfterValidator:
    """Give the check of labels or annotations that `refuse_keys` makes."""

    def check(given: dict[str, str]) -> dict[str, str]:
        refuse_keys(given, reason, refused)
        return given

    return AfterValidator(check)


def without_labels(*reserved: str) -> AfterValidator:
    """Give the check of labels by those that find the pods."""
    return without_keys(RESERVED, dict.fromkeys(reserved, "Use another key."))


_OURS = ": this prefix holds where the model came from, and is ours"
UserLabels = Annotated[Labels, without_labels(yatai.PREFIX)]
UserAnnotations = Annotated[
    Annotations, without_keys(_OURS, {"kfp-bento/": "Use a prefix of your own."})
]
PodAnnotations = Annotated[UserAnnotations, without_keys(MISPLACED, POD_MISPLACED)]


def refuse_envs(envs: Iterable[EnvVar], reserved: Mapping[str, str], at: str = "") -> None:
    """Refuse variables that cannot be set.

    Args:
        envs: The variables.
        reserved: Names, or beginnings of names that end with '_', each with the reason.
        at: The place of the variables below the field that is checked.

    Raises:
        Refused: The first of them.
    """
    for index, entry in enumerate(envs):
        name = entry["name"]
        for one, reason in reserved.items():
            if name == one or (one.endswith("_") and name.startswith(one)):
                raise Refused(f": {name} {reason}", "Leave it out.", f"{at}[{index}]")


class PodMetadata(TypedDict, total=False):
    """What pods get in addition."""

    labels: UserLabels
    annotations: PodAnnotations


class Replicas(Settings):
    """How many pods, from and to."""

    min_replicas: Count = Field(default=1, alias="minReplicas")
    max_replicas: Annotated[int, between(1)] = Field(default=0, alias="maxReplicas")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.highest < self.min_replicas:
            raise Refused(
                f": {self.max_replicas} is below minReplicas {self.min_replicas}",
                "Set maxReplicas to at least minReplicas.",
                ".maxReplicas",
            )
        return self

    @property
    def highest(self) -> int:
        """The most pods: as many as the least where nothing is said, and at least one."""
        return self.max_replicas or max(self.min_replicas, 1)


def _mount_path(path: str) -> str:
    if not path.startswith("/") or posixpath.normpath(path) != path or ":" in path or path == "/":
        raise Refused(
            ": it is no absolute path to mount at",
            "Write a path such as /etc/serving/credentials.",
        )
    return path


_Size = Annotated[str, valid(optional(quantity_problem), "Write a size such as 1Gi.")]
_Startup = Annotated[int, between(PROBE_SECONDS, why="one probe takes as long")]
_Files = dict[Annotated[str, AfterValidator(_mount_path)], Name]


class TokenSecret(Settings):
    """The key of a Secret under which an API token is."""

    name: Name
    key: str = Field(default="token", min_length=1)


class PodOptions(Options):
    """What targets have in common that make their pods themselves.

    Attributes:
        name: Name of the release: DNS-1035, and short enough for the names that are made of it; the
            bento's when empty.
        namespace: Namespace of all resources.
        resources: `requests` and `limits` of `cpu`, `memory`, `ephemeral-storage`, `gpu`
            (limits only), `custom`.
        autoscaling: See the target.
        envs: Environment variables, as a mapping or a list with `value` or `valueFrom`.
        env_from: Secrets and ConfigMaps that become variables, as `envFrom` has them; a plain
            string names a Secret.
        image_pull_secrets: Names of registry Secrets in the namespace.
        labels: Labels of all resources and the pods, never of selectors.
        annotations: Annotations of the metadata of all resources.
        extra_pod_metadata: `labels` and `annotations` of the pods alone.
        service_account: ServiceAccount of the pods.
        automount_token: Whether the pods get a token of the Kubernetes API.
        secret_files: Secrets as files, mount path to the Secret's name.
        config_files: The same for ConfigMaps.
        node_selector: Labels that a node must have.
        tolerations: Taints that the pods bear.
        affinity: As Kubernetes has it.
        topology_spread: `topologySpreadConstraints`; a missing labelSelector is filled in.
        priority_class: PriorityClass of the pods.
        runtime_class: RuntimeClass of the pods.
        scheduler_name: Another scheduler.
        writable_home: Put BENTOML_HOME on /tmp, for images that BentoML itself built.
        shared_memory: Size of /dev/shm, for example "1Gi".
        startup_seconds: Longest time from start to ready.
        termination_seconds: Time to finish requests after SIGTERM.
        network_policy: Who may talk with the pods. `ingress` lists who gets in besides the pods of
            the same namespace: the name of a namespace, or a peer as a NetworkPolicy has it;
            `egress` is none, dns, or a list of peers (each with `ports`, or dns) that the pods may
            call; they may call everybody where it is not said. No policy when empty.
        api_token_secret: `name` of a Secret and `key` in it (default: token): what the service
            wants as `Authorization: Bearer ...`; for services that kfp-bento generated.
    """

    # Labels, or prefixes of them, by which the target's selectors find pods.
    reserved_labels: ClassVar[tuple[str, ...]] = ()

    name: str = ""
    namespace: Namespace = "default"
    resources: PodResources = PodResources()
    autoscaling: Replicas = Replicas()
    envs: Env = []
    env_from: EnvFrom = []
    image_pull_secrets: SecretNames = []
    labels: UserLabels = {}
    annotations: UserAnnotations = {}
    extra_pod_metadata: PodMetadata = {}
    service_account: OptionalName = ""
    automount_token: bool = False
    secret_files: _Files = {}
    config_files: _Files = {}
    node_selector: Labels = {}
    tolerations: Tolerations = []
    affinity: Affinity = {}
    topology_spread: TopologySpread = []
    priority_class: OptionalName = ""
    runtime_class: OptionalName = ""
    scheduler_name: str = ""
    writable_home: bool = False
    shared_memory: _Size = ""
    startup_seconds: _Startup = 300
    termination_seconds: Count = 60
    network_policy: NetworkPolicy | None = None
    api_token_secret: TokenSecret | None = None

    @model_validator(mode="after")
    def _check_pods(self) -> Self:
        labels = dict.fromkeys(self.reserved_labels, "Use another key.")
        extra = self.extra_pod_metadata.get("labels", {})
        refuse_keys(self.labels, RESERVED, labels, ".labels")
        refuse_keys(extra, RESERVED, labels, ".extra_pod_metadata.labels")
        refuse_keys(self.annotations, MISPLACED, self.misplaced(), ".annotations")
        refuse_envs(self.envs, self.reserved_envs(), ".envs")
        if self.writable_home and any(one["name"] == "BENTOML_HOME" for one in self.envs):
            raise InvalidInput(
                "writable_home: it sets BENTOML_HOME, which envs sets too.",
                hint="Give one of the two.",
            )
        taken = {TEMPORARY, *([SHARED_MEMORY] if self.shared_memory else [])}
        for field, files in (
            ("secret_files", self.secret_files),
            ("config_files", self.config_files),
        ):
            for path in files:
                if path in taken or any(
                    one == path or one.startswith(f"{path}/") for one in _INSIDE
                ):
                    raise InvalidInput(
                        f"{field}[{path}]: something else is there already, which the mount would "
                        "hide.",
                        hint="Choose a path of its own.",
                    )
                taken.add(path)
        return self

    def misplaced(self) -> Mapping[str, str]:
        """Give the annotations that nothing reads on the target's objects."""
        return {}

    def reserved_envs(self) -> Mapping[str, str]:
        """Give the variables that users cannot set, each with the reason."""
        return RESERVED_ENVS
