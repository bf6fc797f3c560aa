"""What a controller would drop, misread or never honour is refused, by the name of its field."""

from __future__ import annotations

from typing import Any

import pytest
from sample_bentos import IMAGE, make_bento

from kfp_bento.runtime.deployments import TARGETS
from kfp_bento.runtime.errors import InvalidInput

OTHER = IMAGE.replace("a1", "b2")
TAG = "registry.example.com/team/wine:v1"
OLD = make_bento("fraud", "v1", runners=({"name": "model-a"}, {"name": "model-b"}))
ROUTE = {"gateway": "infra/public"}
BESIDE = {"canary_percent": 5, "stable_storage_uri": "s3://models/iris/1"}
ARCHIVE = {"archive_url": "https://store.example.com/wine.tar.gz"}
STORED = {"name": "iris", "storage_uri": "s3://models/iris", "model_format": "mlflow"}
CPU: dict[str, Any] = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
MEMORY = {
    "type": "Resource",
    "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}},
}
EVERYWHERE = tuple(TARGETS)
MADE_HERE = ("workload", "inference-service")
YATAI = ("bento-deployment", "bento-request")

# Targets, options, the field as the message names it, and a piece of the reason.
REFUSED: list[tuple[tuple[str, ...], dict[str, Any], str, str]] = [
    # names, places, types
    (YATAI, {"name": "w" * 51}, "name: ", "51 characters"),
    (("workload",), {"name": "w" * 57}, "name: ", "57 characters; at most 56"),
    (("inference-service",), {"name": "w" * 46}, "name: ", "64 characters; 63 are allowed"),
    (EVERYWHERE, {"name": "1wine"}, "name: ", "DNS-1035"),
    (EVERYWHERE, {"name": "wine.live"}, "name: ", "DNS-1035"),
    (EVERYWHERE, {"name": 3.0}, "name: ", "no text"),
    (EVERYWHERE, {"namespace": "Serving"}, "namespace: ", "DNS-1123"),
    (EVERYWHERE, {"service_account": "Me"}, "service_account: ", "DNS-1123"),
    (EVERYWHERE, {"image_pull_secrets": "regcred"}, "image_pull_secrets: ", "no list"),
    (EVERYWHERE, {"replicas": 2}, "replicas: ", "no such option"),
    (EVERYWHERE, {"envs": "A=1"}, "envs: ", "no list"),
    # environment
    (YATAI, {"envs": [{"name": "A", "valueFrom": {}}]}, "envs[0].valueFrom: ", "drops it"),
    (EVERYWHERE, {"envs": {"PORT": "80"}}, "envs[0]: PORT ", "moves the port"),
    (EVERYWHERE, {"envs": {"A": True}}, "envs[0].value: ", "no string"),
    (EVERYWHERE, {"envs": {"A B": "1"}}, "envs[0].name: ", "cannot name"),
    (EVERYWHERE, {"envs": [{"name": "A", "value": "1"}] * 2}, "envs[1]: A ", "given twice"),
    (MADE_HERE, {"envs": {"BENTOML_PORT": "80"}}, "envs[0]: BENTOML_PORT ", "moves the port"),
    (
        MADE_HERE,
        {"envs": [{"name": "A", "valueFrom": {"secretRef": {"name": "s"}}}]},
        "envs[0].valueFrom.secretRef ",
        "is no field",
    ),
    (
        MADE_HERE,
        {"envs": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
        "envs[0].valueFrom: ",
        "one value or one source",
    ),
    (MADE_HERE, {"env_from": [{"prefix": "A"}]}, "env_from[0]: ", "one Secret or one ConfigMap"),
    (
        ("inference-service",),
        {"envs": {"STORAGE_URI": "s3://x"}},
        "envs[0]: STORAGE_URI ",
        "KServe",
    ),
    # resources
    (EVERYWHERE, {"resources": {"requests": {"gpu": 1}}}, "resources.requests.gpu: ", "limits"),
    (EVERYWHERE, {"resources": {"limits": {"gpu": 3.5}}}, "resources.limits.gpu: ", "whole number"),
    (EVERYWHERE, {"resources": {"limits": {"nvidia.com/gpu": 1}}}, "limits.nvidia.com/gpu", "such"),
    (
        EVERYWHERE,
        {"resources": {"limits": {"memory": "1 GB"}}},
        "resources.limits.memory: ",
        "no K",
    ),
    (EVERYWHERE, {"resources": {"limits": {"cpu": 10**40}}}, "resources.limits.cpu: ", "no Kube"),
    (
        (*YATAI, "inference-service"),
        {"resources": {"limits": {"cpu": "200m"}}},
        "resources.limits.cpu: 200m is below resources.requests.cpu: ",
        "default)",
    ),
    (
        ("workload",),
        {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}},
        "resources.limits.cpu: 1 is below resources.requests.cpu: 2",
        "refuses such a pod",
    ),
    (
        EVERYWHERE,
        {"resources": {"requests": {"custom": {"a.b/c": 1}}}},
        "resources.requests.custom[a.b/c]: ",
        "needs the same limit",
    ),
    # scaling
    (EVERYWHERE, {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "maxReplicas: 2", "below"),
    (
        EVERYWHERE,
        {"autoscaling": {"maxReplicas": 3.5}},
        "autoscaling.maxReplicas: 3.5",
        "no integer",
    ),
    (
        EVERYWHERE,
        {"autoscaling": {"maxReplicas": "2"}},
        "autoscaling.maxReplicas: '2'",
        "no integer",
    ),
    (EVERYWHERE, {"autoscaling": {"minReplicas": 0}}, "autoscaling.minReplicas: 0", ""),
    (EVERYWHERE, {"autoscaling": {"min": 1}}, "autoscaling.min: ", "no such setting"),
    (
        (*YATAI, "inference-service"),
        {"autoscaling": {"behavior": {}}},
        "autoscaling.behavior: ",
        "",
    ),
    (
        ("workload",),
        {"autoscaling": {"maxReplicas": 2, "behavior": {"scaleDown": {"policy": 1}}}},
        "autoscaling.behavior.scaleDown.policy ",
        "no field",
    ),
    (
        ("workload",),
        {
            "autoscaling": {"maxReplicas": 2, "metrics": [MEMORY]},
            "resources": {"requests": {"cpu": 1}},
        },
        "autoscaling.metrics[0].resource: ",
        "resources.requests.memory, which is missing",
    ),
    (
        ("workload",),
        {"autoscaling": {"maxReplicas": 2}, "resources": {"requests": {"memory": "1Gi"}}},
        "autoscaling.metrics[0].resource: ",
        "resources.requests.cpu, which is missing",
    ),
    (
        ("workload",),
        {"autoscaling": {"minReplicas": 2, "maxReplicas": 2, "metrics": [CPU]}},
        "autoscaling.metrics: ",
        "no autoscaler",
    ),
    (
        ("workload",),
        {"autoscaling": {"maxReplicas": 2, "metrics": [{**CPU, "type": "Pods"}]}},
        "autoscaling.metrics[0]: ",
        "has the field 'pods' and no other",
    ),
    (
        ("workload",),
        {"autoscaling": {"maxReplicas": 2, "metrics": [{"type": "Pods", "pods": CPU["resource"]}]}},
        "autoscaling.metrics[0].pods: ",
        "metric, target and no other",
    ),
    (
        ("workload",),
        {
            "autoscaling": {
                "maxReplicas": 2,
                "metrics": [
                    {
                        "type": "Pods",
                        "pods": {
                            "metric": {"name": "rps"},
                            "target": {"type": "Utilization", "averageUtilization": 80},
                        },
                    }
                ],
            }
        },
        "autoscaling.metrics[0].pods.target.type: ",
        "only cpu and memory",
    ),
    (YATAI, {"autoscaling": {"metrics": [{"type": "Pods"}]}}, "autoscaling.metrics[0]: ", "only"),
    (
        ("inference-service",),
        {"autoscaling": {"scaleMetric": "rps"}},
        "autoscaling.scaleMetric: 'rps'",
        "mode Standard",
    ),
    (
        ("inference-service",),
        {"autoscaling": {"scaleMetric": "cpu"}, "deployment_mode": "Knative"},
        "autoscaling.scaleMetric: 'cpu'",
        "mode Knative",
    ),
    (
        ("inference-service",),
        {"container_concurrency": 4},
        "container_concurrency: ",
        "no Knative",
    ),
    # labels and annotations
    (YATAI, {"labels": {"yatai.ai/selector": "x"}}, "labels[yatai.ai/selector]: ", "selectors"),
    (
        ("workload",),
        {"labels": {"app.kubernetes.io/instance": "x"}},
        "labels[app.kubernetes.io/instance]: ",
        "selectors",
    ),
    (("inference-service",), {"labels": {"component": "x"}}, "labels[component]: ", "selectors"),
    (
        ("workload",),
        {"extra_pod_metadata": {"labels": {"pod-template-hash": "x"}}},
        "extra_pod_metadata.labels[pod-template-hash]: ",
        "selectors",
    ),
    (EVERYWHERE, {"labels": {"team": "a b"}}, "labels[team]: ", "no label value"),
    (EVERYWHERE, {"labels": {"rev": 1.0}}, "labels[rev]: ", "no string"),
    (
        EVERYWHERE,
        {"annotations": {"kfp-bento/run-id": "x"}},
        "annotations[kfp-bento/run-id]",
        "ours",
    ),
    (
        (*YATAI, "workload"),
        {"annotations": {"prometheus.io/scrape": "true"}},
        "annotations[prometheus.io/scrape]: ",
        "nothing reads it",
    ),
    (
        EVERYWHERE,
        {"extra_pod_metadata": {"annotations": {"yatai.ai/run-container-as-root": "true"}}},
        "extra_pod_metadata.annotations[yatai.ai/run-container-as-root]: ",
        "nothing reads it",
    ),
    (
        MADE_HERE,
        {"annotations": {"yatai.ai/deployment-strategy": "Recreate"}},
        "annotations[yatai.ai/deployment-strategy]: ",
        "nothing reads it",
    ),
    (
        ("inference-service",),
        {"annotations": {"serving.kserve.io/deploymentMode": "Knative"}},
        "annotations[serving.kserve.io/deploymentMode]: ",
        "",
    ),
    (
        ("inference-service",),
        {"annotations": {"autoscaling.knative.dev/target": "1"}},
        "annotations[autoscaling.knative.dev/target]: ",
        "",
    ),
    (
        ("bento-deployment",),
        {"annotations": {"yatai.ai/force-build-image": "true"}},
        "annotations[yatai.ai/force-build-image]: ",
        "no such switch",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "annotations": {"yatai.ai/yatai-image-builder-separate-models": "true"}},
        "annotations[yatai.ai/yatai-image-builder-separate-models]: ",
        "lack its models",
    ),
    # the pods of a BentoDeployment
    (YATAI, {"extra_pod_spec": {"volumes": []}}, "extra_pod_spec.volumes ", "no field"),
    (YATAI, {"extra_pod_spec": {"securityContext": {}}}, "extra_pod_spec.securityContext ", "no f"),
    (
        YATAI,
        {"extra_pod_spec": {"containers": [{"name": "main", "image": "x"}]}},
        "extra_pod_spec.containers[0].name: 'main'",
        "container of the operator",
    ),
    (
        YATAI,
        {"extra_pod_spec": {"tolerations": [{"tolerationSeconds": 3.5}]}},
        "extra_pod_spec.tolerations[0].tolerationSeconds: 3.5",
        "no integer",
    ),
    (
        YATAI,
        {"extra_pod_spec": {"serviceAccountName": "a"}, "service_account": "b"},
        "service_account: 'b'",
        "is not extra_pod_spec.serviceAccountName",
    ),
    (YATAI, {"ingress": {"annotations": {"a/b": "c"}}}, "ingress.annotations: ", "no Ingress"),
    (YATAI, {"ingress": {"enabled": "true"}}, "ingress.enabled: 'true'", "neither true nor false"),
    (
        YATAI,
        {"ingress": {"enabled": True}, "name": "w" * 50, "namespace": "n" * 20},
        "name: ",
        "one label of the Ingress's host name",
    ),
    (
        YATAI,
        {"monitor_exporter": {"output": "stdout", "mounts": []}},
        "monitor_exporter.mounts ",
        "every version",
    ),
    (YATAI, {"crd_generation": "kubeflow-1.10"}, "crd_generation: ", "unknown"),
    (YATAI, {"runners": [{"name": "a"}]}, "runners: wine:", "new-style bento"),
    # the build of a BentoRequest
    (("bento-request",), {}, "archive_url: ", "no archive"),
    (("bento-request",), {**ARCHIVE, "archive": "s3://b/x.tar"}, "archive: ", "says already"),
    (("bento-request",), {"archive": "https://h/x.tar"}, "archive: ", "no archive in a bucket"),
    (("bento-request",), {"archive": "s3://b/folder/"}, "archive: ", "no archive in a bucket"),
    (("bento-request",), {"archive": "minio://b"}, "archive: ", "no archive in a bucket"),
    (("bento-request",), {"archive": "s3://b/x.zip"}, "archive: ", "zip"),
    (
        ("bento-request",),
        {"archive": "s3://b/x.tar", "archive_seconds": 59},
        "archive_seconds: 59 ",
        "between 60 and 604800",
    ),
    (("bento-request",), {"archive_url": "gs://b/x.tar"}, "archive_url: ", "every builder"),
    (("bento-request",), {"archive_url": "https://h/x.zip"}, "archive_url: ", "zip"),
    (("bento-request",), {"archive_url": "https://me:pw@h/x.tar"}, "archive_url: ", "password"),
    (("bento-request",), {"archive_url": "https://h/x.tar;$(id)"}, "archive_url: ", "shell"),
    (
        ("bento-request",),
        {**ARCHIVE, "registry_secret": "reg.cred"},
        "registry_secret: 'reg.cred'",
        "no dots",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "build_timeout": "half an hour"},
        "build_timeout: ",
        "duration",
    ),
    (("bento-request",), {**ARCHIVE, "build_timeout": "3"}, "build_timeout: 3 ", "between"),
    (
        ("bento-request",),
        {**ARCHIVE, "build_args": ["A=1"], "crd_generation": "newest"},
        "build_args: ",
        "quotes around them",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "registry_insecure": True},
        "registry_insecure: ",
        "without a registry_secret",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "annotations": {"yatai.ai/docker-registry-insecure": "true"}},
        "annotations[yatai.ai/docker-registry-insecure]: ",
        "overrules it",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "annotations": {"yatai.ai/force-build-image": "true"}},
        "annotations[yatai.ai/force-build-image]: ",
        "1.1.3 knows no such",
    ),
    (("bento-request",), {**ARCHIVE, "models": [{"tag": "a:1"}]}, "models[0].url: ", "no archive"),
    (
        ("bento-request",),
        {**ARCHIVE, "models": [{"tag": "a:1", "url": "s3://b/a.tar", "size": "1Gi"}]},
        "models[0].size ",
        "every version",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "builder_pod_spec": {"priorityClassName": "high"}},
        "builder_pod_spec.priorityClassName ",
        "every version",
    ),
    (
        ("bento-request",),
        {**ARCHIVE, "image_pull_secrets": ["regcred"]},
        "image_pull_secrets: ",
        "registry Secret of the request only",
    ),
    # a workload's own
    (("workload",), {"strategy": "BlueGreen"}, "strategy: ", "unknown"),
    (("workload",), {"metrics": "statsd"}, "metrics: ", "unknown"),
    (("workload",), {"service_monitor": {"interval": "9s"}}, "service_monitor: ", "there is none"),
    (("workload",), {"progress_seconds": 60}, "progress_seconds: 60 ", "startup_seconds"),
    (
        ("workload",),
        {"disruption_budget": {"minAvailable": 1}},
        "disruption_budget.minAv",
        "drained",
    ),
    (
        ("workload",),
        {"disruption_budget": {"minAvailable": 1, "maxUnavailable": 1}},
        "disruption_budget: ",
        "exclude each other",
    ),
    (("workload",), {"route": {"hostnames": ["a"]}}, "route.gateway: ", "missing"),
    (("workload",), {"route": {**ROUTE, "hostnames": ["a:80"]}}, "route.hostnames[0]: ", "no host"),
    (("workload",), {"route": {**ROUTE, "path": "wine"}}, "route.path: ", "no path"),
    (
        ("workload",),
        {"route": {**ROUTE, "weights": {"wine": 50, "beer": 40}}},
        "route.weights: ",
        "sum to 90",
    ),
    (
        ("workload",),
        {"route": {**ROUTE, "weights": {"beer": 100}}},
        "route.weights: 'wine'",
        "no we",
    ),
    (
        ("workload",),
        {"route": {**ROUTE, "weights": {"wine": 99.5, "beer": 0.5}}},
        "route.weights[wine]: 99.5",
        "no integer",
    ),
    (
        ("workload",),
        {"route": {**ROUTE, "weights": {"wine": 100}}, "canary_percent": 9, "stable_image": OTHER},
        "route.weights: ",
        "canary_percent decides",
    ),
    (("workload",), {"canary_percent": 5, "stable_image": OTHER}, "canary_percent: ", "HTTPRoute"),
    (("workload",), {"canary_percent": 5, "route": ROUTE}, "stable_image: ", "needs the image"),
    (("inference-service",), {"canary_percent": 5}, "canary_percent: ", "none of an image"),
    (("workload",), {"stable_image": OTHER}, "stable_image: ", "without canary_percent"),
    (
        ("inference-service",),
        {"stable_storage_uri": "s3://models/iris"},
        "stable_storage_uri: ",
        "without canary_percent",
    ),
    (
        ("workload",),
        {"canary_percent": 101, "route": ROUTE, "stable_image": OTHER},
        "canary_percent: 101 ",
        "between 0 and 100",
    ),
    (
        ("workload",),
        {"canary_percent": 5, "route": ROUTE, "stable_image": TAG},
        "stable_image: ",
        "no digest",
    ),
    # pods that are made here
    (MADE_HERE, {"secret_files": {"etc": "s"}}, "secret_files[etc]: ", "absolute path"),
    (MADE_HERE, {"secret_files": {"/tmp": "s"}}, "secret_files[/tmp]: ", "would hide"),
    (MADE_HERE, {"config_files": {"/home/bentoml": "s"}}, "config_files[/home/be", "would hide"),
    (MADE_HERE, {"secret_files": {"/etc/x": "S"}}, "secret_files[/etc/x]: ", "DNS-1123"),
    (MADE_HERE, {"affinity": {"nodeAffinty": {}}}, "affinity.nodeAffinty ", "no field"),
    (MADE_HERE, {"tolerations": [{"operator": "In"}]}, "tolerations[0].operator: 'In'", "unknown"),
    (
        MADE_HERE,
        {"tolerations": [{"key": "a", "tolerationSeconds": 5, "effect": "NoSchedule"}]},
        "tolerations[0].tolerationSeconds: ",
        "NoExecute only",
    ),
    (
        YATAI,
        {"extra_pod_spec": {"tolerations": [{"operator": "Exists", "value": "x"}]}},
        "extra_pod_spec.tolerations[0].value: ",
        "takes none",
    ),
    (
        MADE_HERE,
        {"topology_spread": [{"maxSkew": 1}]},
        "topology_spread[0].topologyKey ",
        "missing",
    ),
    (MADE_HERE, {"automount_token": "no"}, "automount_token: ", "neither true nor false"),
    (
        MADE_HERE,
        {"writable_home": True, "envs": {"BENTOML_HOME": "/x"}},
        "writable_home: ",
        "sets BENTOML_HOME",
    ),
    (MADE_HERE, {"startup_seconds": 1}, "startup_seconds: 1 ", "one probe"),
    # an InferenceService's own
    (("inference-service",), {"deployment_mode": "ModelMesh"}, "deployment_mode: ", "unknown"),
    (("inference-service",), {"port_name": "h2c"}, "port_name: ", "HTTP/2 without TLS"),
    (("inference-service",), {"protocol": "v3"}, "protocol: ", "unknown"),
    (("inference-service",), STORED, "storage_uri: ", "has its model inside"),
    (("inference-service",), {"model_format": "mlflow"}, "model_format: ", "stored models only"),
    (("inference-service",), {"batcher": {"maxBatchSize": 8}}, "batcher: ", "protocol v1 only"),
    (
        ("inference-service",),
        {"batcher": {"maxBatchSize": 0}, "protocol": "v1"},
        "batcher.maxBatchSize: 0 ",
        "not between 1",
    ),
    (("inference-service",), {"logger": {"mode": "all"}}, "logger.url: ", "no http URL"),
    (
        ("inference-service",),
        {"logger": {"mode": "both", "url": "http://c/"}},
        "logger.mode: ",
        "unknown",
    ),
    (
        ("inference-service",),
        {"canary_percent": 5, "deployment_mode": "RawDeployment"},
        "canary_percent: ",
        "silently ignores",
    ),
    (
        ("inference-service",),
        {
            "canary_percent": 5,
            "deployment_mode": "Knative",
            "stable_storage_uri": "s3://models/iris",
        },
        "stable_storage_uri: ",
        "Knative keeps the previous revision",
    ),
    (
        ("inference-service",),
        {"predictor_name": "v2", "deployment_mode": "Knative"},
        "predictor_name: ",
        "named",
    ),
    (
        ("inference-service",),
        {"deployment_mode": "Knative", "node_selector": {"a": "b"}},
        "node_selector: ",
        "kubernetes.podspec-nodeselector",
    ),
    (("inference-service",), {"transformer": {"image": TAG}}, "transformer.image: ", "no digest"),
    (
        ("inference-service",),
        {"transformer": {"image": OTHER, "minReplicas": 0}},
        "transformer.minReplicas: 0 ",
        "not honoured",
    ),
    (
        ("inference-service",),
        {"name": "w" * 40, "namespace": "n" * 20},
        "name: ",
        "one label of a host name",
    ),
]
CASES = [
    pytest.param(target, *rest, id=f"{target}: {rest[1].strip(': ')} {rest[2]}".strip())
    for targets, *rest in REFUSED
    for target in targets
]


