"""What others write on the objects of a release, on a real API server: it brings them nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from live_cluster import LiveCluster
from planted_records import cluster_admin, privileged_deployment, record, record_of_manifests
from pod_behaviour import crash_loop
from releases import apply_manifests, roll_out
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND, THIRD

from kfp_bento.runtime.deployments import (
    TARGETS,
    Release,
    Waiting,
    delete_release,
    release_status,
    roll_back,
)
from kfp_bento.runtime.deployments.release.good_release import encode_good
from kfp_bento.runtime.errors import DeploymentError

DEPLOYMENT = ("apps/v1", "Deployment")
CONFIG_MAP = ("v1", "ConfigMap")
SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
LAST_GOOD = "kfp-bento/last-good"
OURS = "kfp-bento"


def made(target: str, namespace: str, image: str, name: str = "wine", **options: Any) -> Release:
    given = {"namespace": namespace, "name": name, **options}
    return TARGETS[target].render(image, make_bento(), given)


def annotate(
    cluster: LiveCluster, kind: tuple[str, str], namespace: str, name: str, **by: str
) -> None:
    cluster.api.merge(*kind, namespace, name, {"metadata": {"annotations": by}})


def harmed(cluster: LiveCluster, namespace: str) -> list[str]:
    rbac = "rbac.authorization.k8s.io/v1"
    found = [
        cluster.api.get(*DEPLOYMENT, "kube-system", "miner") and "a privileged Deployment",
        cluster.api.get(rbac, "RoleBinding", namespace, "everything") and "a RoleBinding",
    ]
    return [one for one in found if one]


def planted(ours: Release, namespace: str) -> str:
    labels = ours.recorded[0]["metadata"]["labels"]
    evil = (privileged_deployment(labels), cluster_admin(namespace, labels))
    return record_of_manifests(*ours.recorded, *evil)


def test_a_planted_release_is_not_applied(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    assert roll_out(made("workload", namespace, FIRST)).verdict.ready
    text = planted(made("workload", namespace, FIRST), namespace)
    annotate(cluster, DEPLOYMENT, namespace, "wine", **{LAST_GOOD: text})
    with pytest.raises(DeploymentError, match="is not believed"):
        roll_back("wine", target="workload", namespace=namespace, waiting=Waiting(5))
    status = release_status("wine", target="workload", namespace=namespace)
    assert (status.ready, status.last_good) == (True, "")
    assert "not believed" in status.disbelieved[0]
    assert harmed(cluster, namespace) == []


def test_a_release_that_fails_does_not_fall_back_to_a_planted_one(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    assert roll_out(made("workload", namespace, FIRST)).verdict.ready
    text = planted(made("workload", namespace, FIRST), namespace)
    annotate(cluster, DEPLOYMENT, namespace, "wine", **{LAST_GOOD: text})
    cluster.pods.behave(namespace, crash_loop(), image="b2b2")
    second = made("workload", namespace, SECOND)
    failed = roll_out(second, roll_back_on_failure=True)
    assert (failed.verdict.reason, failed.rolled_back_to) == ("CrashLoopBackOff", "")
    assert "not believed" in failed.not_restored
    assert harmed(cluster, namespace) == []


def test_the_next_good_release_does_not_pass_a_planted_one_on(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    assert roll_out(made("workload", namespace, FIRST)).verdict.ready
    text = planted(made("workload", namespace, FIRST), namespace)
    marks = {LAST_GOOD: text, "kfp-bento/previous-good": text}
    annotate(cluster, DEPLOYMENT, namespace, "wine", **marks)
    second = roll_out(made("workload", namespace, SECOND))
    live = cluster.api.get(*DEPLOYMENT, namespace, "wine") or {}
    assert text not in live["metadata"]["annotations"].values()
    status = release_status("wine", target="workload", namespace=namespace)
    assert (status.last_good, status.previous_good) == (second.revision, "")


def test_who_may_edit_one_config_map_gets_no_objects_by_it(
    cluster: LiveCluster, kserve: str, namespace: str, kubeconfig: Path
) -> None:
    ours = made("inference-service", namespace, FIRST)
    apply_manifests(ours.recorded)
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}]
    config = cluster.user(namespace, rules, "editor")
    editor = type(cluster.api)(config)
    text = planted(ours, namespace)
    patch = {"metadata": {"annotations": {LAST_GOOD: text}}}
    editor.merge(*CONFIG_MAP, namespace, "wine-kfp-bento", patch)
    with pytest.raises(DeploymentError, match="is not believed"):
        roll_back("wine", target="inference-service", namespace=namespace, waiting=Waiting(2))
    assert harmed(cluster, namespace) == []


def test_with_a_shared_key_who_may_edit_one_config_map_chooses_no_image(
    cluster: LiveCluster,
    kserve: str,
    namespace: str,
    kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = made("inference-service", namespace, FIRST)
    apply_manifests(ours.recorded)
    other = made("inference-service", namespace, THIRD)
    annotate(
        cluster,
        CONFIG_MAP,
        namespace,
        "wine-kfp-bento",
        **{LAST_GOOD: encode_good(other)},
    )
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "k" * 40)
    with pytest.raises(DeploymentError, match="has no seal"):
        roll_back("wine", target="inference-service", namespace=namespace, waiting=Waiting(2))
    live = cluster.api.get(*SERVICE, namespace, "wine")
    assert THIRD not in json.dumps(live)


def test_with_a_shared_key_releases_go_back_as_ever(
    cluster: LiveCluster, namespace: str, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "k" * 40)
    for image in (FIRST, SECOND):
        assert roll_out(made("workload", namespace, image)).verdict.ready
    shown: list[str] = []
    back = roll_back(
        "wine",
        target="workload",
        namespace=namespace,
        waiting=Waiting(60),
        before=lambda diff: shown.append(diff.text),
    )
    assert (back.image, back.verdict.ready) == (FIRST, True)
    assert FIRST in shown[0]
    assert back.diff is not None and back.diff.changed


def test_a_dry_run_changes_nothing(cluster: LiveCluster, namespace: str, kubeconfig: Path) -> None:
    for image in (FIRST, SECOND):
        assert roll_out(made("workload", namespace, image)).verdict.ready
    before = cluster.api.get(*DEPLOYMENT, namespace, "wine") or {}
    done = roll_back("wine", target="workload", namespace=namespace, dry_run=True)
    after = cluster.api.get(*DEPLOYMENT, namespace, "wine") or {}
    assert (done.image, done.verdict.reason) == (FIRST, "DryRun")
    assert before["metadata"]["annotations"] == after["metadata"]["annotations"]
    assert before["spec"] == after["spec"]


def test_labels_hand_no_object_of_another_name_over(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    for name in ("wine", "beer"):
        apply_manifests(made("workload", namespace, FIRST, name).recorded)
    labels = {"kfp-bento/release": "wine", "kfp-bento/kind": "deployment"}
    cluster.api.merge(*DEPLOYMENT, namespace, "beer", {"metadata": {"labels": labels}})
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "bank", "namespace": namespace, "labels": labels},
        "spec": {"ports": [{"port": 80}]},
    }
    cluster.api.apply(stranger, manager=OURS)
    gone = delete_release("wine", target="workload", namespace=namespace)
    assert {ref.name for ref in gone.removed} == {"wine"}
    assert {ref.name for ref in gone.kept} == {"beer", "bank"}
    assert cluster.api.get(*DEPLOYMENT, namespace, "beer")
    assert cluster.api.get("v1", "Service", namespace, "bank")


def test_an_option_that_its_target_does_not_have_is_named(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    ours = made("workload", namespace, FIRST)
    assert roll_out(ours).verdict.ready
    text = record(ours, options={"hostPID": True})
    annotate(cluster, DEPLOYMENT, namespace, "wine", **{LAST_GOOD: text})
    with pytest.raises(DeploymentError, match="hostPID: the target workload has no such option"):
        roll_back("wine", target="workload", namespace=namespace, waiting=Waiting(5))


def test_a_planted_record_brings_no_secret_and_no_account(
    cluster: LiveCluster, kserve: str, namespace: str, kubeconfig: Path
) -> None:
    ours = made("inference-service", namespace, FIRST)
    apply_manifests(ours.recorded)
    wanted = {"service_account": "admin", "env_from": ["login"]}
    text = record(ours, options=wanted)
    annotate(cluster, CONFIG_MAP, namespace, "wine-kfp-bento", **{LAST_GOOD: text})
    with pytest.raises(DeploymentError, match="it brings Secret login, ServiceAccount admin"):
        roll_back("wine", target="inference-service", namespace=namespace, waiting=Waiting(2))
    assert "admin" not in json.dumps(cluster.api.get(*SERVICE, namespace, "wine"))


def test_a_release_that_fails_falls_back_to_the_secrets_that_it_has_left(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    secrets = {"image_pull_secrets": ["before"]}
    good = roll_out(made("workload", namespace, FIRST, **secrets))
    cluster.pods.behave(namespace, crash_loop(), image="b2b2")
    failed = roll_out(made("workload", namespace, SECOND), roll_back_on_failure=True)
    assert failed.rolled_back_to == good.revision
    assert failed.restored is not None and failed.restored.ready
