"""Deploying: render always, then roll out, start locally or leave it at that."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.cluster import ObjectRef, cluster_configured, connect
from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.deployments.local_target import VARIABLE, local_target, start_locally
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_manifests
from kfp_bento.runtime.deployments.release.marks import record_release, revision_of
from kfp_bento.runtime.deployments.release.release import Release
from kfp_bento.runtime.deployments.release.rollout import Rollout, apply_release, roll_out
from kfp_bento.runtime.deployments.targets.built_image import served_image
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import target_of
from kfp_bento.runtime.deployments.targets.task_settings import merged_options
from kfp_bento.runtime.errors import DeploymentError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from kfp_bento.runtime.bentos import Bento

MODES = ("auto", "apply", "render", "local")


@dataclass(frozen=True)
class Deployed:
    """A release, and how it came about.

    Attributes:
        release: The release.
        diff: What the cluster had before, object by object; None where none was asked.
        rollout: What was applied and whether it serves; None where nothing was applied.
        seconds: From the first request to the verdict.
        waited: Whether the verdict was waited for; otherwise it only says that it was applied.
        files: The manifests as they were written.
    """

    release: Release
    diff: ReleaseDiff | None = None
    rollout: Rollout | None = None
    seconds: float = 0.0
    waited: bool = False
    files: tuple[Path, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the release was waited for and does not serve."""
        return bool(self.waited and self.rollout and not self.rollout.verdict.ready)

    def raise_if_failed(self) -> None:
        """Raise what a wait found wrong; nothing where it passed or was not wanted.

        Raises:
            DeploymentError: The reason with its evidence, and what serves now.
        """
        if self.failed and self.rollout is not None:
            self.rollout.raise_if_failed(self.release.name)


def deploy(
    target: str,
    image: str,
    bento: Bento | None,
    directory: Path,
    *,
    options: Mapping[str, Any] | None = None,
    more_options: Mapping[str, Any] | None = None,
    task_config: Any = None,
    mode: str = "auto",
    image_location: str = "",
    wait_seconds: float = 600.0,
    roll_back_on_failure: bool = False,
    force: bool = False,
    tolerated: Collection[str] = (),
    unschedulable_seconds: float = 30.0,
    context: str = "",
    progress: Callable[[str], None] | None = None,
) -> Deployed:
    """Deploy an image of a bento to one of the targets and say where it answers.

    The manifests are written to `directory` whatever the mode, and nothing is applied before the
    API server has tried all of it. A release that does not serve is no error here but a failed
    `Deployed`, so that what was found can be written down first.

    Args:
        target: One of `TARGETS`.
        image: Image reference by digest; a tag to build for a BentoRequest; "" for a stored model.
        bento: The bento inside the image; None for a stored model.
        directory: Where the manifests go.
        options: Rendering options of the target; an empty value stands for the default.
        more_options: Further ones, by the same names; one that `options` has too is refused.
        task_config: What Kubeflow Pipelines hands a component of its task's settings: resources,
            tolerations, node selector and affinity go to the pods where `options` say nothing.
        mode: `apply` (to the configured cluster), `render` (files only), `local` (start the
            image on this machine through the server that `KFP_BENTO_LOCAL_TARGET` names) or
            `auto`: local when that variable is set, else apply when a cluster is configured
            and the image is in a registry, else render.
        image_location: Where the image lies, `oci:DIRECTORY` or `docker://...`.
        wait_seconds: How long the release may take to serve; 0 applies it and does not wait.
        roll_back_on_failure: Restore the last good release when this one does not serve.
        force: Take over fields that another field manager owns.
        tolerated: Reasons of a verdict that are no failure here, such as `DomainSuffix`.
        unschedulable_seconds: How long the scheduler may find no node.
        context: Context of the kubeconfig.
        progress: Called with a sentence whenever what is waited for changes.

    Raises:
        InvalidInput: An argument that cannot be honoured, by its name.
        DeploymentError: The cluster or the local target refused or does not answer.
    """
    chosen = choose_mode(mode, image_location)
    kind = target_of(target)
    if wait_seconds < 0:
        raise InvalidInput(f"wait_seconds: {wait_seconds:g} is negative.", hint="0 does not wait.")
    wanted = merged_options(kind, options or {}, more_options or {}, task_config)
    manifests = kind.render(image, bento, wanted)
    files = tuple(write_manifests(manifests, directory))
    tag = bento.tag if bento is not None else ""
    release = Release(
        target=target,
        mode={"apply": "applied", "render": "rendered", "local": "local"}[chosen],
        name=kind.primary(manifests)["metadata"]["name"],
        namespace=kind.primary(manifests)["metadata"]["namespace"],
        revision=revision_of(manifests),
        url="",
        image=image,
        bento_tag=tag,
    )
    if chosen == "render":
        return Deployed(release, files=files)
    if chosen == "local":
        url = _started(manifests, image, image_location, bento, target)
        return Deployed(replace(release, url=url), files=files)
    began = time.monotonic()
    recorded = record_release(manifests, image=image, bento=tag)
    diff = diff_manifests(recorded, context=context, force=force)
    if wait_seconds:
        rollout = roll_out(
            manifests,
            image=image,
            bento=tag,
            seconds=wait_seconds,
            roll_back_on_failure=roll_back_on_failure,
            context=context,
            force=force,
            tolerated=tolerated,
            unschedulable_seconds=unschedulable_seconds,
            progress=progress,
        )
    else:
        rollout = apply_release(recorded, context=context, force=force)
    release = replace(release, revision=rollout.revision, **_live(kind, manifests, image, context))
    seconds = time.monotonic() - began
    return Deployed(release, diff, rollout, seconds, waited=bool(wait_seconds), files=files)


def _started(
    manifests: Sequence[Mapping[str, Any]],
    image: str,
    image_location: str,
    bento: Bento | None,
    target: str,
) -> str:
    if bento is None or not image or "@" not in image:
        raise InvalidInput(
            f"mode: 'local' starts an image by digest, which {target} has none of here.",
            hint="Use mode 'render' or 'apply'.",
        )
    return start_locally(
        local_target(),
        manifests,
        image=image,
        image_location=image_location,
        bento_directory=bento.directory,
    )


def _live(
    kind: Target, manifests: Sequence[Mapping[str, Any]], image: str, context: str
) -> dict[str, str]:
    """Give what only the cluster knows: the address, and the image that its builder made."""
    with connect(context) as cluster:
        primary = cluster.get(ObjectRef.of(kind.primary(manifests)))
        return {
            "url": kind.url(manifests, primary),
            "image": served_image(cluster, manifests) or image,
        }


def choose_mode(mode: str, image_location: str = "") -> str:
    """Give the mode that `auto` stands for here, or the wanted one if it can work.

    Raises:
        InvalidInput: No such mode, or `local` without a local target.
        DeploymentError: `apply` of an image that lies in a directory of this machine.
    """
    if mode not in MODES:
        raise InvalidInput(f"mode: {mode!r} is no mode.", hint=f"One of {', '.join(MODES)}.")
    in_a_directory = image_location.startswith("oci:")
    if mode == "auto":
        if local_target():
            return "local"
        return "apply" if cluster_configured() and not in_a_directory else "render"
    if mode == "local" and not local_target():
        raise InvalidInput(
            f"mode: 'local' needs {VARIABLE}, which a local run sets.",
            hint="Use `kfp-bento run` or `kfp-bento demo`, or another mode.",
        )
    if mode == "apply" and in_a_directory:
        raise DeploymentError(
            f"No cluster can pull the image from {image_location}: it is a directory here.",
            hint="Build the image to a registry, or use mode 'render'.",
        )
    return mode
