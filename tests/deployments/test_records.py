"""What a release leaves on its objects, and what can be read back from it."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import Any

import pytest
from releases import handmade
from sample_bentos import IMAGE, make_bento

from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.deployments import TARGETS, Release
from kfp_bento.runtime.deployments.release.apply import in_order
from kfp_bento.runtime.deployments.release.claims import is_ours
from kfp_bento.runtime.deployments.release.good_release import (
    LARGEST_RECORD,
    believed,
    encode_good,
)
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.deployments.targets.marks import LAST_GOOD
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import manifest_problems
from kfp_bento.runtime.errors import DeploymentError


def released(target: str = "bento-deployment", bento: Bento | None = None) -> Release:
    return TARGETS[target].render(IMAGE, bento or make_bento(), {"namespace": "serving"})


def of_kind(kind: str, **metadata: Any) -> dict[str, Any]:
    metadata = {"name": "wine", "namespace": "serving", **metadata}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def test_the_facts_are_on_the_primary_object() -> None:
    release = released()
    record = read_record(release.target.primary(release.recorded))
    assert (record.image, record.bento, record.last_good) == (IMAGE, release.bento_tag, None)
    assert record.revision == release.revision
    assert manifest_problems(release.recorded) == []


def test_every_object_carries_the_labels_of_its_release() -> None:
    labels = [entry["metadata"]["labels"] for entry in released().recorded]
    assert labels == [{"kfp-bento/release": "wine", "kfp-bento/kind": "bentodeployment"}] * 2


def test_recording_leaves_the_manifests_alone() -> None:
    release = released()
    before = copy.deepcopy(release.manifests)
    assert release.recorded != before
    assert release.manifests == before


@pytest.mark.parametrize(("controller", "ours"), [(None, True), (False, True), (True, False)])
def test_what_a_controller_has_made_its_own_is_not_ours(controller: Any, ours: bool) -> None:
    applied = {"manager": "kfp-bento", "operation": "Apply"}
    owners = [] if controller is None else [{"uid": "x", "controller": controller}]
    metadata = {"name": "wine--v1", "managedFields": [applied], "ownerReferences": owners}
    assert is_ours({"kind": "Bento", "metadata": metadata}) == ours
    assert not is_ours({"kind": "Bento", "metadata": {**metadata, "managedFields": []}})


def ref_of(manifest: Any) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def marks_of(manifest: Any) -> str:
    return str(manifest["metadata"]["annotations"]["kfp-bento/revision"])


def test_what_several_releases_may_use_has_a_revision_of_its_own() -> None:
    """A change that concerns serving only is none of it: a builder begins anew with each mark."""
    archive = {"archive_url": "s3://b/wine.tar", "namespace": "serving"}
    for target, image, kind in (
        ("bento-deployment", IMAGE, "Bento"),
        ("bento-request", "registry/wine:v1", "BentoRequest"),
    ):
        more = archive if target == "bento-request" else {}
        first, second = (
            TARGETS[target].render(image, make_bento(), {**more, "envs": {"A": value}})
            for value in "12"
        )
        assert first.revision != second.revision
        pairs = zip(first.recorded, second.recorded, strict=True)
        assert [one == other for one, other in pairs if one["kind"] == kind] == [True]


def test_the_order_of_objects_makes_no_other_revision() -> None:
    release = released()
    reversed_ = replace(release, manifests=tuple(reversed(release.manifests)))
    assert reversed_.revision == release.revision
    marks = {ref_of(one): marks_of(one) for one in reversed_.recorded}
    assert marks == {ref_of(one): marks_of(one) for one in release.recorded}


def test_any_change_is_another_revision() -> None:
    release = released()
    changed = copy.deepcopy(release.manifests)
    changed[1]["spec"]["resources"]["limits"]["cpu"] = "900m"
    assert replace(release, manifests=changed).revision != release.revision


def test_an_inference_service_keeps_its_facts_beside_itself() -> None:
    release = released("inference-service")
    held, service = release.recorded
    assert (held["kind"], held["metadata"]["name"]) == ("ConfigMap", "wine-kfp-bento")
    assert read_record(held).image == IMAGE
    # KServe would hand them on to the pods, and every new one would start a rollout.
    assert service["metadata"]["annotations"] == release.manifests[1]["metadata"]["annotations"]
    assert release.watched.revision == read_record(held).revision


def test_the_last_good_release_comes_back_whole() -> None:
    release = released()
    text = encode_good(release)
    good = believed(text, release.primary)
    assert good.release == release
    assert (good.revision, good.image, good.bento) == (
        release.revision,
        IMAGE,
        release.bento_tag,
    )
    assert text == encode_good(released())


def test_what_is_too_large_to_keep_leaves_image_and_revision() -> None:
    noise = {"noise": os.urandom(LARGEST_RECORD).hex()}
    options = {"annotations": noise}
    release = TARGETS["bento-deployment"].render(IMAGE, make_bento(), options)
    text = encode_good(release)
    assert len(text) < 1000
    good = believed(text, release.primary)
    assert (good.image, good.release) == (IMAGE, None)
    assert good.revision == release.revision


@pytest.mark.parametrize("text", ["no base64!", "aGVsbG8=", "eJyrrgUAAXUA+Q==", "eJwDAAAAAAE="])
def test_a_record_that_somebody_changed_is_an_error(text: str) -> None:
    with pytest.raises(DeploymentError, match=LAST_GOOD):
        believed(text, released().primary)


def test_configuration_comes_first_and_what_starts_pods_last() -> None:
    kinds = ["Deployment", "HTTPRoute", "Service", "ConfigMap", "Bento", "NetworkPolicy"]
    ordered = [entry["kind"] for entry in in_order([of_kind(kind) for kind in kinds])]
    assert ordered == [
        "ConfigMap",
        "Service",
        "HTTPRoute",
        "Bento",
        "NetworkPolicy",
        "Deployment",
    ]


def test_runners_are_watched_one_by_one() -> None:
    runners = ({"name": "a", "models": []}, {"name": "b", "models": []})
    bento = make_bento("wine", "v1", bentoml_version="1.1.11", runners=runners)
    watched = released(bento=bento).watched
    assert [entry.name for entry in watched.deployments] == [
        "wine",
        "wine-runner-0",
        "wine-runner-1",
    ]
    assert {entry.labels for entry in watched.deployments} == {(("yatai.ai/bento-version", "v1"),)}
    assert {entry.image for entry in watched.deployments} == {IMAGE}
    assert watched.pods == "yatai.ai/bento-deployment=wine"


def test_a_request_for_an_image_is_watched_too() -> None:
    request = {
        **of_kind("BentoRequest", name="wine--v1"),
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "spec": {"bentoTag": "wine:v1", "image": "registry/wine:v1"},
    }
    serving = {
        **of_kind("BentoDeployment"),
        "apiVersion": "serving.yatai.ai/v2alpha1",
        "spec": {"bento": "wine--v1"},
    }
    watched = handmade("bento-request", [request, serving]).watched
    assert watched.build is not None
    assert watched.source is not None
    assert (watched.build.name, watched.source.kind) == ("wine--v1", "Bento")
    assert watched.deployments[0].image == "registry/wine:v1"
    assert watched.deployments[0].labels == (("yatai.ai/bento-version", "v1"),)
