"""A stand-in for yatai-image-builder: conditions of a BentoRequest, and then the Bento.

Read in `controllers/resources/bentorequest_controller.go` of bentoml/yatai-image-builder (1.2.28
and later): each reconcile of a request that is not Unknown makes it Unknown first; an error makes
BentoAvailable False and is tried again; a Bento of the request's name is written, or overwritten,
with what the request says. No Job is made here.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from played_controller import Json, PlayedController, condition_of, moved, running

__all__ = ["ImageBuilder", "running"]

BENTO = ("resources.yatai.ai/v1alpha1", "Bento")
# What the builder copies; a generation of the CRD that lacks a field drops it.
_COPIED = ("context", "runners", "models", "serviceName")


@dataclass
class _Build:
    """How far the build of one request is, and since when."""

    asked: str
    stage: str = "begin"
    since: float = field(default_factory=time.monotonic)
    number: int = 0

    def enter(self, stage: str) -> None:
        self.stage, self.since = stage, time.monotonic()

    def is_older(self, seconds: float) -> bool:
        return time.monotonic() - self.since >= seconds


@dataclass
class ImageBuilder(PlayedController):
    """Reconciles the BentoRequests of one namespace, one condition at a time.

    Attributes:
        seconds: How long a build takes (to its end, its failure or its time-out).
        job_fails: The build's Job fails, for good.
        forgets: After that BentoAvailable does not stay False: the newest builder says in the
            same reconcile that it is Unknown, and only ImageBuilding tells of the failure.
        times_out: The build does not end in time; `retry_seconds` later it counts anew.
        failure: What every look at the registry fails with; tried again and again.
        exists: The registry has the image already.
        retry_seconds: From an error to the next try.
        registry: Where an image goes that has no name.
    """

    seconds: float = 0.0
    job_fails: bool = False
    forgets: bool = False
    times_out: bool = False
    failure: str = ""
    exists: bool = False
    retry_seconds: float = 1.0
    registry: str = "registry.example.com/yatai-bentos"
    builds: dict[str, _Build] = field(default_factory=dict, repr=False)

    kind: ClassVar = ("resources.yatai.ai/v1alpha1", "BentoRequest")
    manager: ClassVar = "yatai-image-builder"

    def reconcile(self, live: Json) -> None:
        uid = live["metadata"]["uid"]
        asked = json.dumps(live["spec"], sort_keys=True)
        build = self.builds.get(uid)
        if build is None and condition_of(live, "BentoAvailable").get("status") == "True":
            build = self.builds[uid] = _Build(asked, stage="done")  # by the one before
        if build is None or build.asked != asked:
            number = build.number + 1 if build else 1
            build = self.builds[uid] = _Build(asked, number=number)
        getattr(self, f"_{build.stage}")(live, build)

    # -- stages, in their order --------------------------------------------------------------

    def _begin(self, live: Json, build: _Build) -> None:
        told = dict.fromkeys(("ImageBuilding", "ImageExists"), ("Unknown", "the request is new"))
        self._say(live, **told)
        build.enter("start")

    def _start(self, live: Json, build: _Build) -> None:
        self._say(live, BentoAvailable=("Unknown", "Reconciling"))
        build.enter("check")

    def _check(self, live: Json, build: _Build) -> None:
        image = self._image(live)
        if self.failure:
            self._say(live, BentoAvailable=("False", f"ensure image exists: {self.failure}"))
            build.enter("failed")
        elif self.exists:
            found = ("True", image)
            self._say(live, ImageExistsChecked=found, ImageExists=found)
            build.enter("write")
        else:
            self._say(
                live,
                ImageExistsChecked=("False", f"no image yet: {image}"),
                ImageExists=("False", f"no image yet: {image}"),
                ImageBuilding=("Unknown", f"Image building job {self._job(build)} is waiting"),
                BentoAvailable=("Unknown", "the image is being built"),
            )
            build.enter("run")

    def _run(self, live: Json, build: _Build) -> None:
        self._say(
            live,
            ImageBuilding=("True", f"Image building job {self._job(build)} is running"),
            BentoAvailable=("Unknown", "the image is being built"),
        )
        build.enter("build")

    def _build(self, live: Json, build: _Build) -> None:
        job = self._job(build)
        if not build.is_older(self.seconds):
            return
        if self.job_fails:
            failed = ("False", f"Image building job {job} is failed.")
            self._say(live, ImageBuilding=failed, BentoAvailable=failed)
            build.enter("forget" if self.forgets else "done")
        elif self.times_out:
            late = ("False", f"Image building job {job} is timeout", "Timeout")
            told = ("False", "ensure image exists: image build timeout")
            self._say(live, ImageBuilding=late, BentoAvailable=told)
            build.enter("late")
        else:
            built = ("False", f"Image building job {job} is done")
            self._say(live, ImageBuilding=built, ImageExists=("True", self._image(live)))
            build.enter("write")

    def _write(self, live: Json, build: _Build) -> None:
        asked = live["spec"]
        spec: Json = {"tag": asked["bentoTag"], "image": self._image(live)}
        spec |= {key: asked[key] for key in _COPIED if key in asked}
        if secret := asked.get("dockerConfigJsonSecretName"):
            spec["imagePullSecrets"] = [{"name": secret}]
        head = {"apiVersion": BENTO[0], "kind": BENTO[1]}
        metadata = {"name": live["metadata"]["name"]}
        self.put(live, {**head, "metadata": metadata, "spec": spec}, validation="Ignore")
        self._say(live, BentoAvailable=("True", "the Bento is written"))
        build.enter("done")

    # -- what is left ------------------------------------------------------------------------

    def _failed(self, live: Json, build: _Build) -> None:
        if build.is_older(self.retry_seconds):
            build.enter("start")

    def _late(self, live: Json, build: _Build) -> None:
        if build.is_older(self.retry_seconds):
            self._say(live, BentoAvailable=("Unknown", "Reconciling"))
            build.enter("run")

    def _forget(self, live: Json, build: _Build) -> None:
        self._say(live, BentoAvailable=("Unknown", "the image is being built"))
        build.enter("done")

    def _done(self, live: Json, build: _Build) -> None:
        pass

    # -- words -------------------------------------------------------------------------------

    def _image(self, live: Json) -> str:
        name, _, version = live["spec"]["bentoTag"].partition(":")
        return str(live["spec"].get("image") or f"{self.registry}:yatai.{name}.{version}")

    def _job(self, build: _Build) -> str:
        return f"yatai-bento-image-builder-{build.number}"

    def _say(self, live: Json, **told: tuple[str, ...]) -> None:
        """Sets conditions: status, message and, where it is another, the reason."""
        before = (live.get("status") or {}).get("conditions") or []
        changed = {
            kind: {
                "type": kind,
                "status": status,
                "message": message,
                "reason": reason[0] if reason else "Reconciling",
            }
            for kind, (status, message, *reason) in told.items()
        }
        both: dict[str, Any] = {one["type"]: one for one in before} | changed
        status = {"conditions": moved(before, list(both.values())), "imageBuilderPodStatus": {}}
        self.tell(live, status)
        live["status"] = status
