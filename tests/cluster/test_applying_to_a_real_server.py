"""Server-side apply of what is rendered, judged by a real API server."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kube_api import KubeApi, Refused
from live_cluster import LiveCluster
from releases import apply_manifests, render_bento_deployment, trial_changes
from sample_bentos import IMAGE, make_bento
from sample_renderings import every_rendering

from kfp_bento.runtime.deployments import TARGETS, diff_release
from kfp_bento.runtime.errors import DeploymentError

Manifests = list[dict[str, Any]]
RENDERINGS = list(every_rendering())
ENOUGH = [
    {
        "apiGroups": ["resources.yatai.ai"],
        "resources": ["bentoes"],
        "verbs": ["get", "create", "patch"],
    },
    {
        "apiGroups": ["serving.yatai.ai"],
        "resources": ["bentodeployments"],
        "verbs": ["get", "create", "patch"],
    },
]


@pytest.fixture
def manifests(namespace: str) -> Manifests:
    return render_bento_deployment(
        IMAGE, make_bento(), namespace=namespace, autoscaling={"minReplicas": 1, "maxReplicas": 2}
    )


@pytest.fixture
def other_user(cluster: LiveCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process a user with other rights."""

    def become(rules: list[dict[str, Any]]) -> Path:
        path = cluster.user(namespace, rules)
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(path))
        return path

    return become


def stored(api: KubeApi, manifest: dict[str, Any]) -> dict[str, Any] | None:
    metadata = manifest["metadata"]
    return api.get(
        manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"]
    )


def existing(api: KubeApi, manifest: dict[str, Any]) -> dict[str, Any]:
    found = stored(api, manifest)
    assert found is not None, f"{manifest['kind']} is not there"
    return found


def versions(api: KubeApi, manifests: Manifests) -> list[tuple[str, int]]:
    metadata = [existing(api, manifest)["metadata"] for manifest in manifests]
    return [(entry["resourceVersion"], entry["generation"]) for entry in metadata]


# -- every generation of the CRDs ------------------------------------------------------------


@pytest.mark.parametrize(("image", "bento", "options"), RENDERINGS)
def test_what_is_rendered_is_accepted_and_kept_whole(
    yatai_generation: str,
    cluster: LiveCluster,
    namespace: str,
    kubeconfig: Path,
    image: str,
    bento: Any,
    options: Any,
) -> None:
    manifests = render_bento_deployment(image, bento, **{**options, "namespace": namespace})
    for manifest in manifests:
        cluster.api.apply(manifest, dry_run=True)
        assert stored(cluster.api, manifest) is None
    apply_manifests(manifests)
    for manifest in manifests:
        assert existing(cluster.api, manifest)["spec"] == manifest["spec"]


@pytest.mark.parametrize(("image", "bento", "options"), RENDERINGS)
def test_applying_again_changes_nothing(
    yatai_generation: str,
    cluster: LiveCluster,
    namespace: str,
    kubeconfig: Path,
    image: str,
    bento: Any,
    options: Any,
) -> None:
    manifests = render_bento_deployment(image, bento, **{**options, "namespace": namespace})
    apply_manifests(manifests)
    before = versions(cluster.api, manifests)
    apply_manifests(manifests)
    assert versions(cluster.api, manifests) == before


@pytest.mark.parametrize(
    ("index", "field", "value"),
    [(0, "replicas", 2), (1, "replicas", 2), (1, "mainContainer", {}), (1, "volumes", [])],
)
def test_control_an_unknown_field_is_refused(
    yatai_generation: str,
    cluster: LiveCluster,
    manifests: Manifests,
    index: int,
    field: str,
    value: Any,
) -> None:
    wrong = copy.deepcopy(manifests[index])
    wrong["spec"][field] = value
    with pytest.raises(Refused, match=field) as refused:
        cluster.api.apply(wrong, dry_run=True)
    assert refused.value.status in (400, 500)  # SSA answers 500 to a field without a type
    assert stored(cluster.api, wrong) is None


def test_control_a_number_for_a_quantity_is_refused(
    yatai_generation: str, cluster: LiveCluster, manifests: Manifests
) -> None:
    wrong = copy.deepcopy(manifests[1])
    wrong["spec"]["resources"]["limits"]["cpu"] = 1
    with pytest.raises(Refused, match="cpu"):
        cluster.api.apply(wrong, dry_run=True)


# -- apply_manifests -------------------------------------------------------------------------


