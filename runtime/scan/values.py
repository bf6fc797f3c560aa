"""What is known of the objects that a pickle would make, without making them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.scan.arguments import Unknown

_MOST_KEPT = 64
_CLASS = re.compile(r"_?[A-Z]\w*")
ARRAY_WRAPPERS = frozenset(
    {
        "joblib.numpy_pickle.NumpyArrayWrapper",
        "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper",
    }
)
"""Stand where joblib wrote an array into the stream, behind the opcode that builds them."""
_ITEM = re.compile(r"[<>|=]?([?biufcmMSUV])(\d{0,9})")


def words(text: str) -> frozenset[str]:
    """Give the words of a text."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Name:
    """A function, class or anything else that the loader imports.

    Attributes:
        module: The module, as the loader of Python 3 looks for it.
        name: The name in it, with dots where it goes deeper.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def is_class(self) -> bool:
        """Whether it is written as classes are."""
        return bool(_CLASS.fullmatch(self.name))


@dataclass(eq=False)
class Container:
    """A list, dict or set; only what stands under texts is kept, and not without end."""

    kind: str
    items: dict[str, Any] = field(default_factory=dict)
    partial: bool = False

    def put(self, key: Any, value: Any) -> None:
        """Put a value under a key."""
        if isinstance(key, str) and (key in self.items or len(self.items) < _MOST_KEPT):
            self.items[key] = value
        else:
            self.partial = True


@dataclass(eq=False)
class Made:
    """What a call made.

    Attributes:
        by: What was called, if that is known.
        arguments: With what.
        state: What its state was set to afterwards.
    """

    by: Name | None
    arguments: Any = ()
    state: Any = None

    @property
    def kind(self) -> str:
        """What was called, as a text."""
        return str(self.by)


def may_be_text(value: Any) -> bool:
    """Tell whether a value that is not known could be a text, exactly of that type."""
    if isinstance(value, Unknown):
        return True
    return isinstance(value, Made) and not (value.by and value.by.is_class)


def state_items(state: Any) -> dict[str, Any] | None:
    """Give the attributes that a state sets; None where not all are known."""
    if isinstance(state, Container) and state.kind == "dict" and not state.partial:
        return state.items
    return None


def array_bytes(wrapper: Made) -> tuple[int, bool] | None:
    """Give the size of an array that joblib wrote, and whether bytes for its place come first.

    Returns:
        -1 for the size of an array of objects, which is a pickle of its own; None where the size
        is not known.
    """
    attributes = state_items(wrapper.state)
    if attributes is None:
        return None
    shape, dtype = attributes.get("shape"), attributes.get("dtype")
    alignment = attributes.get("numpy_array_alignment_bytes")
    if not isinstance(shape, tuple) or not all(type(one) is int and one >= 0 for one in shape):
        return None
    if not (alignment is None or type(alignment) is int):
        return None
    size = _item_bytes(dtype)
    if size is None or size < 0:
        return None if size is None else (-1, False)
    for one in shape:
        size *= one
    return (size, alignment is not None) if size < 1 << 62 else None


def _item_bytes(dtype: Any) -> int | None:
    """Give the size of one item; -1 for objects, None if it is not known."""
    if not isinstance(dtype, Made) or str(dtype.by) != "numpy.dtype":
        return None
    arguments, state = dtype.arguments, dtype.state
    if not isinstance(arguments, tuple) or not arguments or not isinstance(arguments[0], str):
        return None
    if arguments[0].lstrip("<>|=") in ("O", "O8", "O4"):
        return -1
    found = _ITEM.fullmatch(arguments[0])
    if not found:
        return None
    kind, digits = found.groups()
    size = int(digits or (1 if kind in "?SUV" else 0)) * (4 if kind == "U" else 1)
    if isinstance(state, tuple) and len(state) >= 8:
        if type(state[7]) is not int or type(state[5]) is not int:
            return None
        if state[7] & 1:
            return -1
        if kind in "SUV" and state[5] >= 0:
            size = state[5]
    elif state is not None:
        return None
    return size if size > 0 or kind in "SUV" else None
