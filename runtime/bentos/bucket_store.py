"""Bentos kept as archives below a prefix of a bucket."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from kfp_bento.runtime.bentos.archive_formats import said_format
from kfp_bento.runtime.bentos.stored_bento import StoredBento, facts_of_object
from kfp_bento.runtime.concurrency import run_all
from kfp_bento.runtime.storage import NotThereError, Place, StoredObject

_AT_ONCE = 8
_NO_DATE = datetime.fromtimestamp(0, UTC)


class BucketStore:
    """The archives in a bucket; see `BentoStore`. None of them is fetched.

    Args:
        place: Where they are.
    """

    def __init__(self, place: Place) -> None:
        self.address = place.address
        self._place = place

    def list(self) -> list[StoredBento]:
        """Give the objects that were exported as bentos, or are called so."""
        found = [one for one in self._place.list() if one.name and said_format(one.name)]
        tasks = [functools.partial(self._described, one) for one in found]
        return [bento for bento in run_all(tasks, _AT_ONCE) if bento is not None]

    def delete(self, bento: StoredBento) -> None:
        """Remove an archive and its sum."""
        self._place.delete(bento.place)

    def _described(self, listed: StoredObject) -> StoredBento | None:
        """Describe an object; None for what is no bento, or gone since it was listed."""
        try:
            facts = facts_of_object(self._place.stat(listed.name).facts)
        except NotThereError:
            return None
        form = said_format(listed.name)
        if not facts.tag and form != "bento":
            return None
        since = listed.modified or _NO_DATE
        return StoredBento(listed.name, form, listed.size, since, facts)
