"""What the holder of a release says about it: what is applied, and what was good before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.errors import Refused
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.good_release import GoodRelease, believed, encode_good
from kfp_bento.runtime.deployments.targets.marks import (
    BENTO,
    CONTRACT,
    IMAGE,
    LAST_GOOD,
    NEW,
    PREVIOUS_GOOD,
    PROMOTION,
    REVISION,
    ROLLED_BACK,
    RUN,
    TRIAL,
    TRIAL_CONTRACT,
    annotations_of,
)
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.programs import cleaned

# Not the manager of the apply: a later apply without the annotation must not remove it.
RECORDER = "kfp-bento-record"

_TRIES = 10
# What an apply that creates a release says instead is its run.
_NOTHING_GOOD = "true"
_LONGEST_FACT = 1024


@dataclass(frozen=True)
class Record:
    """What the holder says about a release.

    Attributes:
        revision: Digest of the rendered manifests, 16 hex digits.
        image: Image reference by digest.
        bento: `name:version`.
        last_good: The last release whose answers were found right, or that somebody confirmed; None
            when there is none.
        previous_good: The one that was good before it.
        rolled_back: Revision that the last roll back has left, until another release is good.
        run: The pipeline run that put what is applied on trial; empty where none did.
        is_new: Whether nothing was ever good, and runs alone put releases on trial.
        contract: What the last good release has promised its clients, packed; empty where that is
            not known.
        promotion: What is said of a promotion that was begun with the good release; empty when none
            is under way.
        disbelieved: Why a good release that is on record is not among these.
    """

    revision: str = ""
    image: str = ""
    bento: str = ""
    last_good: GoodRelease | None = None
    previous_good: GoodRelease | None = None
    rolled_back: str = ""
    run: str = ""
    is_new: bool = False
    contract: str = ""
    promotion: str = ""
    disbelieved: tuple[DeploymentError, ...] = ()

    @property
    def serves_good(self) -> bool:
        """Whether the last good release is what is applied."""
        return self.last_good is not None and self.last_good.is_at(self.revision)

    @property
    def on_trial(self) -> bool:
        """Whether what is applied was not found good yet."""
        return bool(self.revision) and not self.serves_good

    def good(self, revision: str) -> GoodRelease | None:
        """Give the good release of a revision, or of the digits it begins with."""
        known = (one for one in (self.last_good, self.previous_good) if one)
        return next((one for one in known if one.revision.startswith(revision)), None)


def read_record(holder: Manifest | None, primary: ObjectRef | None = None) -> Record:
    """Read the facts of a release from its holder as it is live.

    Args:
        holder: The holder.
        primary: The release's primary object; without it the good releases are left out.
    """
    told = annotations_of(holder)
    found: dict[str, GoodRelease] = {}
    disbelieved = []
    for key in (LAST_GOOD, PREVIOUS_GOOD):
        if primary is None or not told.get(key):
            continue
        try:
            found[key] = believed(told[key], primary, key)
        except DeploymentError as error:
            disbelieved.append(error)
    return Record(
        revision=_fact(told, REVISION),
        image=_fact(told, IMAGE),
        bento=_fact(told, BENTO),
        last_good=found.get(LAST_GOOD),
        previous_good=found.get(PREVIOUS_GOOD),
        rolled_back=_fact(told, ROLLED_BACK),
        run=_fact(told, RUN) or _fact(told, NEW).replace(_NOTHING_GOOD, ""),
        is_new=bool(told.get(NEW)),
        contract=told.get(CONTRACT, ""),
        promotion=_fact(told, PROMOTION),
        disbelieved=tuple(disbelieved),
    )


def mark_run(cluster: ClusterConnection, holder: ObjectRef, run: str) -> None:
    """Record that a run is about to put something on trial."""

    def changes(told: Mapping[str, str]) -> dict[str, str | None]:
        # Of another value than the apply gave it, it is ours and outlasts the next apply.
        return _changed(told, {RUN: run} | ({NEW: _NOTHING_GOOD} if NEW in told else {}))

    _annotate(cluster, holder, changes)


def mark_trial(
    cluster: ClusterConnection, release: Release, *, run: str = "", created: bool = False
) -> None:
    """Record a release that was applied as one on trial, unless it is the good one already.

    Args:
        cluster: Where the release is.
        release: As it was applied.
        run: The pipeline run that does it.
        created: Whether there was nothing before it.
    """
    packed = encode_good(release)

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != release.revision:
            return None
        last = _good(told, LAST_GOOD, release.primary)
        if last and last.is_at(release.revision):
            return _without(told, TRIAL, RUN, NEW)
        # What another trial has promised is not this one's.
        others = _without(told, TRIAL_CONTRACT) if told.get(TRIAL) != packed else {}
        new = _NOTHING_GOOD if run and not last and (created or NEW in told) else None
        return _changed(told, {TRIAL: packed, RUN: run or None, NEW: new}) | others

    _annotate(cluster, release.holder, changes)


def mark_good(cluster: ClusterConnection, release: Release, *, restored: bool = False) -> bool:
    """Record a release as the last good one, if it is still what is applied.

    What was the last good one becomes the previous one, if it is believed; a record that is not
    believed goes.

    Args:
        cluster: Where the release is.
        release: As it was applied.
        restored: Whether a roll back brought it; then that stays noted.

    Returns:
        False when another release has taken over in the meantime.
    """
    packed = encode_good(release)

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != release.revision:
            return None
        return _good_marks(told, release.primary, release.revision, packed, restored=restored)

    return _annotate(cluster, release.holder, changes)


def mark_confirmed(
    cluster: ClusterConnection,
    holder: ObjectRef,
    primary: ObjectRef,
    revision: str,
    *,
    promotion: str = "",
) -> bool:
    """Record the release on trial as the last good one, if it is still what is applied.

    Args:
        cluster: Where the release is.
        holder: Its holder.
        primary: Its primary object.
        revision: The revision that is on trial.
        promotion: What is to be said of a promotion that begins with it.

    Returns:
        False when another release has taken over in the meantime.

    Raises:
        DeploymentError: What is on record of the trial is not believed.
    """

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != revision:
            return None
        marks: dict[str, str | None] = {}
        last = _good(told, LAST_GOOD, primary)
        if not (last and last.is_at(revision)):
            if not told.get(TRIAL) or not believed(told[TRIAL], primary, TRIAL).is_at(revision):
                return None
            marks = _good_marks(told, primary, revision, told[TRIAL])
        return marks | _changed(told, {PROMOTION: promotion} if promotion else {})

    return _annotate(cluster, holder, changes)


def mark_contract(
    cluster: ClusterConnection, holder: ObjectRef, revision: str, contract: str
) -> None:
    """Record what a release on trial promises its clients; it counts once it is good."""

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != revision:
            return None
        return _changed(told, {TRIAL_CONTRACT: contract})

    _annotate(cluster, holder, changes)


def mark_promoted(cluster: ClusterConnection, holder: ObjectRef, promotion: str) -> None:
    """Record that a promotion which was begun is over, unless another one has begun."""
    _annotate(
        cluster, holder, lambda told: {PROMOTION: None} if told.get(PROMOTION) == promotion else {}
    )


def _good_marks(
    told: Mapping[str, str],
    primary: ObjectRef,
    revision: str,
    packed: str,
    *,
    restored: bool = False,
) -> dict[str, str | None]:
    """Give the annotations that make a release the last good one."""
    marks: dict[str, str | None] = _without(told, TRIAL, RUN, NEW, TRIAL_CONTRACT)
    if TRIAL_CONTRACT in told and not restored:
        marks[CONTRACT] = told[TRIAL_CONTRACT]
    if told.get(LAST_GOOD) != packed:
        marks[LAST_GOOD] = packed
        last = _good(told, LAST_GOOD, primary)
        if last and not last.is_at(revision):
            marks[PREVIOUS_GOOD] = told[LAST_GOOD]
    elsewhere = PREVIOUS_GOOD in marks or PREVIOUS_GOOD not in told
    if not elsewhere and _good(told, PREVIOUS_GOOD, primary) is None:
        marks[PREVIOUS_GOOD] = None
    if ROLLED_BACK in told and not restored:
        marks[ROLLED_BACK] = None
    return marks


def _without(told: Mapping[str, str], *keys: str) -> dict[str, str | None]:
    return {key: None for key in keys if key in told}


def _changed(told: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    return {key: value for key, value in wanted.items() if told.get(key) != value}


def mark_step_back(cluster: ClusterConnection, release: Release, leaving: str) -> bool:
    """Record that a good release is gone back to, before anything is applied.

    So a roll back that is killed anywhere goes the same way when it is tried again.

    Args:
        cluster: Where the release is.
        release: Where it goes.
        leaving: The revision that it leaves.

    Returns:
        False when that is not what is applied any more.
    """

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != leaving:
            return None
        marks: dict[str, str | None] = {
            ROLLED_BACK: leaving,
            **_without(told, TRIAL, RUN, TRIAL_CONTRACT),
        }
        previous = _good(told, PREVIOUS_GOOD, release.primary)
        if previous and previous.is_at(release.revision):
            marks |= {LAST_GOOD: told[PREVIOUS_GOOD], PREVIOUS_GOOD: None}
            # What was noted of a promotion is about the release that is left.
            marks |= _without(told, PROMOTION, CONTRACT)
        return marks

    return _annotate(cluster, release.holder, changes)


def _annotate(
    cluster: ClusterConnection,
    holder: ObjectRef,
    changes: Callable[[Mapping[str, str]], Mapping[str, str | None] | None],
) -> bool:
    """Change annotations by what they are now, never over somebody else's change."""
    for _ in range(_TRIES):
        live = cluster.get(holder)
        marks = changes(annotations_of(live)) if live is not None else None
        if live is None or marks is None:
            return False
        if not marks:
            return True
        metadata = {
            "annotations": dict(marks),
            "resourceVersion": live["metadata"]["resourceVersion"],
        }
        try:
            cluster.merge(holder, {"metadata": metadata}, manager=RECORDER)
        except Refused as refused:
            # 409: status or another run came in between, so look again; 404: deleted.
            if refused.status not in (404, 409):
                raise
        else:
            return True
    return False


def _good(told: Mapping[str, str], key: str, primary: ObjectRef) -> GoodRelease | None:
    """Give a good release on record; None where there is none to be believed."""
    try:
        return believed(told[key], primary, key) if told.get(key) else None
    except DeploymentError:
        return None


def _fact(told: Mapping[str, str], key: str) -> str:
    """Give a short annotation as it may be shown: anybody who may edit the object wrote it."""
    return cleaned(told.get(key, ""))[:_LONGEST_FACT]
