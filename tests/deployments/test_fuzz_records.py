"""Records that are almost ours: what is changed in one is refused, or what a target renders."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_records import pack, told_by
from sample_targets import RENDERED

from kfp_bento.runtime.deployments import TARGETS, Release
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.release.good_release import believed, encode_good
from kfp_bento.runtime.errors import DeploymentError

SHORT = settings(derandomize=True, deadline=None, max_examples=60, database=None)
LONG = settings(derandomize=True, deadline=None, max_examples=4000, database=None)

POLICY = {"ingress": ["team"], "egress": ["dns", {"ipBlock": {"cidr": "10.0.0.0/8"}}]}


def _released() -> dict[str, Release]:
    found = {}
    for which, (target, image, bento, options) in RENDERED.items():
        apart = {} if options.get("deployment_mode") in ("Knative", "Serverless") else POLICY
        found[which] = TARGETS[target].render(image, bento, {**options, "network_policy": apart})
    return found


RELEASES = _released()
TEXTS = [encode_good(release) for release in RELEASES.values()]
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
def mutated(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    which = draw(st.sampled_from(sorted(RELEASES)))
    told = told_by(RELEASES[which])
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(told))
        _, holder, key = found[draw(st.integers(0, len(found) - 1))]
        how = draw(st.integers(0, 4))
        value = holder[key]
        wish = draw(st.sampled_from(sorted(WISHES)))
        if how == 0:
            del holder[key]
        elif how == 1:
            holder[key] = draw(json_values)
        elif how == 2 and isinstance(value, dict):
            value[wish] = json.loads(json.dumps(WISHES[wish]))
        elif how == 3 and isinstance(value, list):
            added = draw(st.sampled_from([CONTAINER, *value]) | json_values)
            value.append(json.loads(json.dumps(added)))
        else:
            holder[key] = json.loads(json.dumps(WISHES[wish]))
    return which, told


def check_mutated(which: str, told: dict[str, Any]) -> bool:
    before = RELEASES[which]
    try:
        good = believed(pack(told), before.primary)
    except DeploymentError:
        return False
    if good.release is None:
        return False  # as of a release that was too large to keep: there is nothing to apply
    check_own(before, good.release)
    if which.startswith(PLAIN_PODS):
        told_manifests = json.dumps(good.release.manifests)
        for wish in ("hostNetwork", "hostPath", "initContainers", '"privileged": true', "hostPort"):
            assert wish not in told_manifests, wish
    return True


def check_own(before: Release, release: Release) -> None:
    """All objects are of this release: its kinds, its names, its namespace, its labels."""
    known = {(kind.api_version, kind.name) for kind in release.target.kinds}
    ours = before.recorded[0]["metadata"]["labels"]
    for one in release.recorded:
        metadata = one["metadata"]
        assert (one["apiVersion"], one["kind"]) in known
        assert metadata["name"] in release.target.names(before.name, one)
        assert metadata["namespace"] == before.namespace
        assert metadata.keys() <= {"name", "namespace", "labels", "annotations"}
        for label in ("kfp-bento/release", "kfp-bento/kind"):
            assert metadata["labels"][label] == ours[label]


@pytest.mark.parametrize("which", RELEASES)
def test_what_every_target_renders_is_its_own(which: str) -> None:
    assert check_mutated(which, told_by(RELEASES[which]))


@given(mutated())
@SHORT
def test_a_changed_record_is_refused_or_is_what_its_target_renders(change: Any) -> None:
    check_mutated(*change)


@pytest.mark.slow
@given(mutated())
@LONG
def test_many_changed_records_are_refused_or_are_what_their_targets_render(change: Any) -> None:
    check_mutated(*change)


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@st.composite
def texts(draw: st.DrawFn) -> str:
    how = draw(st.integers(0, 3))
    if how == 0:
        return draw(st.text(max_size=60))
    if how == 1:
        return packed(draw(json_values))
    if how == 2:
        facts = st.sampled_from(["revision", "image", "tag", "target", "bento", "options"])
        return packed(draw(st.dictionaries(facts, json_values, max_size=6)))
    text = list(draw(st.sampled_from(TEXTS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text) - 1))
        text[place : place + draw(st.integers(0, 3))] = draw(st.text(max_size=3))
    return "".join(text)


def check_text(text: str) -> None:
    primary = ObjectRef("apps/v1", "Deployment", "serving", "wine-live")
    try:
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
