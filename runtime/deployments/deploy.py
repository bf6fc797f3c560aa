"""Deploying: render always, then roll out, start locally or leave it at that."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.client import cluster_configured
from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.deployments.local_target import VARIABLE, local_target, start_locally
from kfp_bento.runtime.deployments.release.apply import completed, try_release
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_of
from kfp_bento.runtime.deployments.release.release_facts import ReleaseFacts
from kfp_bento.runtime.deployments.release.rollout import Rollout, roll_out
from kfp_bento.runtime.deployments.release.verdict import DEFAULT_WAITING, Waiting
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.errors import DeploymentError, InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("auto", "apply", "render", "local")


@dataclass(frozen=True)
class Deployed:
    """A release, and how it came about.

    Attributes:
        release: The release.
        mode: `rendered` (manifests were written and nothing else happened), `applied`
            (a cluster took them) or `local` (the image runs on this machine).
        image: Image reference by digest; for an image that the cluster builds what its pods run.
        url: Root of the HTTP service; empty when the release was only rendered.
        diff: What the cluster had before, object by object; None where none was asked.
        rollout: What was applied and whether it serves; None where nothing was applied.
        seconds: From the first request to the verdict.
        waited: Whether the verdict was waited for; otherwise it only says that it was applied.
        confirmed: Whether it is on record as good already.
        context: Context of the kubeconfig that it was deployed with.
        files: The manifests as they were written.
    """

    release: Release
    mode: str
    image: str = ""
    url: str = ""
    diff: ReleaseDiff | None = None
    rollout: Rollout | None = None
    seconds: float = 0.0
    waited: bool = False
    confirmed: bool = False
    context: str = ""
    files: tuple[Path, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the release was waited for and does not serve."""
        return bool(self.waited and self.rollout and not self.rollout.verdict.ready)

    @property
    def on_trial(self) -> bool:
        """Whether it was brought out and not confirmed yet."""
        return self.mode != "rendered" and not self.failed and not self.confirmed

    def results(self, *, fail_at_once: bool = True) -> tuple[str, str, str]:
        """Give URL, name and image, or raise what the wait found wrong.

        Args:
            fail_at_once: False leaves it to whoever reads `facts`, which name the failure.

        Raises:
            DeploymentError: The reason with its evidence, and what serves now.
        """
        if fail_at_once:
            self.raise_if_failed()
        return (self.url, self.release.name, self.image)

    def raise_if_failed(self) -> None:
        """Raise what a wait found wrong; nothing where it passed or was not wanted.

        Raises:
            DeploymentError: The reason with its evidence, and what serves now.
        """
        if self.failed and self.rollout is not None:
            self.rollout.raise_if_failed(self.release.name)

    @property
    def facts(self) -> ReleaseFacts:
        """What the steps that follow need to know of it."""
        failure = ""
        if self.failed and self.rollout is not None:
            failure = f"{self.rollout.verdict.message} {self.rollout.what_serves_now}"
        return ReleaseFacts(
            target=self.release.target.kind,
            mode=self.mode,
            name=self.release.name,
            namespace=self.release.namespace,
            revision=self.release.revision,
            url=self.url,
            image=self.image,
            bento_tag=self.release.bento_tag,
            failure=failure,
            context=self.context,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain JSON values."""
        return self.facts.to_dict()


def deploy(
    release: Release,
    directory: Path,
    *,
    mode: str = "auto",
    image_location: str = "",
    waiting: Waiting = DEFAULT_WAITING,
    roll_back_on_failure: bool = False,
    confirm: bool = False,
    run: str = "",
    force: bool = False,
    context: str = "",
) -> Deployed:
    """Deploy a release on trial, and say where it answers.

    The manifests are written to `directory` whatever the mode, and nothing is applied before the
    API server has tried all of it. A release that does not serve is a failed `Deployed`.

    Args:
        release: What a target rendered.
        directory: Where the manifests go.
        mode: `apply` (to the configured cluster), `render` (files only), `local` (start the
            image on this machine through the server that `KFP_BENTO_LOCAL_TARGET` names) or
            `auto`: local when that variable is set, else apply when a cluster is configured
            and the image is in a registry, else render.
        image_location: Where the image lies, `oci:DIRECTORY` or `docker://...`.
        waiting: How long the release may take to serve; 0 seconds apply it and do not wait.
        roll_back_on_failure: Restore the last good release when this one does not serve; where
            there was none of that name, take it away.
        confirm: Keep it as good as soon as it serves.
        run: The pipeline run that puts it on trial.
        force: Take over fields that another field manager owns.
        context: Context of the kubeconfig.

    Raises:
        InvalidInput: An argument that cannot be honoured, by its name.
        DeploymentError: The cluster or the local target refused or does not answer.
    """
    chosen = choose_mode(mode, image_location)
    if waiting.seconds < 0:
        raise InvalidInput(
            f"wait_seconds: {waiting.seconds:g} is negative.", hint="0 does not wait."
        )
    files = tuple(write_manifests(release.manifests, directory))
    if chosen == "render":
        return Deployed(release, "rendered", release.image, files=files)
    if chosen == "local":
        url = _started(release, image_location)
        return Deployed(release, "local", release.image, url, files=files)
    with connect(context) as cluster:
        done = _applied(
            cluster,
            release,
            waiting,
            roll_back_on_failure=roll_back_on_failure,
            confirm=confirm,
            run=run,
            force=force,
        )
    return replace(done, files=files, context=context)


def _applied(
    cluster: ClusterConnection,
    release: Release,
    waiting: Waiting,
    *,
    roll_back_on_failure: bool,
    confirm: bool,
    run: str,
    force: bool,
) -> Deployed:
    began = time.monotonic()
    release = completed(cluster, release)
    trial = try_release(cluster, release, force=force)
    diff = diff_of(cluster, release, trial)
    rollout = roll_out(
        cluster,
        release,
        trial,
        waiting,
        roll_back_on_failure=roll_back_on_failure,
        confirm=confirm,
        run=run,
    )
    # What only the cluster knows: the address, and the image that its builder made.
    builder = release.target.builder
    built = builder(cluster, release.manifests) if builder else ""
    return Deployed(
        release,
        "applied",
        image=built or release.image,
        url=release.url(cluster.get(release.primary)),
        diff=diff,
        rollout=rollout,
        seconds=time.monotonic() - began,
        waited=bool(waiting.seconds),
        confirmed=rollout.confirmed,
    )


def _started(release: Release, image_location: str) -> str:
    bento = release.bento
    if bento is None or bento.directory is None or "@" not in release.image:
        raise InvalidInput(
            f"mode: 'local' starts an image by digest, which {release.target.kind} has none of "
            "here.",
            hint="Use mode 'render' or 'apply'.",
        )
    return start_locally(
        local_target(),
        release.manifests,
        image=release.image,
        image_location=image_location,
        bento_directory=bento.directory,
    )


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
