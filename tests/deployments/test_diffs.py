"""What a diff shows, and what it keeps to itself."""

from __future__ import annotations

import copy
from typing import Any

from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, object_diff
from kfp_bento.runtime.reports import diff_summary

LIVE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "wine",
        "namespace": "serving",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kfp-bento"}],
        "annotations": {"deployment.kubernetes.io/revision": "4", "team": "wine"},
    },
    "spec": {"replicas": 1},
    "status": {"replicas": 1},
}
REF = ObjectRef.of(LIVE)


def changed(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(LIVE), **fields}


def test_what_the_server_writes_is_no_change() -> None:
    other = changed(status={"replicas": 2})
    other["metadata"] |= {"resourceVersion": "8", "generation": 4, "managedFields": []}
    assert object_diff(REF, LIVE, other).change == "unchanged"


def test_a_change_is_shown_as_lines() -> None:
    told = object_diff(REF, LIVE, changed(spec={"replicas": 2}))
    assert told.change == "changed"
    assert "-  replicas: 1\n+  replicas: 2\n" in told.text
    assert told.text.startswith("--- live/deployment/wine\n+++ release/deployment/wine\n")
    for hidden in ("uid", "resourceVersion", "managedFields", "status", "kubernetes.io/revision"):
        assert hidden not in told.text


def test_a_new_object_is_shown_whole() -> None:
    told = object_diff(REF, None, LIVE)
    assert told.change == "created"
    assert "+  replicas: 1" in told.text


def test_values_of_secrets_are_masked_and_their_change_seen() -> None:
    def secret(value: str) -> dict[str, Any]:
        return {**changed(), "kind": "Secret", "data": {"password": value}}

    told = object_diff(REF, secret("aHVudGVyMg=="), secret("aHVudGVyMw=="))
    assert told.change == "changed"
    assert "password: masked-" in told.text
    assert "aHVudGVy" not in told.text
    assert object_diff(REF, secret("c2FtZQ=="), secret("c2FtZQ==")).change == "unchanged"


def test_the_document_names_every_object_and_fences_what_it_quotes() -> None:
    quoting = changed(spec={"note": "```\n# not a heading"})
    diff = ReleaseDiff((object_diff(REF, LIVE, quoting), object_diff(REF, LIVE, LIVE)))
    assert diff.changed
    told = diff_summary(diff)
    assert "| Deployment serving/wine | changed |" in told
    assert "| Deployment serving/wine | unchanged |" in told
    assert "````diff" in told


def test_no_change_is_said() -> None:
    diff = ReleaseDiff((object_diff(REF, LIVE, LIVE),))
    assert not diff.changed
    assert (diff.text, "Nothing changes." in diff_summary(diff)) == ("", True)