@pytest.mark.parametrize(("target", "options", "field", "reason"), CASES)
def test_what_cannot_be_honoured_is_refused_by_the_name_of_its_field(
    target: str, options: dict[str, Any], field: str, reason: str
) -> None:
    image = IMAGE
    if target == "bento-request":
        image, options = TAG, {**ARCHIVE, **options} if options else {}
    with pytest.raises(InvalidInput) as refusal:
        TARGETS[target].render(image, make_bento(), options)
    assert field in refusal.value.message
    assert reason in refusal.value.message
    assert refusal.value.hint


@pytest.mark.parametrize("target", ["bento-deployment", "workload", "inference-service"])
@pytest.mark.parametrize("image", [TAG, "wine", "", "r/Wine@sha256:" + "a1" * 32])
def test_an_image_is_named_by_digest_or_refused(target: str, image: str) -> None:
    with pytest.raises(InvalidInput, match=r"^image: "):
        TARGETS[target].render(image, make_bento(), {})


@pytest.mark.parametrize("image", [IMAGE, "wine", TAG[:-2] + "latest"])
def test_an_image_to_be_built_has_a_tag_of_its_own(image: str) -> None:
    with pytest.raises(InvalidInput, match=r"^image: "):
        TARGETS["bento-request"].render(image, make_bento(), ARCHIVE)


