"""Renderings of every target, from the least that it takes to all that it offers."""

from __future__ import annotations

from typing import Any

from sample_bentos import IMAGE, make_bento

OTHER = IMAGE.replace("a1", "b2")
TAG = "registry.example.com/team/wine:0123456789e12345"
ARCHIVE = "https://store.example.com/wine.tar.gz?X-Amz-Signature=0"
OLD = make_bento("fraud", "v1", runners=({"name": "model-a"}, {"name": "model-b"}))

AFFINITY = {
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1.0, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
        ]
    }
}
TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5.0}
SPREAD = {"maxSkew": 1.0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
METRIC = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70.0}},
}
EXTRA_SPEC = {
    "schedulerName": "volcano",
    "nodeSelector": {"pool": "cpu"},
    "affinity": AFFINITY,
    "tolerations": [TOLERATION],
    "topologySpreadConstraints": [SPREAD],
    "serviceAccountName": "server",
    "containers": [
        {
            "name": "log",
            "image": "registry.example.com/log:1",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "ports": [{"containerPort": 9000.0}],
            "resources": {"limits": {"cpu": "1"}},
            "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 3},
            "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
        }
    ],
}
YATAI: dict[str, Any] = {
    "namespace": "serving",
    "resources": {"limits": {"cpu": 2.0, "gpu": 1.0}},
    "autoscaling": {"minReplicas": 1.0, "maxReplicas": 3.0, "metrics": [METRIC]},
    "envs": {"A": 1.0},
    "labels": {"team": "wine"},
    "annotations": {"yatai.ai/deployment-strategy": "Recreate", "note": "x"},
    "service_account": "server",
    "ingress": {
        "enabled": True,
        "annotations": {"a/b": "c"},
        "labels": {"d": "e"},
        "tls": {"secretName": "wine-tls"},
    },
    "extra_pod_metadata": {"labels": {"l": "1"}, "annotations": {"sidecar.istio.io/inject": "no"}},
    "extra_pod_spec": EXTRA_SPEC,
    "monitor_exporter": {"output": "stdout", "options": {"workers": "4"}},
}
EXPORTER = {
    "output": "stdout",
    "structureOptions": [
        {"name": "f", "valueFrom": {"secretKeyRef": {"name": "test-secret", "key": "format"}}}
    ],
    "mounts": [{"path": "/tmp/aaa", "readOnly": True, "secret": {"secretName": "test-secret"}}],
}
REQUEST: dict[str, Any] = {
    **YATAI,
    "archive_url": ARCHIVE,
    "models": [{"tag": "wine:7", "url": "s3://models/wine-7.tar"}],
    "build_timeout": "1h30m",
    "registry_secret": "regcred",
    "registry_insecure": True,
    "download_env_from": ["s3-keys", {"configMapRef": {"name": "endpoint"}}],
    "builder_resources": {"requests": {"cpu": 1.0}, "limits": {"memory": "4Gi"}},
    "builder_envs": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "builder_pod_metadata": {"labels": {"l": "1"}},
    "builder_pod_spec": {"nodeSelector": {"pool": "build"}, "tolerations": [TOLERATION]},
    "annotations": {"yatai.ai/aws-access-key-secret-name": "s3-keys"},
}
NEWER_REQUEST: dict[str, Any] = {
    **REQUEST,
    "annotations": {"yatai.ai/force-build-image": "true"},
    "models": [{"tag": "wine:7", "url": "s3://models/wine-7.tar", "size": "1Gi"}],
    "builder_pod_spec": {"priorityClassName": "high"},
    "monitor_exporter": EXPORTER,
}
PODS: dict[str, Any] = {
    "name": "wine-live",
    "namespace": "serving",
    "resources": {
        "requests": {"cpu": 0.5, "memory": "512Mi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "2", "memory": "2Gi", "gpu": 1.0, "custom": {"example.com/npu": 2}},
    },
    "envs": [
        {"name": "THREADS", "value": 2.0},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s.1", "key": "k"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
    "env_from": ["keys", {"configMapRef": {"name": "settings"}, "prefix": "P_"}],
    "image_pull_secrets": ["regcred"],
    "labels": {"team": "wine"},
    "annotations": {"example.com/note": "Gr\u00fc\u00dfe"},
    "extra_pod_metadata": {"labels": {"l": "1"}, "annotations": {"sidecar.istio.io/inject": "no"}},
    "service_account": "server",
    "secret_files": {"/etc/serving/keys": "s3.keys"},
    "config_files": {"/etc/serving/settings": "settings"},
    "shared_memory": "1Gi",
    "writable_home": True,
}
PLACED: dict[str, Any] = {
    "node_selector": {"pool": "gpu"},
    "tolerations": [TOLERATION],
    "affinity": AFFINITY,
    "topology_spread": [SPREAD],
    "priority_class": "high",
    "runtime_class": "nvidia",
    "scheduler_name": "volcano",
}
HPA = {
    "minReplicas": 2.0,
    "maxReplicas": 5.0,
    "metrics": [METRIC],
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60.0, "selectPolicy": "Max"}},
}
ROUTE = {
    "gateway": "infra/public",
    "section": "https",
    "hostnames": ["wine.example.com"],
    "path": "/wine",
    "timeout": "30s",
}
SIDE = {"image": OTHER, "args": ["--x"], "envs": {"A": "1"}, "port": 8081.0, "maxReplicas": 2.0}
STORED = {"name": "iris", "storage_uri": "s3://models/iris", "model_format": "mlflow"}

