"""The life of a release on a real API server: apply, again, change, wait, roll back, delete."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_proxy import Answer, ApiProxy, Asked, serve_proxy
from live_cluster import LiveCluster
from played_controller import running
from played_targets import controllers_of, definitions_of
from pod_behaviour import becomes_ready, crash_loop, image_pull_backoff
from releases import apply_manifests, handmade, roll_out, trial_changes
from sample_bentos import make_bento
from workload_releases import workload, yatai_pair
from yatai_operator import YataiOperator

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import (
    TARGETS,
    Release,
    Rollout,
    Waiting,
    delete_release,
    diff_release,
    release_status,
    roll_back,
)
from kfp_bento.runtime.deployments.targets.permissions import needed_permissions, role_rules
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.reports import diff_summary

DEPLOYMENT = ("apps/v1", "Deployment")
# What a release is made of, one after another: another bento in another image.
FIRST, SECOND, THIRD = "a1", "b2", "c3"
# API groups with a dot in their name that need no definition.
BUILT_IN = ("autoscaling", "policy", "apps")
VERSIONS = {FIRST: "v1", SECOND: "v2", THIRD: "v3"}
# A field that our manifests set and somebody else may want otherwise.
CONTESTED: dict[str, dict[str, Any]] = {
    "workload": {"replicas": 3},
    "bento-deployment": {"bento": "mine"},
    "bento-request": {"bento": "mine"},
    "inference-service": {"predictor": {"timeout": 7}},
}


class Rolled:
    """One target in one namespace."""

    def __init__(self, target: str, namespace: str) -> None:
        self.target, self.namespace = target, namespace
        kind = TARGETS[target].primary_kind
        self.primary = (kind.api_version, kind.name)

    @property
    def place(self) -> dict[str, str]:
        return {"target": self.target, "namespace": self.namespace}

    @property
    def deployment(self) -> str:
        return "wine-predictor" if self.target == "inference-service" else "wine"

    def image(self, which: str = FIRST) -> str:
        if self.target == "bento-request":
            return f"registry.example.com/team/wine:{which}{which}"
        return f"registry.example.com/team/wine@sha256:{which * 32}"

    def made(self, which: str = FIRST, **options: Any) -> Release:
        bento = make_bento("wine", VERSIONS[which])
        given = {"namespace": self.namespace, **options}
        if self.target == "bento-request":
            given["archive_url"] = f"https://store.example.com/wine-{which}.tar.gz"
        if self.target == "inference-service":
            given["timeout"] = 5
        return TARGETS[self.target].render(self.image(which), bento, given)

    def largest(self) -> list[Release]:
        """Releases with parts that the others lack: an autoscaler, runners, a transformer."""
        if self.target == "workload":
            return [self.made(autoscaling={"minReplicas": 2, "maxReplicas": 3})]
        if self.target == "inference-service":
            # Knative names the Deployments itself, so they have to be looked for.
            knative = self.made(name="idle", deployment_mode="Knative")
            return [knative, self.made(transformer={"image": self.image(THIRD)})]
        runners = tuple({"name": f"model-{index}"} for index in range(2))
        bento = make_bento("wine", "v0", bentoml_version="1.1.11", runners=runners)
        given = {"namespace": self.namespace}
        if self.target == "bento-request":
            given["archive_url"] = "https://store.example.com/wine-v0.tar.gz"
        return [TARGETS[self.target].render(self.image("d0"), bento, given)]

    def out(self, which: str = FIRST, **options: Any) -> Rollout:
        return roll_out(self.made(which), **options)


@pytest.fixture(params=list(TARGETS))
def release(
    request: pytest.FixtureRequest, cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> Iterator[Rolled]:
    if definitions := definitions_of(request.param):
        request.getfixturevalue(definitions)
    with controllers_of(request.param, cluster.api, namespace):
        yield Rolled(request.param, namespace)


@pytest.fixture
def proxy(
    cluster: LiveCluster, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiProxy]:
    with serve_proxy(ApiProxy(kubeconfig)) as served:
        path = served.write_kubeconfig(tmp_path / "proxied")
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield served


def served_image(cluster: LiveCluster, release: Rolled) -> str:
    live = cluster.api.get(*DEPLOYMENT, release.namespace, release.deployment)
    assert live is not None
    return str(live["spec"]["template"]["spec"]["containers"][0]["image"])


def served_kinds(cluster: LiveCluster) -> set[str]:
    found = cluster.api.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    return {entry["spec"]["names"]["kind"] for entry in found}


def everything(cluster: LiveCluster, namespace: str) -> list[str]:
    served = served_kinds(cluster)
    kinds = {kind for target in TARGETS.values() for kind in (*target.kinds, *target.leftovers)}
    places = {
        (kind.api_version, kind.name)
        for kind in kinds
        if "." not in kind.group or kind.name in served or kind.group in BUILT_IN
    }
    places |= {("apps/v1", "ReplicaSet"), ("v1", "Pod")}
    return sorted(
        f"{kind}/{live['metadata']['name']}"
        for api_version, kind in places
        for live in cluster.api.list(api_version, kind, namespace)
        if live["metadata"]["name"] != "kube-root-ca.crt"
    )


def test_a_release_serves_and_says_so(cluster: LiveCluster, release: Rolled) -> None:
    done = release.out()
    assert done.verdict.ready, done.verdict
    assert {entry.change for entry in done.applied} == {"created"}
    status = release_status("wine", **release.place)
    assert status.ready
    assert (status.revision, status.image, status.bento) == (
        done.revision,
        release.image(),
        "wine:v1",
    )
    assert status.last_good == done.revision


def test_the_same_release_again_is_no_change_and_no_new_revision(
    cluster: LiveCluster, release: Rolled
) -> None:
    first = release.out()
    before = cluster.api.get(*release.primary, release.namespace, "wine")
    again = release.out()
    after = cluster.api.get(*release.primary, release.namespace, "wine")
    assert not again.changed
    assert again.revision == first.revision
    assert before is not None and after is not None
    assert before["metadata"]["generation"] == after["metadata"]["generation"]
    assert before["metadata"]["annotations"] == after["metadata"]["annotations"]
    assert len(cluster.api.list("apps/v1", "ReplicaSet", release.namespace)) == 1


def test_a_dry_run_says_what_would_happen(cluster: LiveCluster, release: Rolled) -> None:
    assert set(trial_changes(release.made().recorded)) == {"created"}
    assert everything(cluster, release.namespace) == []
    apply_manifests(release.made().recorded)
    assert set(trial_changes(release.made().recorded)) == {"unchanged"}
    assert "changed" in trial_changes(release.made(SECOND).recorded)


def test_a_change_serves_the_new_image_and_removes_what_the_old_left(
    cluster: LiveCluster, release: Rolled
) -> None:
    release.out()
    changed = release.out(SECOND)
    assert changed.verdict.ready, changed.verdict
    assert served_image(cluster, release) == release.image(SECOND)
    left = ["wine--v1"] if release.target.startswith("bento") else []
    assert [ref.name for ref in changed.removed] == left
    assert release_status("wine", **release.place).last_good == changed.revision


def test_a_failed_release_rolls_back_by_itself(cluster: LiveCluster, release: Rolled) -> None:
    good = release.out()
    cluster.pods.behave(release.namespace, image_pull_backoff(), image="b2b2")
    failed = release.out(SECOND, roll_back_on_failure=True)
    assert failed.verdict.reason in ("ErrImagePull", "ImagePullBackOff"), failed.verdict
    assert failed.rolled_back_to == good.revision
    assert failed.restored is not None and failed.restored.ready, failed.restored
    assert served_image(cluster, release) == release.image()
    status = release_status("wine", **release.place)
    assert (status.revision, status.ready) == (good.revision, True)


def test_a_failed_release_stays_for_looking_at_when_nobody_asked(
    cluster: LiveCluster, release: Rolled
) -> None:
    release.out()
    cluster.pods.behave(release.namespace, crash_loop(), image="b2b2")
    failed = release.out(SECOND)
    assert failed.verdict.reason == "CrashLoopBackOff"
    assert any("ModuleNotFoundError" in line for line in failed.verdict.evidence)
    assert any("BackOff" in line for line in failed.verdict.evidence)
    assert served_image(cluster, release) == release.image(SECOND)
    restored = roll_back("wine", **release.place, waiting=Waiting(60))
    assert restored.verdict.ready
    assert served_image(cluster, release) == release.image()


def test_rolling_back_to_what_serves_changes_nothing(cluster: LiveCluster, release: Rolled) -> None:
    release.out()
    assert not roll_back("wine", **release.place, waiting=Waiting(60)).changed


def test_without_a_good_release_there_is_nothing_to_roll_back_to(
    cluster: LiveCluster, release: Rolled
) -> None:
    apply_manifests(release.made().manifests)
    with pytest.raises(DeploymentError, match="no good release on record"):
        roll_back("wine", **release.place)


def test_deleting_leaves_nothing_and_can_be_done_twice(
    cluster: LiveCluster, release: Rolled
) -> None:
    release.out()
    bystander = workload(release.namespace, name="other")
    for manifest in bystander:
        cluster.api.apply(manifest)
    gone = delete_release("wine", **release.place)
    names = {ref.name.partition("--")[0].removesuffix("-kfp-bento") for ref in gone.removed}
    assert names == {"wine"}
    left = {entry for entry in everything(cluster, release.namespace) if "other" not in entry}
    assert left == set()
    assert cluster.api.get(*DEPLOYMENT, release.namespace, "other") is not None
    assert delete_release("wine", **release.place).removed == ()


def test_what_another_manager_made_under_our_labels_is_kept(
    cluster: LiveCluster, release: Rolled
) -> None:
    release.out()
    labels = {"kfp-bento/release": "wine", "kfp-bento/kind": release.primary[1].lower()}
    stranger = dict(release.made().manifests[-1])
    stranger["metadata"] = {"name": "stranger", "namespace": release.namespace, "labels": labels}
    if "bento" in stranger["spec"]:
        stranger["spec"]["bento"] = "another"  # one that another BentoDeployment names stays
    cluster.api.apply(stranger)
    gone = delete_release("wine", **release.place)
    assert [ref.name for ref in gone.kept] == ["stranger"]
    place = (stranger["apiVersion"], stranger["kind"], release.namespace)
    assert cluster.api.get(*place, "stranger") is not None


def test_a_field_of_somebody_else_is_a_conflict_with_the_owner_s_name(
    cluster: LiveCluster, release: Rolled
) -> None:
    release.out()
    mine = CONTESTED[release.target]
    cluster.api.apply(
        {
            "apiVersion": release.primary[0],
            "kind": release.primary[1],
            "metadata": {"name": "wine", "namespace": release.namespace},
            "spec": mine,
        },
        manager="somebody-else",
        force=True,
    )
    with pytest.raises(DeploymentError, match=rf"somebody-else owns \.spec\.{next(iter(mine))}"):
        release.out(SECOND)
    if release.target in ("workload", "inference-service"):
        assert served_image(cluster, release) == release.image()
    assert release.out(SECOND, force=True).verdict.ready


def test_the_diff_says_what_an_apply_does(cluster: LiveCluster, release: Rolled) -> None:
    new = diff_release(release.made())
    assert {entry.change for entry in new.objects} == {"created"}
    apply_manifests(release.made().recorded)
    cluster.until(
        "the controllers are done",
        lambda: release_status("wine", **release.place).ready,
    )
    same = diff_release(release.made())
    assert not same.changed, same.text
    other = diff_release(release.made(SECOND))
    assert release.image(SECOND).rpartition(":")[2] in other.text
    assert "managedFields" not in other.text and "status" not in other.text
    removed = [one.ref.name for one in other.objects if one.change == "removed"]
    assert removed == (["wine--v1"] if release.target.startswith("bento") else [])


def test_secrets_are_masked_in_the_diff(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    metadata = {"name": "wine", "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
    apply_manifests([{**secret, "data": {"password": "aHVudGVyMg=="}}])
    changed = {**secret, "data": {"password": "aHVudGVyMw=="}}
    told = diff_release(handmade("workload", [*workload(namespace), changed]))
    assert told.changed
    assert "password" in told.text and "aHVudGVy" not in diff_summary(told)


# -- faults ----------------------------------------------------------------------------------


FAULTS: dict[str, Answer] = {
    "409": Answer(409, "Conflict"),
    "429": Answer(429, "TooManyRequests", (("Retry-After", "1"),)),
    "500": Answer(500, "InternalError"),
    "503": Answer(503, "ServiceUnavailable"),
    "cut": Answer(0),
    "answer lost": Answer(0, after=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_passing_failures_lose_nothing_and_double_nothing(
    cluster: LiveCluster, release: Rolled, proxy: ApiProxy, fault: Answer
) -> None:
    struck: dict[tuple[str, str, bool], int] = {}

    def harm(asked: Asked) -> Answer | None:
        if asked.verb == "watch":
            return None
        key = (asked.verb, asked.resource, asked.is_trial)
        struck[key] = struck.get(key, 0) + 1
        return fault if struck[key] == 1 else None

    proxy.harm = harm
    done = release.out()
    assert done.verdict.ready, done.verdict
    assert {entry.change for entry in done.applied} == {"created"}
    assert len(cluster.api.list("apps/v1", "ReplicaSet", release.namespace)) == 1
    assert sum(count > 1 for count in struck.values()) >= 4


def test_a_server_that_fails_for_good_is_given_up(
    cluster: LiveCluster, release: Rolled, proxy: ApiProxy
) -> None:
    proxy.harm = lambda asked: Answer(500) if asked.method == "PATCH" else None
    begun = time.monotonic()
    with pytest.raises(DeploymentError, match=r"refused \(500\)"):
        roll_out(release.made(), patience_seconds=2.0)
    assert time.monotonic() - begun < 10
    assert everything(cluster, release.namespace) == []


def test_an_expired_token_is_read_again(
    cluster: LiveCluster,
    release: Rolled,
    proxy: ApiProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy.token = "first"
    path = proxy.write_kubeconfig(tmp_path / "expiring", token="first")
    monkeypatch.setenv("KUBECONFIG", str(path))

    def expires(asked: Asked) -> None:
        if asked.resource == "pods" and proxy.token == "first":
            proxy.write_kubeconfig(path, token="second")
            proxy.token = "second"

    proxy.harm = expires
    done = release.out()
    assert done.verdict.ready, done.verdict
    # A watch that is refused is no error, and reads nothing anew: the next look does.
    assert proxy.tokens_refused in (1, 2)


def test_a_token_that_stays_refused_is_an_error(
    cluster: LiveCluster,
    release: Rolled,
    proxy: ApiProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = proxy.write_kubeconfig(tmp_path / "expired", token="old")
    monkeypatch.setenv("KUBECONFIG", str(path))
    proxy.token = "new"
    with pytest.raises(DeploymentError, match="401") as refused:
        release.out()
    assert "Log in again" in refused.value.hint
    assert "old" not in str(refused.value)


def test_watches_that_are_cut_every_second_change_nothing(
    cluster: LiveCluster, release: Rolled, proxy: ApiProxy
) -> None:
    proxy.watch_seconds = 1.0
    cluster.pods.behave(release.namespace, becomes_ready(after=5))
    done = release.out()
    assert done.verdict.ready, done.verdict
    assert proxy.watches_cut >= 2


def test_a_restart_of_the_api_server_is_waited_out(cluster: LiveCluster, release: Rolled) -> None:
    cluster.pods.behave(release.namespace, becomes_ready(after=2))
    with ThreadPoolExecutor(1) as pool:
        rolling = pool.submit(release.out, seconds=120.0)
        cluster.until(
            "the Deployment",
            lambda: cluster.api.get(*DEPLOYMENT, release.namespace, release.deployment),
        )
        cluster.restart_api_server(abruptly=True)
        done = rolling.result(timeout=150)
    assert done.verdict.ready, done.verdict


def test_two_runs_of_the_same_release_at_once_both_succeed(
    cluster: LiveCluster, release: Rolled
) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: release.out(), range(2)))
    assert [done.verdict.ready for done in both] == [True, True], both
    assert len(cluster.api.list("apps/v1", "ReplicaSet", release.namespace)) == 1


def test_of_two_different_releases_at_once_one_wins_whole(
    cluster: LiveCluster, release: Rolled
) -> None:
    cluster.pods.behave(release.namespace, becomes_ready(after=1))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(release.out, (FIRST, SECOND)))
    reasons = sorted(done.verdict.reason for done in both)
    assert reasons in (["Ready", "Superseded"], ["Ready", "Ready"]), both
    status = release_status("wine", **release.place)
    assert status.ready
    assert status.image == served_image(cluster, release)
    served = FIRST if status.image == release.image() else SECOND
    for ref in status.objects:
        live = cluster.api.get(ref.api_version, ref.kind, release.namespace, ref.name)
        assert live is not None
        if "--" in ref.name and not ref.name.endswith(VERSIONS[served]):
            continue  # the loser's Bento, which the next release removes
        # What several releases may use has a revision of its own.
        if ref.kind not in ("InferenceService", "Bento", "BentoRequest"):
            assert live["metadata"]["annotations"]["kfp-bento/revision"] == status.revision


@pytest.mark.parametrize("release", ["inference-service"], indirect=True)
def test_what_the_loser_writes_after_it_has_lost_is_repaired(
    cluster: LiveCluster, release: Rolled
) -> None:
    """Its facts lie on another object, which says that the winner has won."""
    cluster.pods.behave(release.namespace, becomes_ready(after=3))
    with ThreadPoolExecutor(1) as pool:
        winner = pool.submit(release.out)
        cluster.until(
            "the winner's Deployment",
            lambda: cluster.api.get(*DEPLOYMENT, release.namespace, release.deployment),
        )
        late = release.made(SECOND).recorded[-1]
        assert late["kind"] == "InferenceService"
        cluster.api.apply(late, manager="kfp-bento")
        done = winner.result(timeout=90)
    assert done.verdict.ready, done.verdict
    assert served_image(cluster, release) == release.image()


# -- yatai's own -----------------------------------------------------------------------------


def test_runners_that_the_bento_no_longer_has_are_removed(
    cluster: LiveCluster, yatai: str, namespace: str, kubeconfig: Path
) -> None:
    with running(YataiOperator(cluster.api, namespace)):
        old = roll_out(handmade("bento-deployment", yatai_pair(namespace, runners=2)))
        assert old.verdict.ready, old.verdict
        assert "wine-runner-1 1/1" in old.verdict.message
        stray = workload(namespace, name="wine-runner-7")
        for manifest in stray:
            manifest["metadata"]["labels"] = {
                "yatai.ai/bento-deployment": "wine",
                "yatai.ai/bento-deployment-component-type": "runner",
            }
            cluster.api.apply(manifest)
        new = roll_out(handmade("bento-deployment", yatai_pair(namespace, version="v2")))
        assert new.verdict.ready, new.verdict
    removed = [f"{ref.kind}/{ref.name.partition('-runner-')[0]}" for ref in new.removed]
    assert sorted(removed) == [
        "Bento/wine--v1",
        "Deployment/wine",
        "Deployment/wine",
        "HorizontalPodAutoscaler/wine",
        "HorizontalPodAutoscaler/wine",
        "Service/wine",
        "Service/wine",
    ]
    left = everything(cluster, namespace)
    assert "Deployment/wine-runner-7" in left, "it is not the BentoDeployment's"
    assert "Deployment/wine-runner-0" not in left


# -- rights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_the_shipped_role_and_bindings_are_accepted(
    cluster: LiveCluster, namespace: str, target: str
) -> None:
    folder = Path(deployments.__file__).with_name("rbac") / target
    for name in ("role.yaml", "rolebinding.yaml"):
        for manifest in yaml.safe_load_all((folder / name).read_text()):
            manifest["metadata"]["namespace"] = namespace
            cluster.api.apply(manifest)


def test_the_rights_that_are_said_to_be_needed_are_enough_and_all_used(
    cluster: LiveCluster,
    release: Rolled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = needed_permissions(targets=[release.target])
    limited = cluster.user(release.namespace, role_rules(needed))
    config = ApiProxy(cluster.kubeconfig)
    token = json.loads(limited.read_text())["users"][0]["user"]["token"]
    with serve_proxy(config) as proxy:
        path = proxy.write_kubeconfig(tmp_path / "limited", token=token)
        monkeypatch.setenv("KUBECONFIG", str(path))
        diff_release(release.made())
        for larger in release.largest():
            done = roll_out(larger)
            assert done.verdict.ready, done.verdict
        assert release.out().verdict.ready
        cluster.pods.behave(release.namespace, crash_loop(), image="b2b2")
        assert not release.out(SECOND, roll_back_on_failure=True).verdict.ready
        release_status("wine", **release.place)
        roll_back("wine", **release.place, waiting=Waiting(60))
        delete_release("wine", **release.place)
        used = proxy.permissions()
    granted = {(one.group, one.resource, one.verb) for one in needed}
    assert used <= granted
    kinds = (*TARGETS[release.target].kinds, *TARGETS[release.target].leftovers)
    rendered = {
        one["kind"] for made in (release.made(), *release.largest()) for one in made.manifests
    }
    absent = {(kind.group, kind.plural) for kind in kinds if kind.name not in rendered}
    assert {entry for entry in granted - used if entry[:2] not in absent} == set()
