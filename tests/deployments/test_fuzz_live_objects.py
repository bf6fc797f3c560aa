"""Live objects in which anything may stand: a verdict, or an error that names the field."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_targets import RENDERED
from staged_objects import condition, deployment, pod, replica_set, waiting
from test_fuzz_records import json_values, places

from kfp_bento.runtime.deployments import TARGETS, Waiting
from kfp_bento.runtime.deployments.kube.objects import ObjectRef, checked_object
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.deployments.release.verdict import ReadinessJudge
from kfp_bento.runtime.deployments.targets.readiness import Snapshot
from kfp_bento.runtime.deployments.targets.targets import read_live
from kfp_bento.runtime.errors import DeploymentError

SHORT = settings(derandomize=True, deadline=None, max_examples=60, database=None)
LONG = settings(derandomize=True, deadline=None, max_examples=4000, database=None)

CONDITIONS = [
    condition("Available", "False", "x", "failed"),
    condition("BentoFound", "False", "x", "none"),
    condition("BentoAvailable", "Unknown"),
    condition("ImageBuilding", "False", "Timeout", "late"),
    condition("Ready", "False", "InvalidSpec", "no"),
    condition("PredictorReady", "True"),
]
STATUS: dict[str, Any] = {
    "conditions": CONDITIONS,
    "observedGeneration": 1,
    "deploymentMode": "Standard",
    "url": "http://wine.serving.svc",
    "address": {"url": "http://wine.serving.svc"},
    "components": {"predictor": {"latestReadyRevision": "wine-1"}},
    "modelStatus": {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"reason": "r"}},
    "parents": [{"conditions": [condition("Accepted", "False", "NoMatchingParent", "no")]}],
}


def scene(which: str) -> dict[str, Any]:
    """All that a look at a release finds, as one JSON value."""
    target, image, bento, options = RENDERED[which]
    release = TARGETS[target].render(image, bento, options)
    name = release.name
    live = [deployment(name), deployment(f"{name}-predictor"), deployment(f"{name}-canary")]
    state = waiting("CrashLoopBackOff", "back-off")
    pods = [pod(state, owner=f"{name}-2", restarts=3, ended={"exitCode": 1, "reason": "Error"})]
    objects = [{**one, "status": STATUS} for one in release.recorded]
    found = {
        "target": target,
        "objects": objects,
        "deployments": live,
        "sets": [replica_set(one["metadata"]["name"]) for one in live],
        "pods": [*pods, pod(owner=f"{name}-2", ready=True, name="other")],
    }
    copied: dict[str, Any] = json.loads(json.dumps(found))
    return copied


SCENES = {which: scene(which) for which in RENDERED}


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(SCENES[draw(st.sampled_from(sorted(SCENES)))]))
    for _ in range(draw(st.integers(1, 4))):
        found = [entry for entry in places(made) if entry[0].count(".") > 1]
        _, holder, key = found[draw(st.integers(0, len(found) - 1))]
        if draw(st.booleans()):
            holder[key] = draw(json_values)
        else:
            del holder[key]
    return made


def check_scene(made: dict[str, Any]) -> None:
    """What `status` and a wait do with what they have read."""
    objects, live = made["objects"], made["deployments"]
    try:
        for one in (*objects, *live, *made["sets"], *made["pods"]):
            # What every object has was checked when it came from the API server.
            if not isinstance(one, dict) or not isinstance(one.get("metadata"), dict):
                return
            checked_object(one, "an object")
            read_live(one)
        target = TARGETS[made["target"]]
        if target.primary_kind.name not in [one["kind"] for one in objects]:
            return  # without it there is no release to look at
        watched = target.watched(objects)
        primary = next((one for one in objects if ObjectRef.of(one) == watched.primary), None)
        holder = next((one for one in objects if ObjectRef.of(one) == watched.holder), None)
        snapshot = Snapshot(
            primary,
            holder=holder,
            build=next((one for one in objects if one["kind"] == "BentoRequest"), None),
            deployments=live,
            replica_sets=made["sets"],
            pods=made["pods"],
            routes=[one for one in objects if one["kind"] == "HTTPRoute"],
        )
        judge = ReadinessJudge(watched, Waiting(steady=0.0))
        for now in (0.0, 1.0, 100.0):
            judge.look(snapshot, now)
        judge.give_up()
        read_record(holder, watched.primary)
        url = target.address(objects, primary)
        host = urlsplit(url).hostname or ""
        service = re.compile(rf"{watched.primary.name}[a-z0-9-]*\.[a-z0-9-]+\.svc(\..*)?")
        assert url == "" or service.fullmatch(host), url
    except DeploymentError:
        return


@given(scenes())
@SHORT
def test_whatever_stands_in_live_objects_there_is_a_verdict_or_an_error(
    made: dict[str, Any],
) -> None:
    check_scene(made)


@pytest.mark.slow
@given(scenes())
@LONG
def test_whatever_stands_in_many_live_objects_there_is_a_verdict_or_an_error(
    made: dict[str, Any],
) -> None:
    check_scene(made)