def test_a_dry_run_leaves_nothing_behind(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    assert trial_changes(manifests) == ["created", "created"]
    assert [stored(cluster.api, manifest) for manifest in manifests] == [None, None]


def test_the_server_is_asked_to_refuse_what_it_does_not_know(
    yatai: str,
    cluster: LiveCluster,
    kubeconfig: Path,
    manifests: Manifests,
) -> None:
    # Past our own check, which is done where manifests are rendered.
    manifests[1]["spec"]["replicas"] = 2
    with pytest.raises(DeploymentError, match="replicas"):
        apply_manifests(manifests)
    assert [stored(cluster.api, manifest) for manifest in manifests] == [None, None]


def test_the_fields_belong_to_kfp_bento(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    apply_manifests(manifests)
    for manifest in manifests:
        [entry] = existing(cluster.api, manifest)["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"]) == ("kfp-bento", "Apply")


def test_a_setting_that_is_left_out_the_next_time_goes_away(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, namespace: str, manifests: Manifests
) -> None:
    apply_manifests(manifests)
    assert "autoscaling" in existing(cluster.api, manifests[1])["spec"]
    apply_manifests(render_bento_deployment(IMAGE, make_bento(), namespace=namespace))
    after = existing(cluster.api, manifests[1])
    assert "autoscaling" not in after["spec"]
    assert after["metadata"]["generation"] == 2


def test_what_others_added_stays(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    apply_manifests(manifests)
    metadata = manifests[1]["metadata"]
    cluster.api.merge(
        *("serving.yatai.ai/v2alpha1", "BentoDeployment"),
        *(metadata["namespace"], metadata["name"]),
        {"metadata": {"annotations": {"example.com/owner": "ops"}}},
        manager="kubectl-annotate",
    )
    apply_manifests(manifests)
    kept = existing(cluster.api, manifests[1])["metadata"]["annotations"]
    assert kept["example.com/owner"] == "ops"


def scale_as(cluster: LiveCluster, manifests: Manifests, manager: str, replicas: int) -> None:
    metadata = manifests[1]["metadata"]
    cluster.api.merge(
        *("serving.yatai.ai/v2alpha1", "BentoDeployment"),
        *(metadata["namespace"], metadata["name"]),
        {"spec": {"autoscaling": {"maxReplicas": replicas}}},
        manager=manager,
    )


def test_a_conflict_names_the_owner_and_its_fields(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    apply_manifests(manifests)
    scale_as(cluster, manifests, "argocd-controller", 9)
    before = versions(cluster.api, manifests)
    with pytest.raises(DeploymentError) as conflicted:
        apply_manifests(manifests)
    told = conflicted.value.message
    assert "argocd-controller" in told
    assert "maxReplicas" in told
    assert versions(cluster.api, manifests) == before


def test_force_takes_fields_over(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    apply_manifests(manifests)
    scale_as(cluster, manifests, "argocd-controller", 9)
    apply_manifests(manifests, force=True)
    assert existing(cluster.api, manifests[1])["spec"]["autoscaling"]["maxReplicas"] == 2
    apply_manifests(manifests)  # and they are ours from then on


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_restart_of_the_api_server_between_two_applies_changes_nothing(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests, abruptly: bool
) -> None:
    apply_manifests(manifests)
    before = versions(cluster.api, manifests)
    cluster.restart_api_server(abruptly=abruptly)
    apply_manifests(manifests)
    assert versions(cluster.api, manifests) == before


def test_an_api_server_that_is_away_is_said_to_be_away(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    with (
        cluster.api_server_down(),
        pytest.raises(DeploymentError, match=f"{cluster.url} does not answer"),
    ):
        apply_manifests(manifests)
    apply_manifests(manifests)


def at_once(actions: list[Callable[[], None]]) -> list[BaseException | None]:
    """Runs all actions at the same moment and gives what each raised."""
    start = threading.Barrier(len(actions))

    def run(action: Callable[[], None]) -> BaseException | None:
        start.wait(timeout=30)
        try:
            action()
        except DeploymentError as error:
            return error
        return None

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def test_equal_applies_at_once_all_succeed(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, manifests: Manifests
) -> None:
    outcomes = at_once([lambda: apply_manifests(manifests)] * 4)
    assert outcomes == [None] * 4
    assert [generation for _, generation in versions(cluster.api, manifests)] == [1, 1]


def test_of_two_different_applies_at_once_one_stands_whole(
    yatai: str, cluster: LiveCluster, kubeconfig: Path, namespace: str
) -> None:
    candidates = [
        render_bento_deployment(
            IMAGE, make_bento(), namespace=namespace, envs={"THREADS": n}, labels={"n": n}
        )
        for n in ("1", "2")
    ]
    outcomes = at_once([lambda one=one: apply_manifests(one) for one in candidates])
    assert outcomes == [None, None]
    spec = existing(cluster.api, candidates[0][1])["spec"]
    assert spec in [one[1]["spec"] for one in candidates]


def test_a_namespace_that_is_not_there_is_named(
    yatai: str, cluster: LiveCluster, kubeconfig: Path
) -> None:
    manifests = render_bento_deployment(IMAGE, make_bento(), namespace="nowhere")
    with pytest.raises(DeploymentError, match=r"404.*nowhere") as refused:
        apply_manifests(manifests)
    assert "Create the namespace" in refused.value.hint


def test_missing_crds_are_named_with_what_to_install(
    cluster: LiveCluster, kubeconfig: Path, namespace: str
) -> None:
    cluster.crds.remove("yatai")
    release = TARGETS["bento-deployment"].render(IMAGE, make_bento(), {"namespace": namespace})
    with pytest.raises(DeploymentError, match="does not know") as unknown:
        diff_release(release)
    assert "yatai-deployment" in unknown.value.hint


def test_get_create_and_patch_on_the_two_kinds_are_rights_enough(
    yatai: str, cluster: LiveCluster, manifests: Manifests, other_user: Any
) -> None:
    other_user(ENOUGH)
    apply_manifests(manifests)
    apply_manifests(manifests)
    assert versions(cluster.api, manifests)


@pytest.mark.parametrize("missing", ["create", "patch"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_missing_right_is_named_and_nothing_is_applied(
    yatai: str,
    cluster: LiveCluster,
    manifests: Manifests,
    other_user: Any,
    missing: str,
    index: int,
) -> None:
    rules = copy.deepcopy(ENOUGH)
    rules[index]["verbs"].remove(missing)
    other_user(rules)
    with pytest.raises(DeploymentError, match=f"403.*{missing} resource") as refused:
        apply_manifests(manifests)
    assert "kfp-bento rbac" in refused.value.hint
    assert [stored(cluster.api, manifest) for manifest in manifests] == [None, None]


def test_a_token_that_is_not_known_is_refused_as_such(
    yatai: str, cluster: LiveCluster, manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = cluster.plane.kubeconfig("stranger", token="unknown")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(stranger))
    with pytest.raises(DeploymentError, match="401") as refused:
        apply_manifests(manifests)
    assert "credentials" in refused.value.hint
    assert "unknown" not in refused.value.message
