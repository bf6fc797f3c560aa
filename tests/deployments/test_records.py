"""What a release leaves on its objects, and what can be read back from it."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from sample_bentos import IMAGE, make_bento
from sample_renderings import render_bento_deployment

from kfp_bento.runtime.deployments import (
    manifest_problems,
    record_release,
    watched_release,
)
from kfp_bento.runtime.deployments.release.apply import in_order, primary_of
from kfp_bento.runtime.deployments.release.good_release import (
    LARGEST_RECORD,
    decode_good,
    encode_good,
)
from kfp_bento.runtime.deployments.release.marks import LAST_GOOD, revision_of
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.errors import DeploymentError


@pytest.fixture
def manifests() -> list[dict[str, Any]]:
    return render_bento_deployment(IMAGE, make_bento(), namespace="serving")


def inference_service() -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "wine", "namespace": "serving"},
        "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": IMAGE}]}},
    }


def of_kind(kind: str, **metadata: Any) -> dict[str, Any]:
    metadata = {"name": "wine", "namespace": "serving", **metadata}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def test_the_facts_are_on_the_primary_object(manifests: list[dict[str, Any]]) -> None:
    recorded = record_release(manifests, image=IMAGE, bento="wine:v1")
    record = read_record(primary_of(recorded))
    assert (record.image, record.bento, record.last_good) == (IMAGE, "wine:v1", None)
    assert record.revision == revision_of(manifests)
    assert manifest_problems(recorded) == []


def test_every_object_carries_the_labels_of_its_release(manifests: list[dict[str, Any]]) -> None:
    labels = [entry["metadata"]["labels"] for entry in record_release(manifests)]
    assert labels == [{"kfp-bento/release": "wine", "kfp-bento/kind": "bentodeployment"}] * 2


def test_recording_is_repeatable_and_leaves_its_input_alone(
    manifests: list[dict[str, Any]],
) -> None:
    before = copy.deepcopy(manifests)
    once = record_release(manifests, image=IMAGE, bento="wine:v1")
    assert manifests == before
    assert record_release(once) == once
    assert record_release([*reversed(manifests)])[0]["metadata"]["annotations"][
        "kfp-bento/revision"
    ] == revision_of(manifests)


def test_any_change_is_another_revision(manifests: list[dict[str, Any]]) -> None:
    changed = copy.deepcopy(manifests)
    changed[1]["spec"]["resources"]["limits"]["cpu"] = "900m"
    assert revision_of(changed) != revision_of(manifests)


@pytest.mark.parametrize("again", [1, 2])
def test_an_inference_service_keeps_its_facts_beside_itself(again: int) -> None:
    recorded: Any = [inference_service()]
    for _ in range(again):
        recorded = record_release(recorded, image=IMAGE, bento="wine:v1")
    held, service = recorded
    assert (held["kind"], held["metadata"]["name"]) == ("ConfigMap", "wine-kfp-bento")
    assert read_record(held).image == IMAGE
    # KServe would hand them on to the pods, and every new one would start a rollout.
    assert "annotations" not in service["metadata"]
    assert watched_release(recorded).revision == read_record(held).revision


def test_the_last_good_release_comes_back_whole(manifests: list[dict[str, Any]]) -> None:
    recorded = record_release(manifests, image=IMAGE, bento="wine:v1")
    text = encode_good(recorded)
    good = decode_good(text)
    assert good.manifests == recorded
    assert (good.revision, good.image, good.bento) == (revision_of(manifests), IMAGE, "wine:v1")
    assert text == encode_good(recorded)


def test_what_is_too_large_to_keep_leaves_image_and_revision(
    manifests: list[dict[str, Any]],
) -> None:
    manifests[1]["metadata"]["annotations"]["noise"] = os.urandom(LARGEST_RECORD).hex()
    recorded = record_release(manifests, image=IMAGE, bento="wine:v1")
    text = encode_good(recorded)
    assert len(text) < 1000
    good = decode_good(text)
    assert (good.image, good.manifests) == (IMAGE, ())
    assert good.revision == revision_of(manifests)


@pytest.mark.parametrize("text", ["no base64!", "aGVsbG8=", "eJyrrgUAAXUA+Q==", "eJwDAAAAAAE="])
def test_a_record_that_somebody_changed_is_an_error(text: str) -> None:
    with pytest.raises(DeploymentError, match=LAST_GOOD):
        decode_good(text)


def test_configuration_comes_first_and_what_starts_pods_last() -> None:
    kinds = ["Deployment", "HTTPRoute", "Service", "ConfigMap", "Bento", "ServiceAccount"]
    ordered = [entry["kind"] for entry in in_order([of_kind(kind) for kind in kinds])]
    assert ordered == ["ServiceAccount", "ConfigMap", "Service", "HTTPRoute", "Bento", "Deployment"]


def test_runners_are_watched_one_by_one() -> None:
    runners = ({"name": "a", "models": []}, {"name": "b", "models": []})
    bento = make_bento("wine", "v1", bentoml_version="1.1.11", runners=runners)
    watched = watched_release(render_bento_deployment(IMAGE, bento, namespace="serving"))
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
    watched = watched_release([request, serving])
    assert (watched.build, watched.deployments[0].image) == ("wine--v1", "")
    assert watched.deployments[0].labels == (("yatai.ai/bento-version", "v1"),)
