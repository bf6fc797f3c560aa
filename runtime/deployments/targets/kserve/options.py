"""What may be asked of an InferenceService, in both of KServe's deployment modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kfp_bento.runtime.deployments.options.core import Env, EnvFrom, Image, OptionalName
from kfp_bento.runtime.deployments.options.names import split_url
from kfp_bento.runtime.deployments.options.options import Count, Settings
from kfp_bento.runtime.deployments.options.quantities import PodResources
from kfp_bento.runtime.deployments.targets import pod_settings
from kfp_bento.runtime.deployments.targets.kserve.watch import MODE, STANDARD_MODES
from kfp_bento.runtime.deployments.targets.pod_settings import (
    PodOptions,
    Replicas,
)
from kfp_bento.runtime.deployments.targets.yatai.annotations import READ_ELSEWHERE
from kfp_bento.runtime.validation import Refused, between, otherwise

AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"

# Parts of a pod that Knative refuses unless a feature of the cluster allows them.
KNATIVE_FEATURES: Mapping[str, str] = {
    "node_selector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
    "affinity": "kubernetes.podspec-affinity",
    "topology_spread": "kubernetes.podspec-topologyspreadconstraints",
    "priority_class": "kubernetes.podspec-priorityclassname",
    "runtime_class": "kubernetes.podspec-runtimeclassname",
    "scheduler_name": "kubernetes.podspec-schedulername",
}
RESERVED_LABELS = (
    "app",
    "component",
    "serving.kserve.io/",
    "serving.knative.dev/",
    "yatai.ai/",
    "pod-template-hash",
)
RESERVED_ENVS: Mapping[str, str] = {
    **pod_settings.RESERVED_ENVS,
    "STORAGE_URI": "makes KServe download a model into the pod, which our image has inside",
    "PROTOCOL": "is set by the option protocol",
    "MULTI_MODEL_SERVER": "belongs to KServe",
}
_STORAGE = (
    *("s3", "gs", "hf", "http", "https", "pvc", "oci", "abfs", "azure", "hdfs", "webhdfs"),
    *("modelscope", "file"),
)
_NO_FIELD = ": an InferenceService that works on every version of KServe has no such field"


class Scaling(Replicas):
    """How many pods a component has, and by what it scales."""

    refused: ClassVar[Mapping[str, tuple[str, str]]] = {
        "metrics": (_NO_FIELD, "Use scaleMetric and scaleTarget, or the target workload."),
        "behavior": (_NO_FIELD, "Leave it out, or use the target workload."),
    }

    scale_target: Annotated[int, between(1)] | None = Field(default=None, alias="scaleTarget")
    scale_metric: str = Field(default="", alias="scaleMetric")


class Side(Scaling):
    """A transformer or explainer: another container with an API of its own."""

    image: Image
    command: list[str] = []
    args: list[str] = []
    envs: Env = []
    env_from: EnvFrom = []
    resources: PodResources = PodResources()
    port: Annotated[int, between(1, 65535)] = 8080
    service_account: OptionalName = ""


class Batcher(Settings):
    """Which requests KServe's agent puts together; in pieces, milliseconds and seconds."""

    max_batch_size: Annotated[int, between(1, 100_000)] = Field(default=0, alias="maxBatchSize")
    max_latency: Annotated[int, between(1, 3_600_000)] = Field(default=0, alias="maxLatency")
    timeout: Annotated[int, between(1, 3600)] = 0


