"""Releases as tests make them, and bring them to a cluster over a connection of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.deployments import TARGETS, Applied, Release, Rollout, Verdict, Waiting
from kfp_bento.runtime.deployments.kube.cluster import connect
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts
from kfp_bento.runtime.deployments.release.apply import apply_tried, try_all, try_release
from kfp_bento.runtime.deployments.release.diff import object_diff
from kfp_bento.runtime.deployments.release.rollout import roll_out as roll_out_over
from kfp_bento.runtime.deployments.release.wait import LOOK_PATIENCE
from kfp_bento.runtime.deployments.release.wait import wait_until_ready as wait_over
from kfp_bento.runtime.deployments.targets.readiness import Watched

Manifests = Sequence[dict[str, Any]]


def rendered(target: str, image: str, bento: Bento | None, **options: Any) -> list[dict[str, Any]]:
    """The manifests alone, without the marks of a release."""
    return [dict(one) for one in TARGETS[target].render(image, bento, options).manifests]


def render_bento_deployment(image: str, bento: Bento, **options: Any) -> list[dict[str, Any]]:
    return rendered("bento-deployment", image, bento, **options)


def handmade(target: str, manifests: Manifests, image: str = "", tag: str = "wine:v") -> Release:
    """A release of objects that no target has rendered, such as those of another operator."""
    return Release(TARGETS[target], tuple(manifests), image, BentoFacts(*tag.split(":")))


def apply_manifests(
    manifests: Manifests, *, force: bool = False, context: str = "", patience_seconds: float = 30.0
) -> tuple[Applied, ...]:
    with connect(context, patience_seconds=patience_seconds) as cluster:
        return apply_tried(cluster, try_all(cluster, manifests, force=force))


def trial_changes(manifests: Manifests) -> list[str]:
    """What an apply would do to each object, in the order of applying."""
    with connect() as cluster:
        trial = try_all(cluster, manifests)
    tried = zip(trial.manifests, trial.before, trial.after, strict=True)
    return [object_diff(ObjectRef.of(one), old, new).change for one, old, new in tried]


def roll_out(
    release: Release,
    *,
    seconds: float = 60.0,
    steady: float = 0.5,
    roll_back_on_failure: bool = False,
    force: bool = False,
    patience_seconds: float = 30.0,
    confirm: bool = True,
    run: str = "",
    **waiting: Any,
) -> Rollout:
    with connect(patience_seconds=patience_seconds) as cluster:
        return roll_out_over(
            cluster,
            release,
            try_release(cluster, release, force=force),
            Waiting(seconds, steady, **waiting),
            roll_back_on_failure=roll_back_on_failure,
            confirm=confirm,
            run=run,
        )


def wait_until_ready(
    watched: Watched, seconds: float = 60.0, *, steady: float = 0.5, **waiting: Any
) -> Verdict:
    with connect(patience_seconds=LOOK_PATIENCE) as cluster:
        return wait_over(cluster, watched, Waiting(seconds, steady, **waiting))
