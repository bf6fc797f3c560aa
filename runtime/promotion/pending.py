"""A promotion under way, as the release notes it: whoever comes next completes what was begun.

A release is confirmed before its aliases move. Killed between the two, the endpoint is on models
that were found good and the alias is not; the note says what was about to happen.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments import end_promotion, promotion_under_way
from kfp_bento.runtime.errors import ModelError, PromotionError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.models import choose_tracking, speaking_to, tracking_client, version_number
from kfp_bento.runtime.promotion.history import Act, last_known_good_tag, write_entry
from kfp_bento.runtime.promotion.standing import alias_holder

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import ReleaseFacts
    from kfp_bento.runtime.promotion.standing import Standing

LONGEST_NOTE = 900
_CUT_SHORT = "an earlier run was cut short after its checks had passed"


@dataclass(frozen=True)
class Pending:
    """What a promotion is about to do.

    Attributes:
        alias: The alias.
        moves: Registered model, the version that holds the alias, or "", and the one that is to.
    """

    alias: str
    moves: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, alias: str, standings: Iterable[Standing]) -> Pending:
        """Take it from how things stand before the aliases move."""
        moves = ((one.model.name, one.current, one.model.version) for one in standings)
        return cls(alias, tuple(moves))

    @property
    def note(self) -> str:
        """The note, ASCII JSON; of many models it says no more than that there are."""
        text = json.dumps([self.alias, *self.moves], separators=(",", ":"))
        return text if len(text) <= LONGEST_NOTE else json.dumps([self.alias])

    @classmethod
    def read(cls, note: str) -> Pending | None:
        """Read a note; None where it is none that could be completed."""
        try:
            alias, *moves = parse_json(f'{{"note": {note}}}'.encode())["note"]
            read = tuple(
                (str(name), version_number(before, "before"), version_number(after, "after"))
                for name, before, after in moves
            )
        except (ValueError, TypeError, KeyError, ModelError):  # whoever edits the release wrote it
            return None
        return cls(str(alias), read) if read else None


def complete_pending(release: ReleaseFacts, tracking_uri: str, *, by: str = "") -> str:
    """Complete a promotion that was cut short, where its release is what serves.

    Args:
        release: Any release of that name.
        tracking_uri: The tracking server, which is asked only where there is something to complete;
            "" means the environment's.
        by: Who does it.

    Returns:
        What was done, or why nothing was, in a sentence; empty where there was nothing to do.

    Raises:
        PromotionError: The registry does not do as asked.
        DeploymentError: The note is not believed.
    """
    under_way = promotion_under_way(release)
    if under_way is None or not under_way.serves:
        return ""
    pending = Pending.read(under_way.note)
    told = ""
    if pending is not None:
        if problem := _unserved(pending, under_way.models, release):
            return problem
        tracking = choose_tracking(tracking_uri)
        with speaking_to(tracking, error=PromotionError):
            client = tracking_client(tracking, error=PromotionError)
            act = Act.now(by=by, why=_CUT_SHORT, image=release.image, release=release.title)
            done = [_completed(client, pending.alias, move, act) for move in pending.moves]
        told = " ".join(text for text in done if text)
    end_promotion(release, under_way.note)
    return told


def _unserved(pending: Pending, served: Collection[tuple[str, str]], release: ReleaseFacts) -> str:
    """Say what of a note the good release does not serve, and so was never checked; "" for all."""
    for name, _, version in pending.moves:
        if (name, version) not in served:
            return (
                f"A promotion of version {version} of {name!r} is noted on the release "
                f"{release.namespace}/{release.name}, which is not known to serve it: no alias was "
                "moved. Find out who wrote the annotation kfp-bento/promotion, and remove it."
            )
    return ""


def _completed(client: Any, alias: str, move: tuple[str, str, str], act: Act) -> str:
    name, before, after = move
    current = alias_holder(client, name, alias)
    if current == after:
        return ""
    if current != before:
        return (
            f"The alias {alias!r} of {name!r} was to move to version {after}, but somebody else "
            f"moved it to {f'version {current}' if current else 'none'} since: it stays there."
        )
    if before:
        client.set_registered_model_tag(name, last_known_good_tag(alias), before)
    client.set_registered_model_alias(name, alias, after)
    write_entry(client, name, after, alias, (), before, act)
    return (
        f"A promotion that was cut short is completed: {alias!r} of {name!r} is on version {after}."
    )
