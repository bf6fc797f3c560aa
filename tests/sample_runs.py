"""Summaries of runs, as the demo writes them."""

from __future__ import annotations

import copy
from typing import Any

MODEL_DIGEST = "sha256:" + "608346a232f8" + "0" * 52
IMAGE_DIGEST = "sha256:" + "1234abcd5678" + "9" * 52
MANIFESTS = {
    "bento-wine--ff20.yaml": "kind: Bento\nmetadata:\n  name: wine--ff20\n",
    "bentodeployment-wine.yaml": 'kind: BentoDeployment\nspec:\n  cpu: "500m"\n',
}


def layer(kind: str, size: int, origin: str = "built") -> dict[str, Any]:
    return {
        "kind": kind,
        "title": f"the {kind} layer",
        "digest": "sha256:" + kind.encode().hex().ljust(64, "0"),
        "diff_id": "sha256:" + "0" * 64,
        "size": size,
        "media_type": "application/vnd.oci.image.layer.v1.tar+zstd",
        "origin": origin,
    }


_PROMOTED: dict[str, Any] = {
    "models": [
        {
            "uri": "models:/wine/4",
            "name": "wine",
            "version": "4",
            "run_id": "e0dcfa8cf23e478f92f9348174530df7",
            "digest": MODEL_DIGEST,
            "size": 4213,
            "flavors": ["python_function", "sklearn"],
            "python_version": "3.11.7",
            "requirements": ["mlflow==3.17.2", "scikit-learn==1.9.1"],
            "signature": {
                "inputs": [
                    {"name": "alcohol", "type": "double", "required": True},
                    {"name": "hue", "type": "double", "required": False},
                ],
                "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}],
                "params": [],
            },
        },
    ],
    "scan": {
        "name": "scan_model",
        "policy": "warn",
        "passed": True,
        "summary": "7 files hold what loading may run: 1 high (shop.load in model.pkl).",
        "measures": {"high": 1.0, "files": 7.0},
        "evidence": [
            {
                "severity": "high",
                "model": "wine",
                "name": "shop.load",
                "file": "model.pkl",
                "why": "A module of one's own is called.",
                "advice": "Look at the code of shop.",
                "allowed": False,
            },
            {
                "severity": "low",
                "model": "wine",
                "name": "code/shop.py",
                "file": "code/shop.py",
                "why": "The model brings code.",
                "advice": "Read it.",
                "allowed": True,
            },
        ],
        "model_digests": [MODEL_DIGEST],
        "url": "",
    },
    "bento": {
        "name": "wine",
        "version": "ff201666d239ce13",
        "service": "service:WineService",
        "python_version": "3.11",
        "bentoml_version": "1.4.39",
        "models": [{"tag": "wine:55de", "digest": "sha256:" + "5" * 64, "provenance": {}}],
        "digest": "sha256:" + "a" * 64,
        "verified": "on",
        "verified_reason": "The bento was started and asked 4 requests.",
    },
    "image": {
        "repository": "localhost/wine",
        "digest": IMAGE_DIGEST,
        "tags": ["ff201666d239ce13"],
        "base": "host",
        "location": "oci:build/demo/image",
        "platform": "linux/amd64",
        "layers": [
            layer("base", 30 * 1024**2),
            layer("dependencies", 150 * 1024**2, "reused"),
            layer("model", 10240),
        ],
    },
    "release": {
        "target": "bento-deployment",
        "mode": "local",
        "name": "wine",
        "namespace": "default",
        "revision": "ff201666d239ce13",
        "url": "http://127.0.0.1:41233",
        "image": f"localhost/wine@{IMAGE_DIGEST}",
        "bento_tag": "wine:ff201666d239ce13",
        "runtime": "process",
        "runtime_note": "podman is not installed",
    },
    "checks": [
        {
            "name": "smoke_test",
            "passed": True,
            "summary": "Ready after 0.3 s.",
            "measures": {"seconds_to_ready": 0.31, "request_ms": 12.71},
            "evidence": [{"endpoint": "/predict", "request": {"inputs": []}, "served": [0, 1]}],
            "model_digests": [MODEL_DIGEST],
            "url": "http://127.0.0.1:41233",
        },
        {
            "name": "compare_predictions",
            "passed": True,
            "summary": "All served values are what the model predicts.",
            "measures": {"rows": 3.0, "mismatches": 0.0, "max_abs_error": 0.0},
            "evidence": [
                {
                    "sample": True,
                    "request": "all rows",
                    "served": [0, 1, 2],
                    "expected": [0, 1, 2],
                }
            ],
            "model_digests": [MODEL_DIGEST],
            "url": "http://127.0.0.1:41233",
        },
    ],
    "prediction": {"served": [0, 1, 2], "expected": [0, 1, 2]},
    "promoted": {
        "alias": "champion",
        "changed": True,
        "models": [
            {
                "name": "wine",
                "version": "4",
                "previous": "3",
                "changed": True,
                "history_tag": "kfp-bento.promoted.champion.1",
            },
        ],
    },
    "seconds": {
        "tracking-server": 5.8,
        "pull-model": 2.2,
        "build-bento": 3.1,
        "build-image": 9.4,
        "deploy-bento": 5.0,
        "check-release": 4.2,
        "promote-model": 2.0,
        "total": 34.0,
    },
}


def promoted_run() -> dict[str, Any]:
    """A run that ended well."""
    return copy.deepcopy(_PROMOTED)


def failed_run() -> dict[str, Any]:
    """A run whose comparison found a wrong and a missing answer, so that nothing was promoted."""
    run = promoted_run()
    del run["promoted"], run["seconds"]["promote-model"]
    run["prediction"]["served"] = [0, 2]
    check = run["checks"][1]
    check["passed"] = False
    check["summary"] = "2 served values differ from what the model predicts"
    check["measures"]["mismatches"] = 2.0
    check["evidence"] = [
        {
            "request": "all rows",
            "row": 1,
            "path": "[1]",
            "served": 2,
            "expected": 1,
            "reason": "other value",
        },
        {"sample": True, "request": "all rows", "served": [0, 2], "expected": [0, 1, 2]},
    ]
    return run
