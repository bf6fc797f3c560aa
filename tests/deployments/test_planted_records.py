"""A good release on record is an annotation: whoever may edit the object may have written it."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted_records import (
    cluster_admin,
    pack,
    privileged_deployment,
    record,
    record_of_manifests,
    told_by,
)
from sample_bentos import IMAGE, generated_bento
from sample_targets import OTHER, RENDERED, SIDE
from stub_api_server import ApiServer, serve_api, write_kubeconfig

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import TARGETS, Release
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.release.good_release import (
    LARGEST_RECORD,
    believed,
    encode_good,
)
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.errors import DeploymentError, KfpBentoError

KEY = "k" * 32


def released(which: str, **more: Any) -> Release:
    target, image, bento, options = RENDERED[which]
    return TARGETS[target].render(image, bento, {**options, **more})


def refusal(text: str, primary: ObjectRef) -> str:
    with pytest.raises(DeploymentError, match="is not believed") as refused:
        believed(text, primary)
    return refused.value.message


# -- what is ours is taken -------------------------------------------------------------------


@pytest.mark.parametrize("which", RENDERED)
def test_whatever_a_target_renders_can_come_back(which: str) -> None:
    release = released(which)
    good = believed(encode_good(release), release.primary)
    assert good.release == release
    assert (good.revision, good.image, good.bento) == (
        release.revision,
        release.image,
        release.bento_tag,
    )


def test_a_release_comes_back_though_the_folder_of_its_bento_is_gone(tmp_path: Path) -> None:
    bento = generated_bento(tmp_path / "bento")
    options = {"api_token_secret": {"name": "wine-token"}}
    release = TARGETS["workload"].render(IMAGE, bento, options)
    text = encode_good(release)
    shutil.rmtree(bento.directory)
    assert believed(text, release.primary).release == release


def test_a_record_holds_what_a_user_wrote_and_no_manifest() -> None:
    told = told_by(released("workload in full"))
    assert told["options"] == RENDERED["workload in full"][3]
    assert told.keys() == {"revision", "image", "tag", "target", "bento", "options"}


def test_what_is_rendered_otherwise_by_now_is_of_both_revisions() -> None:
    release = released("workload")
    good = believed(record(release, revision="0123456789abcdef"), release.primary)
    assert good.release is not None
    assert good.revision == "0123456789abcdef" != good.release.revision
    assert good.is_at(good.revision) and good.is_at(release.revision)
    assert not good.is_at("fedcba9876543210")


def test_manifests_that_earlier_versions_have_recorded_are_not_believed() -> None:
    kept = json.loads(Path(__file__).with_name("earlier_records.json").read_text())
    for which, text in kept.items():
        primary = released(which).primary
        with pytest.raises(DeploymentError, match="earlier version") as refused:
            believed(text, primary)
        assert "Deploy the release that you want" in refused.value.hint


# -- what is not ours is refused by its name -------------------------------------------------


RESERVED_MOUNT = {"secret_files": {"/home/bentoml/bento": "s"}}
NEVER_ASKED_FOR: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("workload in full", name, {name: value})
        for name, value in {
            "hostNetwork": True,
            "hostPID": True,
            "hostAliases": [],
            "nodeName": "master",
            "initContainers": [],
            "containers": [{"name": "more", "image": IMAGE}],
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
            "securityContext": {"privileged": True},
            "command": ["sh", "-c", "id"],
            "lifecycle": {},
            "extra_pod_spec": {"hostNetwork": True},
            "manifests": [],
        }.items()
    ),
    ("workload in full", "BENTO_PATH", {"envs": {"BENTO_PATH": "/tmp"}}),
    ("workload in full", "KFP_BENTO_API_TOKEN", {"envs": {"KFP_BENTO_API_TOKEN": "known"}}),
    ("workload in full", "api_token_secret", {"api_token_secret": {"name": "a", "key": "b"}}),
    ("workload in full", "secret_files", RESERVED_MOUNT),
    ("workload in full", "secret_files", {"secret_files": {"/a/../..": "s"}}),
    ("workload in full", "config_files", {"config_files": {"/tmp": "s"}}),
    ("workload in full", "labels", {"labels": {"app.kubernetes.io/instance": "other"}}),
    ("workload in full", "annotations", {"annotations": {"kfp-bento/last-good": "again"}}),
    ("workload in full", "service_account", {"service_account": "../x"}),
    ("workload in full", "automount_token", {"automount_token": "yes"}),
    ("workload in full", "route", {"route": {"gateway": "a", "filters": []}}),
    ("workload in full", "route.weights", {"route": {"gateway": "a", "weights": {"bank": 100}}}),
    ("workload in full", "service_monitor", {"service_monitor": {"namespaceSelector": {}}}),
    ("workload in full", "autoscaling", {"autoscaling": {"scaleTargetRef": {"name": "bank"}}}),
    ("workload in full", "network_policy", {"network_policy": {"podSelector": {}}}),
    ("workload in full", "startup_seconds", {"startup_seconds": "soon"}),
    ("inference service in full", "transformer", {"transformer": {**SIDE, "privileged": True}}),
    ("inference service in full", "transformer.image", {"transformer": {"image": "evil:latest"}}),
    ("inference service in full", "logger.url", {"logger": {"url": "file:///etc/passwd"}}),
    ("stored model", "storage_uri", {"storage_uri": "ftp://x/y"}),
    ("stored model", "secret_files", {"secret_files": {"/a": "s"}}),
    ("bento deployment in full", "annotations", {"annotations": {"yatai.ai/x": "y"}}),
    (
        "bento deployment in full",
        "extra_pod_spec.containers[0].name",
        {"extra_pod_spec": {"containers": [{"name": "main", "image": IMAGE}]}},
    ),
    ("bento deployment in full", "hostNetwork", {"extra_pod_spec": {"hostNetwork": True}}),
    ("bento deployment in full", "runners", {"runners": [{"name": "x"}]}),
    ("bento deployment with runners", "runners", {"runners": [{"name": "other"}]}),
    ("bento request", "archive_url", {"archive_url": "https://x/$(id)/a.tar"}),
    ("bento request", "models[0].url", {"models": [{"tag": "a:b", "url": "file:///x/y"}]}),
]


@pytest.mark.parametrize(("which", "field", "options"), NEVER_ASKED_FOR)
def test_an_option_that_its_target_refuses_never_comes_back(
    which: str, field: str, options: dict[str, Any]
) -> None:
    release = released(which)
    assert field in refusal(record(release, options=options), release.primary)


@pytest.mark.parametrize("image", ["registry.example.com/evil:latest", "", "x", "\x1b[2J"])
def test_an_image_that_is_not_named_by_its_digest_never_comes_back(image: str) -> None:
    release = released("workload")
    assert "image" in refusal(record(release, image=image), release.primary)


FACTS = told_by(TARGETS["bento-deployment"].render(*RENDERED["bento deployment with runners"][1:3]))
RUNNER = {"name": "a", "runnableType": "", "modelTags": []}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "../x"}, "bento name"),
        ({"version": ""}, "bento version"),
        ({"version": 7}, "bento.version"),
        ({"directory": "/etc"}, "bento.directory"),
        ({"models": {}}, "bento.models"),
        ({"models": [{"tag": "a:b"}]}, "bento.models[0].digest"),
        ({"runners": [5]}, "bento.runners[0]"),
        ({"runners": [{**RUNNER, "name": "a b"}]}, "runners[0].name"),
        ({"takes_token": "yes"}, "bento.takes_token"),
        ({"bentoml_version": "x" * 5000}, "bento.bentoml_version"),
        ({"bentoml_version": "\x1b[2J"}, "bento.bentoml_version"),
    ],
)
def test_facts_that_no_bento_has_never_come_back(changes: dict[str, Any], told: str) -> None:
    release = released("bento deployment with runners")
    text = record(release, bento={**FACTS["bento"], **changes}, options={"runners": None})
    assert told in refusal(text, release.primary)


def test_labels_of_another_release_give_way_to_its_own() -> None:
    release = released("workload")
    text = record(release, options={"labels": {"kfp-bento/release": "beer"}})
    back = believed(text, release.primary).release
    assert back is not None
    assert {one["metadata"]["labels"]["kfp-bento/release"] for one in back.recorded} == {"wine"}


def test_a_release_of_another_name_namespace_or_target_is_none_of_this_one() -> None:
    text = encode_good(released("workload"))
    for place in (
        ObjectRef("apps/v1", "Deployment", "default", "beer"),
        ObjectRef("apps/v1", "Deployment", "kube-system", "wine"),
        ObjectRef("serving.kserve.io/v1beta1", "InferenceService", "default", "wine"),
    ):
        assert "It is of Deployment default/wine" in refusal(text, place)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"namespace": "kube-system"}},
        {"options": {"name": "beer"}},
        {"target": "inference-service"},
        {"target": "moon"},
        {"target": ["workload"]},
    ],
)
def test_a_record_leads_to_no_other_release(changes: dict[str, Any]) -> None:
    release = released("workload")
    refusal(record(release, **changes), release.primary)


# -- the text itself -------------------------------------------------------------------------


def packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text, 9)).decode()


@pytest.mark.parametrize(
    "text",
    [
        packed(b"[" * 100_000),
        packed(b'{"revision": "0123456789abcdef", "revision": "0123456789abcdef"}'),
        packed(b'{"revision": "0123456789abcdef", "manifests": [1]}'),
        packed(b'{"revision": "0123456789abcdef"}'),
        packed(b'{"revision": "../../../x"}'),
        packed(b'{"revision": "0123456789abcdef", "image": "\\u001b[2J", "tag": ""}'),
        packed(b'{"revision": "0123456789abcdef", "image": "", "tag": 7}'),
        packed(b'{"revision": NaN}'),
        packed(b"null"),
        packed(b"{}")[:-8],
        packed(b"{}") + packed(b"{}"),
        pack({**told_by(released("workload")), "options": []}),
        pack({**told_by(released("workload")), "bento": []}),
        "A" * (LARGEST_RECORD + 4),
        "\u00e4",
    ],
)
def test_a_text_that_is_no_record_is_an_error_and_no_more(text: str) -> None:
    refusal(text, released("workload").primary)


def test_a_small_text_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    bomb = zlib.compressobj(9)
    text = b"".join(bomb.compress(b" " * (1 << 20)) for _ in range(48)) + bomb.flush()
    told = refusal(base64.b64encode(text).decode(), released("workload").primary)
    assert "unpacks to more" in told


# -- seals -----------------------------------------------------------------------------------


def test_where_a_key_is_shared_only_what_was_sealed_with_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = released("workload")
    primary, unsealed = release.primary, encode_good(release)
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    sealed = encode_good(release)
    assert believed(sealed, primary).release == release
    text, _, seal = sealed.partition(".")
    for planted in (unsealed, f"{text}.", f"{text}.{seal[:-1]}0", f"{text}.{seal}0"):
        with pytest.raises(DeploymentError, match="has no seal"):
            believed(planted, primary)
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "another" * 8)
    with pytest.raises(DeploymentError, match="has no seal"):
        believed(sealed, primary)
    monkeypatch.delenv("KFP_BENTO_RECORD_KEY")
    assert believed(sealed, primary).release == release


def test_the_seal_of_one_release_is_none_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    sealed = encode_good(released("workload"))
    with pytest.raises(DeploymentError, match="has no seal"):
        believed(sealed, ObjectRef("apps/v1", "Deployment", "default", "beer"))


def test_a_key_that_keeps_nobody_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "short")
    with pytest.raises(KfpBentoError, match="fewer than 32"):
        encode_good(released("workload"))


# -- on a cluster ----------------------------------------------------------------------------


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    kinds = {
        "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
        "v1": {"services": "Service", "pods": "Pod", "configmaps": "ConfigMap"},
        "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
        "rbac.authorization.k8s.io/v1": {"rolebindings": "RoleBinding"},
        "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
        "serving.kserve.io/v1beta1": {"inferenceservices": "InferenceService"},
    }
    with serve_api(ApiServer(kinds=kinds)) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield server


def planted(release: Release) -> str:
    labels = release.recorded[0]["metadata"]["labels"]
    evil = (privileged_deployment(labels), cluster_admin("serving", labels))
    return record_of_manifests(*release.recorded, *evil)


def stand(api: ApiServer, release: Release, annotation: str, text: str) -> dict[str, Any]:
    """The release is applied, and somebody has written an annotation on its holder."""
    for manifest in release.recorded:
        api.objects[f"{manifest['kind'].lower()}s/{manifest['metadata']['name']}"] = manifest
    holder = next(one for one in release.recorded if ObjectRef.of(one) == release.holder)
    holder["metadata"]["annotations"][annotation] = text
    return holder


@pytest.mark.parametrize("which", ["workload", "inference service"])
@pytest.mark.parametrize("annotation", ["kfp-bento/last-good", "kfp-bento/previous-good"])
def test_a_planted_release_is_not_applied(api: ApiServer, which: str, annotation: str) -> None:
    release = released(which)
    stand(api, release, annotation, planted(release))
    for dry_run in (True, False):
        with pytest.raises(DeploymentError, match="is not believed"):
            deployments.roll_back("wine", target=release.target.kind, dry_run=dry_run)
    assert api.patches == []


def test_a_planted_release_does_not_hide_how_a_release_stands(api: ApiServer) -> None:
    release = released("workload")
    text = record(release, options={"hostPID": True})
    holder = stand(api, release, "kfp-bento/last-good", text)
    found = read_record(holder, release.primary)
    assert (found.last_good, found.image) == (None, IMAGE)
    assert "kfp-bento would never have written it: hostPID" in found.disbelieved[0].message


GAINS: list[tuple[str, dict[str, Any], str]] = [
    ("workload", {"service_account": "admin"}, "ServiceAccount admin"),
    ("workload", {"automount_token": True}, "a token of the Kubernetes API"),
    ("workload", {"env_from": ["login"]}, "Secret login"),
    ("workload", {"secret_files": {"/etc/x": "login"}}, "Secret login"),
    ("workload", {"image_pull_secrets": ["login"]}, "Secret login"),
    (
        "workload",
        {"envs": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "login", "key": "k"}}}]},
        "Secret login",
    ),
    ("inference service", {"service_account": "admin"}, "ServiceAccount admin"),
    (
        "inference service",
        {"transformer": {**SIDE, "env_from": ["login"], "service_account": "admin"}},
        "Secret login, ServiceAccount admin",
    ),
]


@pytest.mark.parametrize(("which", "options", "gain"), GAINS)
def test_without_a_seal_nothing_brings_what_the_live_release_does_not_have(
    api: ApiServer, which: str, options: dict[str, Any], gain: str
) -> None:
    release = released(which)
    stand(api, release, "kfp-bento/last-good", record(release, options=options))
    for dry_run in (True, False):
        with pytest.raises(DeploymentError, match=f"it brings {gain}, which") as refused:
            deployments.roll_back("wine", target=release.target.kind, dry_run=dry_run)
    assert "KFP_BENTO_RECORD_KEY" in refused.value.hint
    assert api.patches == []


SWITCHES = ("enable-container-privileged", "enable-host-pid", "run-container-as-root")


@pytest.mark.parametrize("which", ["bento deployment", "bento request"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_without_a_seal_no_power_over_the_node_comes_back(which: str, switch: str) -> None:
    more = {**RENDERED[which][3], "annotations": {f"yatai.ai/{switch}": "true"}}
    evil = released(which, **more)
    good = believed(encode_good(evil), evil.primary)
    with pytest.raises(DeploymentError, match=f"it brings yatai.ai/{switch}=true, which"):
        good.check_gains(released(which).recorded)
    good.check_gains(evil.recorded)


def test_what_would_not_be_brought_back_is_told_with_how_a_release_stands(api: ApiServer) -> None:
    release = released("workload")
    text = record(release, options={"service_account": "admin"})
    stand(api, release, "kfp-bento/previous-good", text)
    status = deployments.release_status("wine", target="workload")
    assert "it brings ServiceAccount admin" in status.disbelieved[0]


@pytest.mark.parametrize(("which", "options", "gain"), GAINS)
def test_what_the_live_release_has_comes_back_without_a_seal(
    api: ApiServer, which: str, options: dict[str, Any], gain: str
) -> None:
    good = released(which, **options)
    stand(api, released(which, **options), "kfp-bento/last-good", encode_good(good))
    done = deployments.roll_back("wine", target=good.target.kind, dry_run=True)
    assert done.rolled_back_to == good.revision, gain


@pytest.mark.parametrize(("which", "options", "gain"), GAINS)
def test_what_is_sealed_brings_what_it_had(
    api: ApiServer,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    options: dict[str, Any],
    gain: str,
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    good = released(which, **options)
    stand(api, released(which), "kfp-bento/last-good", encode_good(good))
    done = deployments.roll_back("wine", target=good.target.kind, dry_run=True)
    assert done.rolled_back_to == good.revision, gain


def test_what_goes_back_is_shown_before_and_a_dry_run_stops_there(api: ApiServer) -> None:
    target, _, bento, options = RENDERED["workload"]
    good = TARGETS[target].render(OTHER, bento, options)
    stand(api, released("workload"), "kfp-bento/last-good", encode_good(good))
    seen: list[str] = []
    done = deployments.roll_back(
        "wine", target="workload", before=lambda diff: seen.append(diff.text), dry_run=True
    )
    assert OTHER in seen[0]
    assert (done.verdict.reason, done.image, done.diff and done.diff.changed) == (
        "DryRun",
        OTHER,
        True,
    )
    assert {patch["query"].get("dryRun") for patch in api.patches} == {"All"}


def test_a_record_is_what_its_fields_say_and_nothing_a_terminal_obeys() -> None:
    holder = released("workload").recorded[0]
    annotations = holder["metadata"]["annotations"]
    annotations |= {"kfp-bento/bento": "wine:v1\x1b]0;owned\x07\r", "kfp-bento/image": "i" * 9000}
    found = read_record(holder)
    assert found.bento.isprintable()
    assert len(found.image) < 2000
