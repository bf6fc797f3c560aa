"""A good release on record is an annotation: whoever may edit the object may have written it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from planted_records import changed, cluster_admin, pack, privileged_deployment
from sample_bentos import IMAGE
from sample_targets import OTHER, RENDERED
from stub_api_server import ApiServer, serve_api, write_kubeconfig

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import TARGETS, record_release
from kfp_bento.runtime.deployments.kube.cluster import ObjectRef
from kfp_bento.runtime.deployments.release.apply import primary_of
from kfp_bento.runtime.deployments.release.good_release import (
    LARGEST_RECORD,
    GoodRelease,
    believed,
    decode_good,
    encode_good,
)
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.errors import DeploymentError, KfpBentoError

KEY = "k" * 32
Recorded = tuple[dict[str, Any], ...]


def recorded(which: str) -> Recorded:
    target, image, bento, options = RENDERED[which]
    manifests = TARGETS[target].render(image, bento, options)
    return record_release(manifests, image=image, bento="wine:v1")


def ref_of(manifests: Any) -> ObjectRef:
    return ObjectRef.of(primary_of(manifests))


def refusal(manifests: Any, primary: ObjectRef, **facts: Any) -> str:
    with pytest.raises(DeploymentError, match="is not believed") as refused:
        believed(pack(list(manifests), **facts), primary)
    return refused.value.message


# -- what is ours is taken -------------------------------------------------------------------


@pytest.mark.parametrize("which", RENDERED)
def test_whatever_a_target_renders_can_come_back(which: str) -> None:
    manifests = recorded(which)
    assert believed(encode_good(manifests), ref_of(manifests)).manifests == manifests


def test_what_earlier_versions_have_recorded_can_come_back() -> None:
    """Annotations as the commit before this border wrote them, for all that targets offer."""
    kept = json.loads(Path(__file__).with_name("earlier_records.json").read_text())
    assert set(kept) <= set(RENDERED)
    for which, text in kept.items():
        assert believed(text, ref_of(recorded(which))).manifests, which


# -- what is not ours is refused by its field ------------------------------------------------


def spec_of(manifests: Any, kind: str = "Deployment") -> Any:
    found = next(one for one in manifests if one["kind"] == kind)["spec"]
    return found["template"]["spec"] if kind == "Deployment" else found


def of_kind(manifests: Any, kind: str) -> Any:
    return next(one for one in manifests if one["kind"] == kind)


def in_pod(**fields: Any) -> Callable[[Any], Any]:
    return lambda manifests: spec_of(manifests).update(fields)


def in_container(**fields: Any) -> Callable[[Any], Any]:
    return lambda manifests: spec_of(manifests)["containers"][0].update(fields)


def in_spec(kind: str, **fields: Any) -> Callable[[Any], Any]:
    return lambda manifests: of_kind(manifests, kind)["spec"].update(fields)


def security(**fields: Any) -> Callable[[Any], Any]:
    return lambda manifests: spec_of(manifests)["containers"][0]["securityContext"].update(fields)


def pod_security(**fields: Any) -> Callable[[Any], Any]:
    return lambda manifests: spec_of(manifests)["securityContext"].update(fields)


def appended(*path: Any, value: Any) -> Callable[[Any], Any]:
    def change(manifests: Any) -> None:
        place = spec_of(manifests)
        for key in path:
            place = place[key]
        place.append(value)

    return change


HOST = {"name": "host", "hostPath": {"path": "/"}}
MORE = {"name": "more", "image": IMAGE, "securityContext": {"privileged": True}}
NEVER_IN_A_WORKLOAD: list[tuple[str, Callable[[Any], Any]]] = [
    ("spec.template.spec.hostNetwork", in_pod(hostNetwork=True)),
    ("spec.template.spec.hostPID", in_pod(hostPID=True)),
    ("spec.template.spec.hostIPC", in_pod(hostIPC=True)),
    ("spec.template.spec.hostUsers", in_pod(hostUsers=False)),
    ("spec.template.spec.hostAliases", in_pod(hostAliases=[{"ip": "10.0.0.1"}])),
    ("spec.template.spec.nodeName", in_pod(nodeName="master")),
    ("spec.template.spec.initContainers", in_pod(initContainers=[MORE])),
    ("spec.template.spec.ephemeralContainers", in_pod(ephemeralContainers=[MORE])),
    ("spec.template.spec.dnsConfig", in_pod(dnsConfig={"nameservers": ["203.0.113.9"]})),
    ("spec.template.spec.shareProcessNamespace", in_pod(shareProcessNamespace=True)),
    ("spec.template.spec.containers has 2", appended("containers", value=MORE)),
    ("spec.template.spec.volumes[1].hostPath", in_pod(volumes=[{"name": "tmp"}, HOST])),
    ("spec.template.spec.volumes", in_pod(volumes=[{"name": "tmp", "emptyDir": {}}] * 2)),
    ("projected", in_pod(volumes=[{"name": "tmp", "projected": {"sources": []}}])),
    ("persistentVolumeClaim", in_pod(volumes=[{"name": "tmp", "persistentVolumeClaim": {}}])),
    ("csi", in_pod(volumes=[{"name": "tmp", "csi": {"driver": "x"}}])),
    ("containers[0].securityContext", security(privileged=True)),
    ("containers[0].securityContext", security(runAsUser=0)),
    ("containers[0].securityContext", security(runAsNonRoot=1)),
    ("containers[0].securityContext", security(capabilities={"add": ["SYS_ADMIN"]})),
    ("containers[0].securityContext", security(allowPrivilegeEscalation=True)),
    ("containers[0].securityContext", security(readOnlyRootFilesystem=False)),
    ("containers[0].securityContext", security(procMount="Unmasked")),
    ("containers[0].securityContext is missing", lambda m: spec_of(m)["containers"][0].pop(
        "securityContext"
    )),
    ("spec.securityContext", pod_security(runAsUser=0)),
    ("spec.securityContext", pod_security(sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
    ("containers[0].image", in_container(image="registry.example.com/evil:latest")),
    ("containers[0].command", in_container(command=["sh", "-c", "id"])),
    ("containers[0].args", in_container(args=["-c"])),
    ("containers[0].name", in_container(name="other")),
    ("containers[0].stdin", in_container(stdin=True)),
    ("containers[0].lifecycle", in_container(
        lifecycle={"postStart": {"exec": {"command": ["sh"]}}}
    )),
    ("containers[0].ports", in_container(ports=[{"containerPort": 3000, "hostPort": 80}])),
    ("containers[0].volumeDevices", in_container(volumeDevices=[])),
    ("containers[0].volumeMounts[0].subPath", in_container(
        volumeMounts=[{"name": "tmp", "mountPath": "/tmp", "subPath": "../.."}]
    )),
    ("volumes", in_container(volumeMounts=[{"name": "tmp", "mountPath": "/home/bentoml/bento"}])),
    ("livenessProbe.httpGet.host", in_container(
        livenessProbe={"httpGet": {"path": "/livez", "port": 3000, "scheme": "HTTP", "host": "x"}}
    )),
    ("livenessProbe.exec", in_container(livenessProbe={"exec": {"command": ["sh"]}})),
    ("containers[0].env", in_container(env=[{"name": "BENTO_PATH", "value": "/tmp"}])),
    ("containers[0].env", in_container(
        env=[{"name": "KFP_BENTO_API_TOKEN", "value": "known to everybody"}]
    )),
    ("env[0].valueFrom.secretKeyRef.optional", in_container(
        env=[{
            "name": "KFP_BENTO_API_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": True}},
        }]
    )),
    ("selector", in_spec("Deployment", selector={"matchLabels": {"app": "other"}})),
    ("spec.minReadySeconds", in_spec("Deployment", minReadySeconds=1)),
    ("spec.template.metadata.labels", lambda m: of_kind(m, "Deployment")["spec"]["template"][
        "metadata"
    ]["labels"].update({"app.kubernetes.io/instance": "other"})),
    ("spec.template.metadata.annotations", lambda m: of_kind(m, "Deployment")["spec"]["template"][
        "metadata"
    ]["annotations"].update({"kfp-bento/pod-revision": "x"})),
    ("spec.externalIPs", in_spec("Service", externalIPs=["203.0.113.9"])),
    ("spec.externalName", in_spec("Service", externalName="example.com")),
    ("spec.type", in_spec("Service", type="LoadBalancer")),
    ("spec.selector", in_spec("Service", selector={"app": "bank"})),
    ("spec.rules[0].filters", lambda m: of_kind(m, "HTTPRoute")["spec"]["rules"][0].update(
        filters=[{"type": "RequestMirror"}]
    )),
    ("backendRefs[0].namespace", lambda m: of_kind(m, "HTTPRoute")["spec"]["rules"][0][
        "backendRefs"
    ][0].update(namespace="bank")),
    ("backendRefs", lambda m: of_kind(m, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0].update(
        name="bank"
    )),
    ("spec.namespaceSelector", in_spec("ServiceMonitor", namespaceSelector={"any": True})),
    ("endpoints[0].bearerTokenFile", lambda m: of_kind(m, "ServiceMonitor")["spec"]["endpoints"][
        0
    ].update(bearerTokenFile="/var/run/secrets/kubernetes.io/serviceaccount/token")),
    ("spec.scaleTargetRef", in_spec(
        "HorizontalPodAutoscaler", scaleTargetRef={"kind": "Deployment", "name": "bank"}
    )),
    ("spec.selector", in_spec("PodDisruptionBudget", selector={})),
    ("metadata.ownerReferences", lambda m: m[0]["metadata"].update(ownerReferences=[])),
    ("metadata.finalizers", lambda m: m[0]["metadata"].update(finalizers=["a/b"])),
    ("metadata.namespace", lambda m: m[1]["metadata"].update(namespace="kube-system")),
    ("under kfp-bento/", lambda m: m[0]["metadata"]["annotations"].update(
        {"kfp-bento/last-good": "again"}
    )),
    ("metadata.annotations", lambda m: m[0]["metadata"]["annotations"].update(
        {"kfp-bento/unheard-of": "x"}
    )),
    ("status", lambda m: m[0].update(status={})),
    ("twice", lambda m: m.append(m[1])),
    ("kfp-bento/", lambda m: m[1]["metadata"]["labels"].update({"kfp-bento/release": "beer"})),
    ("no such object", lambda m: m[1]["metadata"].update(name="beer")),
    ("not its primary object", lambda m: m[0]["metadata"].update(name="beer")),
    ("no release of a Deployment", lambda m: m.append(cluster_admin("serving", {}))),
    ("no release of a Deployment", lambda m: m[1].update(kind="Secret")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "change"),
    NEVER_IN_A_WORKLOAD,
    ids=[f"{place}: {field}" for place, (field, _) in enumerate(NEVER_IN_A_WORKLOAD)],
)
def test_what_a_workload_never_is_never_comes_back(
    field: str, change: Callable[[Any], Any]
) -> None:
    manifests = recorded("workload in full")
    assert field in refusal(changed(manifests, change), ref_of(manifests))


def predictor(manifests: Any) -> Any:
    return of_kind(manifests, "InferenceService")["spec"]["predictor"]


NEVER_ELSEWHERE: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("inference service", "hostNetwork", lambda m: predictor(m).update(hostNetwork=True)),
    ("inference service", "securityContext", lambda m: predictor(m).pop("securityContext")),
    ("inference service", "workerSpec", lambda m: predictor(m).update(workerSpec={})),
    ("inference service", "initContainers", lambda m: predictor(m).update(initContainers=[MORE])),
    ("inference service", "no such object", lambda m: m[0]["metadata"].update(name="other")),
    (
        "inference service in full",
        "transformer.containers[0].securityContext",
        lambda m: of_kind(m, "InferenceService")["spec"]["transformer"]["containers"][0][
            "securityContext"
        ].update(privileged=True),
    ),
    (
        "inference service in full",
        "logger.url",
        lambda m: predictor(m)["logger"].update(url="file:///etc/passwd"),
    ),
    ("stored model", "storageUri", lambda m: predictor(m)["model"].update(storageUri="ftp://x/y")),
    ("stored model", "volumes", lambda m: predictor(m).update(volumes=[HOST])),
    (
        "bento deployment in full",
        "spec.annotations",
        lambda m: of_kind(m, "BentoDeployment")["spec"]["annotations"].update({"x/y": "z"}),
    ),
    (
        "bento deployment in full",
        "spec.bento",
        lambda m: of_kind(m, "BentoDeployment")["spec"].update(bento="another"),
    ),
    (
        "bento deployment",
        "image",
        lambda m: of_kind(m, "Bento")["spec"].update(image="registry.example.com/evil:latest"),
    ),
    (
        "bento deployment in full",
        "extraPodSpec.containers[0].name",
        lambda m: of_kind(m, "BentoDeployment")["spec"]["extraPodSpec"]["containers"][0].update(
            name="main"
        ),
    ),
    *(
        (
            "bento deployment with runners",
            "spec.runners",
            lambda m, runners=runners: m[0]["spec"].update(runners=runners),
        )
        for runners in (5, "x", [5], ["x"], [{"x": 1}])
    ),
    (
        "bento request",
        "downloadUrl",
        lambda m: of_kind(m, "BentoRequest")["spec"].update(downloadUrl="https://x/$(id)/a.tar"),
    ),
    (
        "bento request in full",
        "models[0].downloadUrl",
        lambda m: of_kind(m, "BentoRequest")["spec"]["models"][0].update(downloadUrl="file:///x/y"),
    ),
    (
        "bento request",
        "annotations",
        lambda m: of_kind(m, "BentoRequest")["metadata"]["annotations"].update({"yatai.ai/x": "y"}),
    ),
]


@pytest.mark.parametrize(("which", "field", "change"), NEVER_ELSEWHERE)
def test_what_other_targets_never_render_never_comes_back(
    which: str, field: str, change: Callable[[Any], Any]
) -> None:
    manifests = recorded(which)
    assert field in refusal(changed(manifests, change), ref_of(manifests))


def test_a_release_of_another_name_namespace_or_target_is_none_of_this_one() -> None:
    manifests = recorded("workload")
    for place in (
        ObjectRef("apps/v1", "Deployment", "default", "beer"),
        ObjectRef("apps/v1", "Deployment", "kube-system", "wine"),
        ObjectRef("serving.kserve.io/v1beta1", "InferenceService", "default", "wine"),
    ):
        refusal(manifests, place, revision=decode_good(encode_good(manifests)).revision)


def test_a_record_whose_parts_disagree_is_none() -> None:
    manifests = list(recorded("workload"))
    primary = ref_of(manifests)
    assert "not of revision" in refusal(manifests, primary, revision="0123456789abcdef")
    assert "and says" in refusal(
        changed(manifests, lambda m: m[0]["metadata"]["annotations"].update(
            {"kfp-bento/image": OTHER}
        )),
        primary,
        image=OTHER,
    )  # fmt: skip


# -- the text itself -------------------------------------------------------------------------


def packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text, 9)).decode()


@pytest.mark.parametrize(
    "text",
    [
        packed(b"[" * 100_000),
        packed(b'{"revision": "0123456789abcdef", "revision": "0123456789abcdef"}'),
        packed(b'{"revision": "0123456789abcdef", "manifests": {}}'),
        packed(b'{"revision": "0123456789abcdef", "manifests": [1]}'),
        packed(b'{"revision": "../../../x"}'),
        packed(b'{"revision": "0123456789abcdef", "image": "\\u001b[2J"}'),
        packed(b'{"revision": "0123456789abcdef", "bento": 7}'),
        packed(b'{"revision": NaN}'),
        packed(b"null"),
        packed(b"{}")[:-8],
        packed(b"{}") + packed(b"{}"),
        "A" * (LARGEST_RECORD + 4),
        "\u00e4",
    ],
)
def test_a_text_that_is_no_record_is_an_error_and_no_more(text: str) -> None:
    with pytest.raises(DeploymentError, match="cannot be read"):
        decode_good(text)


def test_a_small_text_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    bomb = zlib.compressobj(9)
    text = b"".join(bomb.compress(b" " * (1 << 20)) for _ in range(64)) + bomb.flush()
    with pytest.raises(DeploymentError, match="unpacks to more"):
        decode_good(base64.b64encode(text).decode())


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"apiVersion": 1, "kind": []},
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "wine"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": {}, "labels": []}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": [], "spec": {}},
    ],
)
def test_an_object_that_is_none_is_not_believed(manifest: dict[str, Any]) -> None:
    text = {"revision": "0123456789abcdef", "manifests": [manifest]}
    with pytest.raises(DeploymentError, match="is not believed"):
        believed(packed(json.dumps(text).encode()), ref_of(recorded("workload")))


# -- seals -----------------------------------------------------------------------------------


def test_where_a_key_is_shared_only_what_was_sealed_with_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests = recorded("workload")
    primary, unsealed = ref_of(manifests), encode_good(manifests)
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    sealed = encode_good(manifests)
    assert believed(sealed, primary).manifests == manifests
    text, _, seal = sealed.partition(".")
    for planted in (unsealed, f"{text}.", f"{text}.{seal[:-1]}0", f"{text}.{seal}0"):
        with pytest.raises(DeploymentError, match="has no seal"):
            believed(planted, primary)
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "another" * 8)
    with pytest.raises(DeploymentError, match="has no seal"):
        believed(sealed, primary)
    monkeypatch.delenv("KFP_BENTO_RECORD_KEY")
    assert believed(sealed, primary).manifests == manifests


def test_the_seal_of_one_release_is_none_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    # Too large to keep: such a record names no release by itself.
    sealed = encode_good(recorded("workload"))
    with pytest.raises(DeploymentError, match="has no seal"):
        believed(sealed, ObjectRef("apps/v1", "Deployment", "default", "beer"))


def test_a_key_that_keeps_nobody_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "short")
    with pytest.raises(KfpBentoError, match="fewer than 32"):
        encode_good(recorded("workload"))


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


def planted(labels: dict[str, str], *, ours: Any = ()) -> str:
    return pack([*ours, privileged_deployment(labels), cluster_admin("serving", labels)])


def stand(api: ApiServer, manifests: Any, annotation: str, text: str) -> None:
    """The release is applied, and somebody has written an annotation on its holder."""
    for manifest in manifests:
        api.objects[f"{manifest['kind'].lower()}s/{manifest['metadata']['name']}"] = manifest
    holder = next(one for one in manifests if "kfp-bento/image" in one["metadata"]["annotations"])
    holder["metadata"]["annotations"][annotation] = text


@pytest.mark.parametrize("which", ["workload", "inference service"])
@pytest.mark.parametrize("annotation", ["kfp-bento/last-good", "kfp-bento/previous-good"])
def test_a_planted_release_is_not_applied(api: ApiServer, which: str, annotation: str) -> None:
    manifests = recorded(which)
    labels = manifests[1]["metadata"]["labels"]
    stand(api, manifests, annotation, planted(labels, ours=manifests))
    target = RENDERED[which][0]
    for dry_run in (True, False):
        with pytest.raises(DeploymentError, match="is not believed"):
            deployments.roll_back("wine", target=target, patience_seconds=1, dry_run=dry_run)
    assert api.patches == []


def test_a_planted_release_does_not_hide_how_a_release_stands(api: ApiServer) -> None:
    manifests = recorded("workload")
    text = planted({}, ours=manifests)
    stand(api, manifests, "kfp-bento/last-good", text)
    record = read_record(manifests[0], ref_of(manifests))
    assert (record.last_good, record.image) == (None, IMAGE)
    assert "kfp-bento would never have written it" in record.disbelieved[0].message


def test_what_goes_back_is_shown_before_and_a_dry_run_stops_there(api: ApiServer) -> None:
    manifests = recorded("workload")
    good = changed(manifests, lambda m: spec_of(m)["containers"][0].update(image=OTHER))
    good[0]["metadata"]["annotations"]["kfp-bento/image"] = OTHER
    stand(api, manifests, "kfp-bento/last-good", pack(good, image=OTHER))
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
    manifests = list(recorded("workload"))
    annotations = manifests[0]["metadata"]["annotations"]
    annotations |= {"kfp-bento/bento": "wine:v1\x1b]0;owned\x07\r", "kfp-bento/image": "i" * 9000}
    record = read_record(manifests[0])
    assert record.bento.isprintable()
    assert len(record.image) < 2000


def test_a_good_release_is_typed() -> None:
    assert isinstance(decode_good(encode_good(recorded("workload"))), GoodRelease)
