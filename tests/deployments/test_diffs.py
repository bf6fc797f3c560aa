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


def test_what_a_dry_run_makes_up_for_a_new_service_is_not_shown() -> None:
    port = {"port": 80, "targetPort": 3000, "nodePort": 31234}
    spec = {"clusterIP": "10.96.0.0", "clusterIPs": ["10.96.0.0"], "ports": [port]}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "wine", "namespace": "serving"},
        "spec": {**spec, "type": "NodePort"},
    }
    told = object_diff(ObjectRef.of(service), None, service).text
    assert "10.96.0.0" not in told
    assert "31234" not in told
    assert "port: 80" in told
    headless = {**service, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}
    assert "clusterIP: None\n" in object_diff(ObjectRef.of(headless), None, headless).text
    # An address that is there and would change is shown.
    other = copy.deepcopy(service)
    other["spec"]["clusterIP"] = "10.96.0.7"
    assert "10.96.0.7" in object_diff(ObjectRef.of(service), service, other).text