RENDERED: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    "bento deployment": ("bento-deployment", IMAGE, make_bento(), {}),
    "bento deployment in full": ("bento-deployment", IMAGE, make_bento(), YATAI),
    "bento deployment with runners": (
        "bento-deployment",
        IMAGE,
        OLD,
        {
            **YATAI,
            "runners": [
                {
                    "name": "model-a",
                    "resources": {"limits": {"cpu": 2.0}},
                    "annotations": {"yatai.ai/run-container-as-root": "true"},
                    "extra_pod_metadata": {"labels": {"l": "2"}},
                    "extra_pod_spec": {"nodeSelector": {"pool": "gpu"}},
                }
            ],
        },
    ),
    "bento request": ("bento-request", "", make_bento(), {"archive_url": "s3://b/wine.bento"}),
    "bento request in full": ("bento-request", TAG, make_bento(), REQUEST),
    "bento request with runners": ("bento-request", TAG, OLD, REQUEST),
    "workload": ("workload", IMAGE, make_bento(), {}),
    "workload in full": (
        "workload",
        IMAGE,
        make_bento(),
        {**PODS, **PLACED, "autoscaling": HPA, "route": ROUTE, "metrics": "service-monitor"},
    ),
    "workload with a canary": (
        "workload",
        IMAGE,
        make_bento(),
        {**PODS, "route": ROUTE, "canary_percent": 10.0, "stable_image": OTHER},
    ),
    "workload that shares a route": (
        "workload",
        IMAGE,
        make_bento(),
        {"route": {**ROUTE, "weights": {"wine": 80.0, "beer": 20.0}}, "strategy": "Recreate"},
    ),
    "inference service": ("inference-service", IMAGE, make_bento(), {}),
    "inference service in full": (
        "inference-service",
        IMAGE,
        make_bento(),
        {
            **PODS,
            **PLACED,
            "autoscaling": {"minReplicas": 1, "maxReplicas": 3, "scaleMetric": "cpu"},
            "timeout": 30.0,
            "logger": {"url": "http://collector.ns.svc/", "mode": "request"},
            "transformer": SIDE,
            "explainer": SIDE,
        },
    ),
    "inference service on Knative": (
        "inference-service",
        IMAGE,
        make_bento(),
        {
            **PODS,
            "deployment_mode": "Knative",
            "autoscaling": {"minReplicas": 0.0, "maxReplicas": 3, "scaleMetric": "rps"},
            "container_concurrency": 4.0,
            "canary_percent": 25,
        },
    ),
    "stored model": (
        "inference-service",
        "",
        None,
        {**STORED, "model_version": "2", "runtime": "kserve-mlserver", "batcher": {"timeout": 9.0}},
    ),
    "stored model with a canary": (
        "inference-service",
        "",
        None,
        {
            **STORED,
            "autoscaling": {"minReplicas": 3, "maxReplicas": 5},
            "canary_percent": 25.0,
            "stable_storage_uri": "s3://models/iris/1",
            "canary_replicas": 2.0,
        },
    ),
    "stored model on Knative": (
        "inference-service",
        "",
        None,
        {**STORED, "deployment_mode": "Serverless"},
    ),
}
