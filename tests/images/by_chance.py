"""Documents and bytes changed by chance, the same way in every run."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import KfpBentoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


MUTATIONS = 120  # of each kind of document

STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 1 << 70, 1.5, "", "\0", "sha256:", "../..", "linux/amd64"),
    *([], {}, [None], {"": None}, [[]], {"digest": 7}, "x" * 5000, ["A=B"], {"a": {"b": []}}),
]


def mutated(document: Any, chance: random.Random) -> Any:
    """The document with one to three places removed, doubled or replaced."""
    changed = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            return chance.choice(STRANGE)
        holder, key = chance.choice(places)
        action = chance.randrange(4)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif action == 2 and isinstance(holder, dict):
            holder[str(key).swapcase()] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(chance.choice(STRANGE))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            yield value, key
            yield from _places(value[key])


def garbled(content: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, cut off or repeated."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) or 1)
        action = chance.randrange(3)
        if action == 0:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif action == 1:
            del data[place : place + chance.randint(1, 20)]
        else:
            data[place:place] = data[place : place + chance.randint(1, 50)]
    return bytes(data)


def outcome(action: Callable[[], Any]) -> str:
    try:
        action()
    except KfpBentoError as error:
        assert error.message
        return "refused"
    return "taken"
