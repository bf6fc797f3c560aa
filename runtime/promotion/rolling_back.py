"""Going back as one act: the endpoint serves what was good before, and the alias points to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import ReleaseFacts, Waiting, leave_release
from kfp_bento.runtime.errors import DeploymentError, PromotionError
from kfp_bento.runtime.models import (
    choose_tracking,
    missing_as,
    read_registered_version,
    speaking_to,
    tracking_client,
)
from kfp_bento.runtime.promotion.history import Act, last_known_good_tag, write_entry
from kfp_bento.runtime.promotion.pending import complete_pending
from kfp_bento.runtime.promotion.standing import alias_holder

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import Rollout


@dataclass(frozen=True)
class MovedBack:
    """What became of the alias of one registered model.

    Attributes:
        name: Registered model name.
        version: The version that holds the alias now.
        previous: The version that held it before, or "".
        changed: Whether this call moved it.
    """

    name: str
    version: str
    previous: str
    changed: bool


@dataclass(frozen=True)
class RolledBack:
    """What a roll back did.

    Attributes:
        alias: The alias; empty where only the endpoint went back.
        rollout: What became of the release.
        models: What became of the alias on each of its registered models.
    """

    alias: str
    rollout: Rollout
    models: tuple[MovedBack, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as JSON values."""
        left = self.rollout.left
        return {
            "alias": self.alias,
            "revision": self.rollout.revision,
            "image": self.rollout.image,
            "left": {
                "revision": left.revision if left else "",
                "image": left.image if left else "",
            },
            "models": [vars(model) for model in self.models],
        }


def roll_back_release(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    alias: str = "",
    tracking_uri: str = "",
    by: str = "",
    why: str = "",
    dry_run: bool = False,
    **how: Any,
) -> RolledBack:
    """Bring the last good release back, then point the alias to the versions that it serves.

    The endpoint goes first: an alias never points to what does not serve. Killed anywhere, running
    it again ends the same way and goes no further back.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        alias: The alias of its registered models; "" leaves aliases alone.
        tracking_uri: The tracking server; "" means the environment's.
        by: Who goes back; "" takes the user of this machine.
        why: The reason, for the history.
        dry_run: Change nothing, only say what would.
        how: Further arguments of `deployments.roll_back`.

    Returns:
        What was done. A release that does not serve is no error here; then no alias has moved.

    Raises:
        DeploymentError: There is nothing to go back to.
        PromotionError: The endpoint is back, and the registry did not do as asked.
    """
    rollout = deployments.roll_back(
        name, target=target, namespace=namespace, dry_run=dry_run, **how
    )
    if not alias or not (dry_run or rollout.verdict.ready):
        return RolledBack(alias, rollout)
    at = ReleaseFacts(target, "applied", name, namespace, rollout.revision, image=rollout.image)
    why = why or "rolled back with its release"
    act = Act.now(by=by, why=why, image=at.image, release=at.title)
    moved = _follow(rollout, at, alias, act, tracking_uri, dry_run=dry_run)
    return RolledBack(alias, rollout, moved)


def _follow(
    rollout: Rollout, at: ReleaseFacts, alias: str, act: Act, tracking_uri: str, *, dry_run: bool
) -> tuple[MovedBack, ...]:
    """Let the alias follow a release that went back."""
    if not rollout.models:
        raise DeploymentError(
            f"{at.title} serves a bento ({rollout.bento or 'unknown'}) that names no registered "
            f"model, so the alias {alias!r} was left where it is.",
            hint="Leave the alias out to bring the endpoint back alone.",
        )
    tracking = choose_tracking(tracking_uri)
    with speaking_to(tracking, error=PromotionError):
        client = tracking_client(tracking, error=PromotionError)
        _require_versions(client, rollout.models)
        found = [(model, alias_holder(client, model[0], alias)) for model in rollout.models]
        return tuple(
            _move(client, alias, model, current, act, dry_run=dry_run) for model, current in found
        )


def settle_run(
    run: str,
    *,
    target: str,
    namespace: str = "default",
    mode: str = "apply",
    tracking_uri: str = "",
    waiting: Waiting | None = None,
    by: str = "",
) -> tuple[str, ...]:
    """Settle what a run has left: trials go back, promotions that were begun are completed.

    A run that ended well has left nothing, and nothing is done.

    Args:
        run: The run.
        target: Kind of target, one of `TARGETS`.
        namespace: Where its releases are.
        mode: How they were deployed, see `deploy`; only what is on a cluster is settled, since the
            local target ends with the run.
        tracking_uri: The tracking server; "" means the environment's.
        waiting: How long a restored release may take to serve.
        by: Who settles.

    Returns:
        What was done, a sentence for each release.

    Raises:
        DeploymentError: The cluster does not answer, or refuses.
        PromotionError: The registry does not answer, or refuses.
    """
    told: list[str] = []
    if deployments.choose_mode(mode) != "apply":
        return ()
    why = "The run ended before it was settled."
    for release, on_trial in deployments.unsettled_releases(
        run, target=target, namespace=namespace
    ):
        done = []
        if on_trial:
            done.append(leave_release(release, why, waiting=waiting or Waiting()).message)
        done.append(complete_pending(release, tracking_uri, by=by))
        told += [f"{release.namespace}/{release.name}: {text}" for text in done if text]
    return tuple(told)


def _require_versions(client: Any, models: tuple[tuple[str, str], ...]) -> None:
    """Make sure that all versions are there before the first alias moves."""
    for name, version in models:
        with missing_as(
            f"The endpoint is back at version {version} of {name!r}, which is not in the registry "
            "any more, so no alias can point to it.",
            hint="Register it again under a new version, and promote that.",
            error=PromotionError,
        ):
            read_registered_version(client.get_model_version(name, version))


def _move(
    client: Any, alias: str, model: tuple[str, str], current: str, act: Act, *, dry_run: bool
) -> MovedBack:
    name, version = model
    if current != version and not dry_run:
        client.set_registered_model_alias(name, alias, version)
        # What was left was not good enough to go back to.
        if current:
            client.set_registered_model_tag(name, last_known_good_tag(alias), version)
        write_entry(client, name, version, alias, (), current, act)
    return MovedBack(name, version, current, current != version)
