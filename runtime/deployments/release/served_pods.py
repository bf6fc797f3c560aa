"""What the pods of a release run, by what they were given and what their nodes say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.release.pod_state import (
    is_ready,
    new_pods,
    pods_of_others,
)
from kfp_bento.runtime.deployments.targets.readiness import (
    Snapshot,
    Watched,
    WatchedDeployment,
    has_arrived,
    image_of,
    is_run_for,
    live_deployment,
    pod_images,
)
from kfp_bento.runtime.programs import cleaned


@dataclass(frozen=True)
class ServedPod:
    """One pod of the revision that serves.

    Attributes:
        name: Its name.
        image: The image that its container was given; a mirror or an admission policy may have
            renamed it.
        runs: The image that its node says it runs, with the digest that was pulled; empty where a
            node tells none.
        ready: Whether it gets requests.
    """

    name: str
    image: str
    runs: str
    ready: bool

    def is_of(self, image: str) -> bool:
        """Say whether it runs an image by digest."""
        digest = image.rpartition("@")[2]
        return digest in (self.image.rpartition("@")[2], self.runs.rpartition("@")[2])

    def to_dict(self) -> dict[str, object]:
        """Give it as plain JSON values."""
        return asdict(self)


def served_pods(watched: Watched, snapshot: Snapshot) -> tuple[ServedPod, ...]:
    """Give the pods of all Deployments of a release, of their newest revision."""
    found = []
    for wanted in watched.deployments:
        if live := live_deployment(wanted, snapshot):
            for pod in new_pods(live, snapshot):
                image, runs = (cleaned(one)[:1024] for one in pod_images(wanted, pod))
                name = str(pod["metadata"]["name"])
                found.append(ServedPod(name, image, runs, is_ready(pod)))
    return tuple(found)


def other_images(wanted: WatchedDeployment, live: Manifest, snapshot: Snapshot) -> Iterator[str]:
    """Say which pods run another image than their Deployment, or each another one of a tag."""
    image, ids = image_of(wanted, live), set()
    for pod in new_pods(live, snapshot):
        asked, runs = pod_images(wanted, pod)
        if asked and not is_run_for(image, asked):
            yield f"pod {pod['metadata']['name']} runs image {asked}, not {image}"
        ids.add(runs)
    if "@" not in image and len(ids - {""}) > 1:
        yield f"pods of {live['metadata']['name']} run different images of {image}: {sorted(ids)}"


def not_served(watched: Watched, snapshot: Snapshot) -> str:
    """Say why what answers requests is not the release, as far as its pods tell; "" where it is.

    Whether all replicas are there is not asked: after a release was ready an autoscaler may be at
    work, and what its wait has tolerated is not to be told again.
    """
    for wanted in watched.deployments:
        live = live_deployment(wanted, snapshot)
        if live is None or not has_arrived(wanted, live):
            return f"Deployment {wanted.name or wanted.component} is not at this revision"
        if other := next(other_images(wanted, live, snapshot), ""):
            return other
        idle = not wanted.minimum and not live["spec"].get("replicas", 1)
        if not idle and not any(map(is_ready, new_pods(live, snapshot))):
            return f"no pod of Deployment {live['metadata']['name']} is ready"
        for pod in filter(is_ready, pods_of_others(live, snapshot)):
            return f"pod {pod['metadata']['name']} of another revision still answers"
    return ""
