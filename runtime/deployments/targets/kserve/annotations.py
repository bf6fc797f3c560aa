"""Annotations that KServe and its Knative read, and where: in another place nothing reads them."""

from __future__ import annotations

from collections.abc import Mapping

READ_ELSEWHERE: Mapping[str, str] = {
    "serving.kserve.io/": "KServe reads it on an InferenceService only.",
    "autoscaling.knative.dev/": "Knative reads it on its own revisions only.",
}
NOT_ON_PODS: Mapping[str, str] = {
    "serving.kserve.io/": "KServe reads it on the InferenceService: annotations=....",
}
