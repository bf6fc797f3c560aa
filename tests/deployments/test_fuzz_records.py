"""Records that are almost ours: what is changed in one is refused, or could have been ours."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_records import marked_again, pack
from sample_targets import RENDERED

from kfp_bento.runtime.deployments import TARGETS, record_release
from kfp_bento.runtime.deployments.kube.cluster import ObjectRef
from kfp_bento.runtime.deployments.release.apply import primary_of
from kfp_bento.runtime.deployments.release.good_release import believed, decode_good, encode_good
from kfp_bento.runtime.errors import DeploymentError

SHORT = settings(derandomize=True, deadline=None, max_examples=40, database=None)
LONG = settings(derandomize=True, deadline=None, max_examples=4000, database=None)

POLICY = {"ingress": ["team"], "egress": ["dns", {"ipBlock": {"cidr": "10.0.0.0/8"}}]}


def _recorded() -> dict[str, tuple[dict[str, Any], ...]]:
    found = {}
    for which, (target, image, bento, options) in RENDERED.items():
        apart = {} if options.get("mode") in ("Knative", "Serverless") else POLICY
        given = {**options, "network_policy": apart}
        manifests = TARGETS[target].render(image, bento, given)
        found[which] = record_release(manifests, image=image, bento="wine:v1")
    return found


RECORDED = _recorded()
TEXTS = [encode_good(manifests) for manifests in RECORDED.values()]
CONTAINER = {"name": "x", "image": "x", "securityContext": {"privileged": True}}
# What an attacker would like to see in a pod, or around one.
WISHES: dict[str, Any] = {
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostPath": {"path": "/"},
    "hostPort": 80,
    "initContainers": [CONTAINER],
    "ephemeralContainers": [CONTAINER],
    "privileged": True,
    "capabilities": {"add": ["SYS_ADMIN"]},
    "runAsUser": 0,
    "runAsNonRoot": False,
    "allowPrivilegeEscalation": True,
    "command": ["sh", "-c", "id"],
    "lifecycle": {"postStart": {"exec": {"command": ["sh"]}}},
    "volumes": [{"name": "tmp", "hostPath": {"path": "/"}}],
    "nodeName": "master",
    "namespace": "kube-system",
    "ownerReferences": [{"uid": "x"}],
    "finalizers": ["a/b"],
    "externalIPs": ["203.0.113.9"],
    "externalName": "example.com",
    "type": "LoadBalancer",
    "filters": [{"type": "RequestMirror"}],
    "kind": "ClusterRoleBinding",
    "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
    "optional": True,
}
# What options may say freely: everything else in a rendering is ours, down to the value.
FREE = [
    re.compile(pattern)
    for pattern in (
        # Labels and annotations of objects and pods, with what provenance says of the models.
        r".*\.(labels|annotations)\..*",
        # Numbers, and where pods run.
        r".*\.(replicas|minReplicas|maxReplicas|scaleTarget|scaleMetric|timeout|weight)",
        r".*\.(containerConcurrency|canaryTrafficPercent|trafficPercent|stabilizationWindowSeconds)",
        r".*\.(progressDeadlineSeconds|revisionHistoryLimit|terminationGracePeriodSeconds)",
        r".*\.startupProbe\..*",
        r".*\.(periodSeconds|failureThreshold|timeoutSeconds|initialDelaySeconds)",
        r".*\.(minAvailable|maxUnavailable|maxSurge|selectPolicy|strategy\.type)",
        r".*\.(nodeSelector|affinity|tolerations|topologySpreadConstraints)(\..*|\[.*)?",
        r".*\.(schedulerName|priorityClassName|runtimeClassName|serviceAccountName)",
        r".*\.automountServiceAccountToken",
        # What the bento and its models are, by digest, by tag for a builder, or by address.
        r".*\.(image|storageUri|bentomlVersion|protocolVersion|modelFormat\..*|runtime)",
        r"Bento(Request)?\.spec\..*",
        # Variables, Secrets and ConfigMaps, resources.
        r".*\.(env|envFrom|envs)(\[.*|\..*)?",
        r".*\.(resources|behavior|metrics|autoscaling)(\..*|\[.*)?",
        r".*\.imagePullSecrets(\[.*)?",
        r".*\.volumes\[\d+\]\.(secret\.secretName|configMap\.name|emptyDir\.sizeLimit)",
        r".*\.volumeMounts\[\d+\]\.mountPath",
        # What only one target has.
        r".*\.(batcher|logger)\..*",
        r"InferenceService\.spec\.(transformer|explainer)\.containers\[0\]\.(args|ports|command).*",
        r"InferenceService\.spec\.(canary\[0\]\.)?predictor\.name",
        r"BentoDeployment\.spec\.(ingress|monitorExporter|extraPodSpec|extraPodMetadata)\..*",
        r"BentoDeployment\.spec\.runners\[\d+\]\..*",
        r"HTTPRoute\.spec\.(parentRefs|hostnames).*",
        r"HTTPRoute\.spec\.rules\[0\]\.(timeouts|matches|backendRefs).*",
        r"ServiceMonitor\.spec\.endpoints\[0\]\.interval",
        r"NetworkPolicy\.spec\.(ingress|egress).*",
    )
]
# Parts that an option brings, and that are not there without it.
WITHOUT = re.compile(
    r"InferenceService\.spec\.(transformer|explainer|canary)(\.|\[).*"
    r"|.*\.(batcher|logger|labels|annotations)(\..*)?|BentoDeployment\.spec\.runners.*"
)
# Objects that an option brings: a record without one is a rendering without the option.
BY_OPTION = (
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "ServiceMonitor",
    "HTTPRoute",
    "NetworkPolicy",
)
PLAIN_PODS = ("workload", "inference service", "stored model")


def places(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place inside a value: its path, what holds it, and the key there."""
    entries: Any = ()
    if isinstance(value, dict):
        entries = [(f"{path}.{key}", key) for key in value]
    elif isinstance(value, list):
        entries = [(f"{path}[{index}]", index) for index in range(len(value))]
    for inner, key in entries:
        yield inner, value, key
        yield from places(value[key], inner)