class Logger(Settings):
    """Who receives requests and responses."""

    mode: Literal["all", "request", "response"] = "all"
    url: str = ""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        parts = split_url("logger.url", self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.username:
            raise Refused(
                ": it is no http URL of a receiver (or holds credentials)",
                "Write http://collector.namespace.svc/.",
                ".url",
            )
        return self


def _stored(uri: str) -> str:
    scheme, found, _ = uri.partition("://")
    if not found or scheme not in _STORAGE:
        raise Refused(
            f": {uri!r} has no scheme that KServe downloads from",
            f"One of {', '.join(f'{one}://' for one in _STORAGE)}.",
        )
    if scheme in ("http", "https") and "@" in split_url("storage_uri", uri).netloc:
        raise Refused(
            ": it holds a user name or a password",
            "Put credentials into a Secret of the service account.",
        )
    return uri


_StorageUri = Annotated[str, AfterValidator(lambda uri: uri and _stored(uri))]
_PortName = Annotated[
    Literal["http1"],
    otherwise(
        "only 'http1': 'h2c' promises HTTP/2 without TLS, which BentoML's server does not speak",
        "Leave it at http1.",
    ),
]


class InferenceServiceOptions(PodOptions):
    """How an image, or a stored model, becomes an InferenceService.

    Attributes:
        deployment_mode: Standard or Knative (KServe 0.16 and later), RawDeployment or Serverless
            (before).
        autoscaling: `minReplicas` (0 in Knative mode only), `maxReplicas`, `scaleTarget`, and
            `scaleMetric`: cpu or memory in Standard, concurrency or rps in Knative mode.
        container_concurrency: Requests at once per pod; Knative mode only.
        timeout: Longest request in seconds; 0 for KServe's default.
        protocol: v1 or v2 where the bento itself has KServe's routes, or bentoml (its own API).
            When empty, the first of v2 and v1 that a generated service speaks, and bentoml for any
            other. For `storage_uri` the protocol of the runtime, v1 unless said otherwise.
        port_name: http1; BentoML's server has no cleartext HTTP/2 (h2c).
        storage_uri: A stored model instead of an image.
        model_format: Its format, such as "mlflow".
        model_version: Version of the format, such as "2".
        runtime: A ServingRuntime by name; KServe chooses by format otherwise.
        batcher: `maxBatchSize`, `maxLatency` (ms), `timeout` (s); only for protocol v1.
        logger: `url` that receives requests and responses, `mode` all, request or response.
        transformer: A container in front of the predictor: `image` by digest, `command`, `args`,
            `envs`, `env_from`, `resources`, `port`, `minReplicas`, `maxReplicas`, `scaleTarget`,
            `scaleMetric`, `service_account`.
        explainer: The same beside it.
        canary_percent: Share of requests that the new image gets.
        stable_storage_uri: In Standard mode the stored model that serves now; Knative remembers it
            itself.
        canary_name: Name of the canary's predictor in Standard mode; made from the model's URI when
            empty. To promote it without a restart, give it as `predictor_name`.
        predictor_name: Name of the stable predictor (KServe 0.20), which may change together with
            the model only; none when empty.
        canary_replicas: Pods of the canary in Standard mode; 0 lets KServe derive them.
        knative_features: Features that the cluster's Knative has enabled, such as
            kubernetes.podspec-nodeselector.
    """

    reserved_labels = RESERVED_LABELS

    autoscaling: Scaling = Scaling()
    deployment_mode: Literal["Standard", "RawDeployment", "Knative", "Serverless"] = "Standard"
    container_concurrency: Count = 0
    timeout: Count = 0
    protocol: Literal["", "bentoml", "v1", "v2"] = ""
    port_name: _PortName = "http1"
    storage_uri: _StorageUri = ""
    model_format: str = ""
    model_version: str = ""
    runtime: str = ""
    batcher: Batcher | None = None
    logger: Logger | None = None
    transformer: Side | None = None
    explainer: Side | None = None
    canary_percent: Annotated[int, between(0, 100)] | None = None
    stable_storage_uri: _StorageUri = ""
    canary_name: str = ""
    predictor_name: str = ""
    canary_replicas: Count = 0
    knative_features: list[str] = []

    @property
    def standard(self) -> bool:
        """Whether KServe makes Deployments itself, without Knative."""
        return self.deployment_mode in STANDARD_MODES

    def misplaced(self) -> Mapping[str, str]:
        """Give the annotations that nothing reads on the target's objects."""
        return misplaced_annotations(standard=self.standard)

    def reserved_envs(self) -> Mapping[str, str]:
        """Give the variables that users cannot set; those of a stored model are its runtime's."""
        return {} if self.storage_uri else RESERVED_ENVS


def misplaced_annotations(*, standard: bool) -> dict[str, str]:
    """Give the annotations that nothing reads on an InferenceService, or an option sets.

    Args:
        standard: Whether KServe makes Deployments itself, without Knative.
    """
    misplaced = {
        MODE: "Use deployment_mode=....",
        AUTOSCALER_CLASS: "Use autoscaling=....",
        **READ_ELSEWHERE,
    }
    if standard:
        misplaced["autoscaling.knative.dev/"] = (
            "Only Knative reads it: use deployment_mode Knative."
        )
    return misplaced
