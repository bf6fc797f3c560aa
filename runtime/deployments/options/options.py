"""Rendering options: typed, and built out of what components and commands hand over.

KFP knows no integers inside dictionaries and no null; what it makes of them is put right here,
field by field, or refused by the field's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self, get_type_hints

from kfp_bento.runtime.errors import InvalidInput

LARGEST_INT32 = 2**31 - 1

Object = Mapping[str, Any]
"""A parameter that is a JSON object."""

Listing = Sequence[Any]
"""A parameter that is a JSON list."""

ObjectOrListing = Mapping[str, Any] | Sequence[Any]
"""A parameter that may be written either way."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one target; each is checked against its type when it is given."""

    # Options of other targets that cannot be honoured here, each with the reason; no field.
    refused = MappingProxyType[str, str]({})

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for one in fields(self):
            value = _typed(one.name, getattr(self, one.name), hints[one.name])
            object.__setattr__(self, one.name, value)

    @classmethod
    def of(cls, target: str, parameters: Mapping[str, Any]) -> Self:
        """Give the options out of parameters; None stands for the default.

        Raises:
            InvalidInput: A name that the target does not have, or a value of the wrong type.
        """
        known = {one.name for one in fields(cls)}
        for name, value in parameters.items():
            if name in cls.refused and value not in (None, "", {}, []):
                raise InvalidInput(
                    f"{name}: {cls.refused[name]}.", hint="Leave it out, or use another target."
                )
            if name not in known:
                raise InvalidInput(
                    f"{name}: the target {target} has no such option.",
                    hint=f"It has {', '.join(sorted(known))}.",
                )
        return cls(**{name: value for name, value in parameters.items() if value is not None})

    def replaced(self, **changes: Any) -> Self:
        """Give the same options with some changed."""
        return replace(self, **changes)


def text(field: str, value: Any) -> str:
    """Give a string."""
    if isinstance(value, str):
        return value
    raise InvalidInput(f"{field}: {value!r} is no text.", hint="Quote it.")


def whole_number(field: str, value: Any, lowest: int = 0, highest: int = LARGEST_INT32) -> int:
    """Give an integer within bounds; 3.0, as KFP writes 3, is one and 3.5 is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{field}: {value!r} is no integer.", hint="Write a number such as 2.")
    if not lowest <= value <= highest:
        raise InvalidInput(
            f"{field}: {value} is not between {lowest} and {highest}.",
            hint="Choose a number in between.",
        )
    return value


def truth(field: str, value: Any) -> bool:
    """Give true or false; a text that merely reads like one is refused."""
    if isinstance(value, bool):
        return value
    raise InvalidInput(f"{field}: {value!r} is neither true nor false.", hint="Do not quote it.")


def mapping(field: str, value: Any, known: Sequence[str] = ()) -> Mapping[str, Any]:
    """Give an object whose keys are all known (any, where none are listed)."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{field}: {value!r} is no object.", hint="Write {'key': value}.")
    for key in value:
        if known and key not in known:
            raise InvalidInput(
                f"{field}.{key}: no such setting.", hint=f"Known: {', '.join(sorted(known))}."
            )
    return value


def listing(field: str, value: Any) -> list[Any]:
    """Give a list."""
    if isinstance(value, list | tuple):
        return list(value)
    raise InvalidInput(f"{field}: {value!r} is no list.", hint="Write [...].")


def choice(field: str, value: str, known: Sequence[str]) -> str:
    """Give one of a few words."""
    if value in known:
        return value
    raise InvalidInput(f"{field}: {value!r} is unknown.", hint=f"One of {', '.join(known)}.")


def without_empty(block: Mapping[str, Any]) -> dict[str, Any]:
    """Give an object without the keys that say nothing."""
    return {key: value for key, value in block.items() if value not in (None, "", {}, [])}


def _typed(field: str, value: Any, wanted: Any) -> Any:
    optional = wanted in (int | None, Object | None, Listing | None, ObjectOrListing | None)
    if value is None and optional:
        return None
    if wanted is str:
        return text(field, value)
    if wanted is bool:
        return truth(field, value)
    if wanted in (int, int | None):
        return whole_number(field, value)
    if wanted in (Object, Object | None):
        return mapping(field, value)
    if wanted in (Listing, Listing | None):
        return listing(field, value)
    return value if isinstance(value, Mapping) else listing(field, value)
