"""A stand-in for yatai-image-builder: each of its generations as it was seen at work.

Versions 1.1.3, 1.2.28 and 3.0.42; what they differ in is a row of a table. Their conditions, and
the order of what they do, are those of `controllers/resources/bentorequest_controller.go`. The
Jobs and pods of a build are real, and end as the nodes are told; nobody pushes an image.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from kube_api import Refused
from played_controller import Json, condition_of, running
from woken_controller import AT_ONCE, Blocked, Failure, Watch, WokenController, own_name, owner_name

__all__ = ["BUILDER_POD", "GENERATIONS", "ImageBuilder", "running"]

BENTO = ("resources.yatai.ai/v1alpha1", "Bento")
JOB, POD = ("batch/v1", "Job"), ("v1", "Pod")
BUILDER_POD = {"yatai.ai/is-bento-image-builder": "true"}
BUILD_FAILED = 42
HASH = "yatai.ai/bento-request-hash"
# What is copied into the Bento; a generation of the CRD that lacks a field drops it.
_COPIED = ("context", "runners", "models", "serviceName")


@dataclass(frozen=True)
class Generation:
    """What one version does otherwise than another.

    Attributes:
        by_job: It builds by a Job; the oldest by a pod that nobody starts again.
        marks_count: Labels and annotations of a request are part of what a build is known by.
        skips_available: It never looks at a request again that was available once.
        gives_deadline: Its Job ends at the time that the request allows.
        polls: Seconds until it looks at a build again; None where it waits for an event.
        may_force: It knows the annotation that builds again what the registry has.
    """

    by_job: bool = True
    marks_count: bool = True
    skips_available: bool = False
    gives_deadline: bool = False
    polls: float | None = None
    may_force: bool = True


GENERATIONS = {
    "1.1.3": Generation(by_job=False, marks_count=False, polls=1.0, may_force=False),
    "1.2.28": Generation(),
    "3.0.42": Generation(skips_available=True, gives_deadline=True),
}
"""The oldest looks again after 5 and 10 s; here sooner, as tests wait for it."""


@dataclass
class ImageBuilder(WokenController):
    """Reconciles the BentoRequests of one namespace, one after the other.

    Attributes:
        version: One of `GENERATIONS`.
        exists: The registry has every image that it is asked for.
        failure: What every look at the registry fails with.
        hangs: Part of an image's name whose registry does not answer; all requests wait.
        registry: Where an image goes that has no name.
    """

    version: str = "1.2.28"
    exists: bool = False
    failure: str = ""
    hangs: str = ""
    registry: str = "registry.example.com/yatai-bentos"

    kind: ClassVar = ("resources.yatai.ai/v1alpha1", "BentoRequest")
    manager: ClassVar = "yatai-image-builder"
    empty_status: ClassVar[Json] = {"imageBuilderPodStatus": {}}

    @property
    def does(self) -> Generation:
        return GENERATIONS[self.version]

    @property
    def watches(self) -> tuple[Watch, ...]:
        spec_only = not self.does.by_job
        return (
            Watch(self.kind, own_name, spec_only=True),
            Watch(BENTO, owner_name, spec_only=spec_only),
            Watch(JOB if self.does.by_job else POD, owner_name, spec_only=spec_only),
        )

    def reconcile(self, live: Json) -> float | None:
        if self.does.skips_available and _says(live, "BentoAvailable") == "True":
            return None
        if not (live.get("status") or {}).get("conditions"):
            begun = ("Unknown", "Starting to reconcile BentoRequest")
            self.say(live, ImageBuilding=begun, ImageExists=begun)
        try:
            return self._by_job(live) if self.does.by_job else self._by_pod(live)
        except (Failure, Refused) as failure:
            self.say(live, BentoAvailable=("False", str(failure)))
            raise

    # -- by a Job -----------------------------------------------------------------------------

    def _by_job(self, live: Json) -> float | None:
        if _says(live, "BentoAvailable") != "Unknown":
            self.say(live, BentoAvailable=("Unknown", "Reconciling"))
            if not self.does.skips_available:
                return AT_ONCE
        image = self._image(live)
        self._check(live, image)
        built = _tells(live, "ImageExists", "True", image) or self._built_by_job(live, image)
        if built:
            self._write_bento(live, image)
        elif self.does.skips_available:
            self.say(live, BentoAvailable=("Unknown", "Bento image is building"))
        return None

    def _check(self, live: Json, image: str) -> None:
        """Asks the registry at every look, until it has said yes once."""
        if _tells(live, "ImageExistsChecked", "True", image):
            return
        checking = ("Unknown", "Checking image exists")
        self.say(live, ImageExistsChecked=("Unknown", image), BentoAvailable=checking)
        if self._is_in_registry(live, image):
            self.say(live, ImageExists=("True", image), ImageExistsChecked=("True", image))
        else:
            self.say(
                live,
                ImageExists=("False", f"Image {image} is not exists"),
                ImageExistsChecked=("False", f"Image not exists: {image}"),
            )

    def _built_by_job(self, live: Json, image: str) -> bool:
        jobs = self._of(live, JOB)
        for job in jobs:
            if job["metadata"]["annotations"].get(HASH) != self._hash(live):
                self._delete(JOB, job)
                if self.does.skips_available:
                    forgotten = ("Unknown", "Bento request hash changed, recreating the jobs")
                    kinds = [one["type"] for one in live["status"]["conditions"]]
                    self.say(live, **dict.fromkeys(kinds, forgotten))
                return False
        if not jobs:
            self.create(self.owned(live, self._job(live, image)))
            return False
        name, status = jobs[0]["metadata"]["name"], jobs[0].get("status") or {}
        about = f"Image building job {name} is"
        if status.get("succeeded"):
            done = ("False", f"{about} successed.")
            self.say(live, ImageBuilding=done, ImageExists=("True", image))
            return True
        if condition_of(jobs[0], "Failed").get("status") == "True":
            failed = ("False", f"{about} failed.")
            self.say(live, ImageBuilding=failed, BentoAvailable=failed)
            return False
        if _is_late(live):
            self.say(live, ImageBuilding=("False", f"{about} timeout", "Timeout"))
            raise Failure("ensure image exists: image build timeout")
        running = bool(status.get("active"))
        told = ("True", f"{about} running") if running else ("Unknown", f"{about} waiting")
        self.say(live, ImageBuilding=told)
        return False

    def _job(self, live: Json, image: str) -> Json:
        metadata = live["metadata"]
        labels = {"yatai.ai/bento-request": metadata["name"], **self._labels(live)}
        fails = {"containerName": "builder", "operator": "In", "values": [BUILD_FAILED]}
        template = self._template(live, image, labels)
        spec = {
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": fails}]},
            "template": template,
        }
        seconds = (live["spec"].get("imageBuildTimeout") or 0) // 10**9
        if seconds and self.does.gives_deadline:
            spec["activeDeadlineSeconds"] = seconds
        number = f"{time.monotonic_ns():x}"
        named = {"name": f"yatai-bento-image-builder-{number}", "labels": labels}
        annotations = {HASH: self._hash(live)}
        return {
            **{"apiVersion": JOB[0], "kind": JOB[1], "spec": spec},
            "metadata": {**named, "annotations": annotations},
        }

    # -- by a pod -----------------------------------------------------------------------------

    def _by_pod(self, live: Json) -> float | None:
        image = self._image(live)
        if _says(live, "ImageExists") in ("", "Unknown"):
            there = self._is_in_registry(live, image)
            told = f"Image {image} is {'already' if there else 'not'} exists"
            self.say(live, ImageExists=(str(there), told))
            return AT_ONCE
        if _says(live, "BentoAvailable") != "Unknown":
            self.say(live, BentoAvailable=("Unknown", "Reconciling"))
            return AT_ONCE
        # Another image of the same request is neither looked for nor built.
        if _says(live, "ImageExists") == "True":
            self._write_bento(live, image)
            return None
        return self._built_by_pod(live, image)

    def _built_by_pod(self, live: Json, image: str) -> float | None:
        name = f"yatai-bento-image-builder-{live['metadata']['name']}"
        pod = self.api.get(*POD, self.namespace, name)
        if pod is None:
            template = self._template(live, image, self._labels(live))
            named = {**template["metadata"], "name": name}
            named["annotations"] = {**named["annotations"], HASH: self._hash(live)}
            head = {"apiVersion": POD[0], "kind": POD[1], "metadata": named}
            self.create(self.owned(live, {**head, "spec": template["spec"]}))
            return self.does.polls
        if pod["metadata"]["annotations"].get(HASH) != self._hash(live):
            self._delete(POD, pod)
            return 0.1
        phase = pod["status"].get("phase", "Pending")
        told = f"Image builder pod {name} status is {phase}"
        if phase in ("Pending", "Running"):
            if _is_late(live):  # its word on ImageBuilding is lost
                raise Failure("image build timeout")
            self.say(live, ImageBuilding=("True" if phase == "Running" else "Unknown", told))
            return self.does.polls
        self.say(live, ImageBuilding=("False", told))
        if phase != "Succeeded":
            raise Failure(told[0].lower() + told[1:])
        self.say(live, ImageExists=("True", told))
        return AT_ONCE

    # -- what all have ------------------------------------------------------------------------

    def _is_in_registry(self, live: Json, image: str) -> bool:
        if self.hangs and self.hangs in image:
            raise Blocked
        prefix = "ensure image exists: " if self.does.by_job else ""
        if self.failure:
            raise Failure(f"{prefix}check image {image} exists: {self.failure}")
        marks = live["metadata"].get("annotations") or {}
        forced = self.does.may_force and marks.get("yatai.ai/force-build-image") == "true"
        return self.exists and not forced

    def _write_bento(self, live: Json, image: str) -> None:
        """Writes the Bento of the request, over whatever is there."""
        asked = live["spec"]
        spec: Json = {"tag": asked["bentoTag"], "image": image}
        spec |= {key: asked[key] for key in _COPIED if key in asked}
        if secret := asked.get("dockerConfigJsonSecretName"):
            spec["imagePullSecrets"] = [{"name": secret}]
        name = live["metadata"]["name"]
        old = self.api.get(*BENTO, self.namespace, name)
        head = {"apiVersion": BENTO[0], "kind": BENTO[1]}
        bento = self.owned(live, {**head, "metadata": {"name": name}, "spec": spec})
        if old is None:
            self.create(bento)
        elif old["spec"] != spec:
            owners = {"ownerReferences": bento["metadata"]["ownerReferences"]}
            self.update({**old, **head, "metadata": {**old["metadata"], **owners}, "spec": spec})
        self.say(live, BentoAvailable=("True", "Bento is generated"))

    def _template(self, live: Json, image: str, labels: dict[str, str]) -> Json:
        asked = live["spec"]
        # Quoted once for a shell, and then all words for the shell again.
        words = [f"--build-arg='{one}'" for one in asked.get("buildArgs") or []]
        downloader = {"name": "bento-downloader", "image": "quay.io/bentoml/bento-downloader:1"}
        builder = {"name": "builder", "image": "quay.io/bentoml/kaniko:debug"}
        args = ["/kaniko/executor", f"--destination={image}", *words]
        extra = asked.get("imageBuilderExtraPodMetadata") or {}
        return {
            "metadata": {
                "labels": {**labels, **extra.get("labels", {})},
                "annotations": dict(extra.get("annotations", {})),
            },
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [downloader],
                "containers": [{**builder, "args": args}],
            },
        }

    def _labels(self, live: Json) -> dict[str, str]:
        repository, _, version = live["spec"]["bentoTag"].partition(":")
        return {
            **BUILDER_POD,
            "yatai.ai/bento-repository": repository,
            "yatai.ai/bento": version,
        }

    def _of(self, live: Json, place: tuple[str, str]) -> list[Json]:
        label = f"yatai.ai/bento-request={live['metadata']['name']}"
        return self.api.list(*place, self.namespace, label)

    def _delete(self, place: tuple[str, str], live: Json) -> None:
        path = self.api.path(*place, self.namespace, live["metadata"]["name"])
        self.api.request("DELETE", path, propagationPolicy="Foreground")

    def _hash(self, live: Json) -> str:
        metadata = live["metadata"]
        marks = (metadata.get("labels"), metadata.get("annotations"))
        known_by: Iterable[Any] = (live["spec"], *(marks if self.does.marks_count else ()))
        return hashlib.sha256(json.dumps(list(known_by), sort_keys=True).encode()).hexdigest()[:16]

    def _image(self, live: Json) -> str:
        name, _, version = live["spec"]["bentoTag"].partition(":")
        return str(live["spec"].get("image") or f"{self.registry}:yatai.{name}.{version}")


def _says(live: Json, kind: str) -> str:
    return str(condition_of(live, kind).get("status", ""))


def _tells(live: Json, kind: str, status: str, message: str) -> bool:
    found = condition_of(live, kind)
    return (found.get("status"), found.get("message")) == (status, message)


def _is_late(live: Json) -> bool:
    """Whether a build has taken longer than its request allows; asked only at an event."""
    allowed = live["spec"].get("imageBuildTimeout")
    since = condition_of(live, "ImageBuilding").get("lastTransitionTime")
    if not allowed or not since:
        return False
    begun = datetime.strptime(since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (datetime.now(UTC) - begun).total_seconds() > allowed / 10**9