def test_a_registry_secret_needs_the_name_of_the_image() -> None:
    with pytest.raises(InvalidInput, match=r"^image: with a registry_secret"):
        TARGETS["bento-request"].render("", make_bento(), {**ARCHIVE, "registry_secret": "regcred"})


@pytest.mark.parametrize(
    ("runners", "field"),
    [
        ([{"name": "model-c"}], "runners[0].name: 'model-c'"),
        ([{"name": "model-a"}] * 2, "runners[1].name: 'model-a'"),
        ([{"name": "model-a", "labels": {}}], "runners[0].labels: "),
        (
            [{"name": "model-a", "envs": [{"name": "A", "valueFrom": {}}]}],
            "runners[0].envs[0]",
        ),
        (
            [{"name": "model-a", "annotations": {"team": "x"}}],
            "runners[0].annotations[team]: ",
        ),
        (
            [{"name": "model-a", "extra_pod_spec": {"volumes": []}}],
            "runners[0].extra_pod_spec.volumes ",
        ),
        (
            [{"name": "model-a", "autoscaling": {"behavior": {}}}],
            "runners[0].autoscaling.behavior: ",
        ),
    ],
)
@pytest.mark.parametrize("target", YATAI)
def test_an_override_that_no_runner_obeys_is_refused(
    target: str, runners: list[Any], field: str
) -> None:
    options = {"runners": runners, **(ARCHIVE if target == "bento-request" else {})}
    with pytest.raises(InvalidInput) as refusal:
        TARGETS[target].render(IMAGE if target == "bento-deployment" else TAG, OLD, options)
    assert field in refusal.value.message