def leaves(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key in value for k, v in leaves(value[key], f"{path}.{key}").items()}
    if isinstance(value, list) and value:
        pairs = enumerate(value)
        return {k: v for i, one in pairs for k, v in leaves(one, f"{path}[{i}]").items()}
    return {path: value}


def differences(before: Any, after: Any) -> list[str]:
    """The paths at which manifests differ, apart from the marks of the revision."""
    found: list[str] = []
    old = {(one["kind"], one["metadata"]["name"]): one for one in before}
    new = {(one.get("kind"), (one.get("metadata") or {}).get("name")): one for one in after}
    asked_for = [
        place
        for place in old
        if place not in new and (place[0] in BY_OPTION or place[1].endswith("-canary"))
    ]
    for place in (old.keys() | new.keys()) - set(asked_for):
        then = leaves(old.get(place, {}), str(place[0]))
        now = leaves(new.get(place, {}), str(place[0]))
        found += [
            key
            for key in then.keys() | now.keys()
            if then.get(key) != now.get(key)
            # An empty object or list says the same as none.
            and (key in then or now[key] not in ({}, []))
            and (key in now or not WITHOUT.fullmatch(key))
        ]
    return [path for path in found if not path.endswith(".kfp-bento/revision")]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**33), 2**33)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["http://[", "../x", "a: b", "\x1b[2J", "kube-system", "10.0.0.0/8", "1Gi"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WISHES, "name", "key"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    which = draw(st.sampled_from(sorted(RECORDED)))
    manifests: list[dict[str, Any]] = json.loads(json.dumps(RECORDED[which]))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(manifests))
        if not found:
            break
        _, holder, key = found[draw(st.integers(0, len(found) - 1))]
        how = draw(st.integers(0, 4))
        value = holder[key]
        if how == 0:
            del holder[key]
        elif how == 1:
            holder[key] = draw(json_values)
        elif how == 2 and isinstance(value, dict):
            wish = draw(st.sampled_from(sorted(WISHES)))
            value[wish] = json.loads(json.dumps(WISHES[wish]))
        elif how == 3 and isinstance(value, list):
            value.append(draw(st.sampled_from([CONTAINER, *value]) | json_values))
        else:
            wish = draw(st.sampled_from(sorted(WISHES)))
            holder[key] = json.loads(json.dumps(WISHES[wish]))
    return which, manifests


def check_mutated(which: str, manifests: list[dict[str, Any]]) -> bool:
    before = RECORDED[which]
    try:
        text = pack(marked_again(manifests), image=decode_good(encode_good(before)).image)
    except (KeyError, TypeError, AttributeError, ValueError):
        # Nobody could have computed marks for it: then as it is, with any revision.
        text = packed({"revision": "0123456789abcdef", "manifests": manifests})
    try:
        kept = believed(text, ObjectRef.of(primary_of(before)))
    except DeploymentError:
        return False
    if not kept.manifests:
        return False  # as of a release that was too large to keep: there is nothing to apply
    for path in differences(before, kept.manifests):
        assert any(pattern.fullmatch(path) for pattern in FREE), path
    if which.startswith(PLAIN_PODS):
        told = json.dumps(kept.manifests)
        for wish in ("hostNetwork", "hostPath", "initContainers", '"privileged": true', "hostPort"):
            assert wish not in told or wish in json.dumps(before), wish
    return True


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@given(mutated())
@SHORT
def test_a_changed_record_is_refused_or_could_have_been_rendered(change: Any) -> None:
    check_mutated(*change)


@pytest.mark.slow
@given(mutated())
@LONG
def test_many_changed_records_are_refused_or_could_have_been_rendered(change: Any) -> None:
    check_mutated(*change)


@st.composite
def texts(draw: st.DrawFn) -> str:
    how = draw(st.integers(0, 3))
    if how == 0:
        return draw(st.text(max_size=60))
    if how == 1:
        return packed(draw(json_values))
    if how == 2:
        facts = st.sampled_from(["revision", "image", "bento", "manifests"])
        return packed(draw(st.dictionaries(facts, json_values, max_size=4)))
    text = list(draw(st.sampled_from(TEXTS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text) - 1))
        text[place : place + draw(st.integers(0, 3))] = draw(st.text(max_size=3))
    return "".join(text)


def check_text(text: str) -> None:
    primary = ObjectRef("apps/v1", "Deployment", "serving", "wine-live")
    try:
        decode_good(text)
        believed(text, primary)
    except DeploymentError:
        return


@given(texts())
@SHORT
def test_any_text_is_a_record_or_an_error(text: str) -> None:
    check_text(text)


@pytest.mark.slow
@given(texts())
@LONG
def test_many_texts_are_records_or_errors(text: str) -> None:
    check_text(text)
