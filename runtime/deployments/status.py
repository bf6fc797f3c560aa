"""How a release stands right now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from .cluster import PATIENCE_SECONDS, ClusterConnection, Manifest, ObjectRef, connect
from .delete import release_objects, release_ref
from .record import holder_of, read_record
from .verdict import Judge
from .wait import look_at
from .watched import Watched, watched_release


@dataclass(frozen=True)
class ReleaseStatus:
    """One release as the cluster has it.

    Attributes:
        name: Its name.
        namespace: Its namespace.
        kind: Kind of its primary object.
        exists: Whether that object is there.
        ready: Whether it serves in this moment.
        message: What it serves, or what is missing.
        revision: The applied revision; empty when it was not applied as a release.
        image: The applied image.
        bento: The applied bento.
        last_good: The last revision whose wait passed; empty when there is none.
        objects: All objects of the release.
    """

    name: str
    namespace: str
    kind: str
    exists: bool
    ready: bool
    message: str
    revision: str = ""
    image: str = ""
    bento: str = ""
    last_good: str = ""
    objects: tuple[ObjectRef, ...] = ()


def release_status(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    context: str = "",
    patience_seconds: float = PATIENCE_SECONDS,
) -> ReleaseStatus:
    """Look at a release once.

    Args:
        name: Name of the release.
        target: See `release_ref`.
        namespace: Its namespace.
        context: Context of the kubeconfig.
        patience_seconds: How long one request is tried again.

    Raises:
        DeploymentError: No cluster answers, or it refuses to be read.
    """
    ref = release_ref(name, target, namespace)
    with connect(context, patience_seconds=patience_seconds) as cluster:
        live = cluster.get(ref) if cluster.knows(ref.api_version, ref.kind) else None
        if live is None:
            return ReleaseStatus(name, namespace, ref.kind, False, False, f"{ref} is not there.")
        holder = holder_of(ref)
        record = read_record(live if holder == ref else cluster.get(holder))
        judge = Judge(watched_live(cluster, live), steady_seconds=0.0)
        verdict = judge.look(look_at(cluster, judge.watched)[0], time.monotonic())
        return ReleaseStatus(
            name,
            namespace,
            ref.kind,
            exists=True,
            ready=bool(verdict and verdict.ready),
            message=verdict.message if verdict else f"Not ready: {judge.waiting_for}.",
            revision=record.revision,
            image=record.image,
            bento=record.bento,
            last_good=record.last_good.revision if record.last_good else "",
            objects=tuple(ObjectRef.of(entry) for entry in release_objects(cluster, ref)),
        )


def watched_live(cluster: ClusterConnection, primary: Manifest) -> Watched:
    """Describe a release by its live objects, where its manifests are not at hand."""
    ref = ObjectRef.of(primary)
    objects: list[dict[str, Any]] = [dict(primary)]
    places = [holder_of(ref)] if holder_of(ref) != ref else []
    if ref.kind == "BentoDeployment":
        group, name = "resources.yatai.ai/v1alpha1", primary["spec"]["bento"]
        places += [ObjectRef(group, kind, ref.namespace, name) for kind in ("Bento",)]
    for place in places:
        if live := cluster.get(place):
            objects.append(live)
    return watched_release(objects)