@pytest.mark.parametrize("target", ["bento-deployment", "bento-request", "workload"])
def test_a_bento_is_needed_where_one_is_served(target: str) -> None:
    with pytest.raises(InvalidInput, match=r"^bento: "):
        TARGETS[target].render(IMAGE, None, {})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name: "),
        ({"model_format": ""}, "model_format: "),
        ({"storage_uri": "models/iris"}, "storage_uri: "),
        ({"storage_uri": "https://me:pw@h/m"}, "storage_uri: "),
        ({"writable_home": True}, "writable_home: "),
        ({"protocol": "bentoml"}, "protocol: "),
        ({"batcher": {"timeout": 5}, "protocol": "v2"}, "batcher: "),
        ({"canary_percent": 5}, "stable_storage_uri: "),
        ({**BESIDE, "stable_storage_uri": STORED["storage_uri"]}, "stable_storage_uri: "),
        ({**BESIDE, "stable_storage_uri": "models/iris"}, "stable_storage_uri: "),
        ({**BESIDE, "canary_name": "V2"}, "canary_name: 'V2'"),
        ({**BESIDE, "canary_name": "a", "predictor_name": "a"}, "canary_name: 'a'"),
        ({**BESIDE, "canary_replicas": 2}, "canary_replicas: 2 is more"),
    ],
)
def test_a_stored_model_that_kserve_could_not_serve_is_refused(
    change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        TARGETS["inference-service"].render("", None, {**STORED, **change})
    assert refusal.value.message.startswith(field)


def test_integral_floats_are_integers_wherever_integers_are_meant() -> None:
    manifests = (
        TARGETS["workload"]
        .render(
            IMAGE,
            make_bento(),
            {
                "autoscaling": {"minReplicas": 2.0, "maxReplicas": 3.0},
                "startup_seconds": 60.0,
                "tolerations": [
                    {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3.0}
                ],
                "disruption_budget": {"maxUnavailable": 1.0},
            },
        )
        .manifests
    )
    assert "." not in "".join(str(value) for value in numbers([one["spec"] for one in manifests]))


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []
