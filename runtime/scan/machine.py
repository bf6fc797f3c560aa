"""What an unpickler holds while it reads, and what becomes known of the pickle on the way."""

from __future__ import annotations

import _compat_pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.scan.arguments import ANYTHING, Blob, Unknown, whole_line
from kfp_bento.runtime.scan.limits import LimitReached
from kfp_bento.runtime.scan.source import Reader
from kfp_bento.runtime.scan.values import (
    ARRAY_WRAPPERS,
    Container,
    Made,
    Name,
    array_bytes,
    may_be_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from kfp_bento.runtime.scan.limits import Budget
    from kfp_bento.runtime.scan.source import Source


OVER_FRAME = "it reaches over the end of a frame, where readers of pickles differ"


@dataclass
class Walked:
    """What one pickle would do.

    Attributes:
        start: Where it begins.
        names: What it imports, and whether it calls it.
        asked: Module and name of each import as they are written.
        puzzles: What it does that cannot be followed, in words.
        blobs: Bytes in it, where and how many.
        texts: Which of the texts that matter it holds.
        arrays: Whether joblib would read an array out of the stream.
        before: Names and puzzles before the first such array.
        acts: Whether it calls anything.
        value: Its own value, where that is a plain one.
        end: The place behind its last opcode.
        whole: Whether it ends as a pickle does.
        problem: Why not.
    """

    start: int
    names: dict[Name, bool] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)
    puzzles: dict[str, None] = field(default_factory=dict)
    blobs: list[Blob] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    arrays: bool = False
    before: tuple[AbstractSet[Name], AbstractSet[str]] = (frozenset(), frozenset())
    acts: bool = False
    value: Any = None
    end: int = 0
    whole: bool = False
    problem: str = ""


class End(Exception):
    """The unpickler ends here, well or not."""


class Machine:
    """The state of an unpickler, with what is known of values instead of values.

    Args:
        source: What holds the pickle.
        start: Where it begins.
        budget: What is left of the scan's limits.
        inner: Walks through another pickle in the same source, where joblib would read one; None
            to read as pickle does.
    """

    def __init__(
        self,
        source: Source,
        start: int,
        budget: Budget,
        inner: Callable[[int], Walked] | None,
    ) -> None:
        self.source, self.budget, self.inner = source, budget, inner
        self.reader = Reader(source, start)
        self.found = Walked(start)
        self.protocol = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # The end of joblib's frame, and where its file would be read on behind it.
        self.frame_end = self.behind_frame = -1
        self.began = start
        self.wrapper_named = False

    def look_at_limits(self) -> None:
        """Raise LimitReached when there is too much, or the time is over."""
        self.budget.look_at_clock()
        most = self.budget.limits.stack
        if max(len(self.stack), len(self.memo), len(self.below)) > most or (
            len(self.below) > 1 and sum(map(len, self.below)) > most
        ):
            raise LimitReached(f"a pickle holds more than {most} values at a time")

    # What takes values from the stack.

    def pop(self) -> Any:
        """Take the top value; behind a mark there is none."""
        if not self.stack:
            raise ValueError("its stack is empty")
        return self.stack.pop()

    def top(self) -> Any:
        """Look at the top value."""
        if not self.stack:
            raise ValueError("its stack is empty")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Take all values down to the last mark."""
        if not self.below:
            raise ValueError("it has no mark")
        items, self.stack = self.stack, self.below.pop()
        return items

    def use_memo(self, code: int, key: int) -> None:
        """Put the top value into the memo, or push one of it."""
        if code in b"pqr":
            if key < 0:
                raise ValueError("a key of its memo is negative")
            self.memo[key] = self.top()
        elif key in self.memo:
            self.stack.append(self.memo[key])
        else:
            raise ValueError("it reads what its memo does not hold")

    # What imports.

    def import_name(self, module: str, name: str) -> Name:
        """Note an import."""
        self.found.asked.add((module, name))
        if self.protocol < 3:
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            elif module in _compat_pickle.IMPORT_MAPPING:
                module = _compat_pickle.IMPORT_MAPPING[module]
        found = Name(module, name)
        self.found.names.setdefault(found, False)
        self.wrapper_named |= str(found) in ARRAY_WRAPPERS
        return found

    def hand_on(self, items: Iterable[Any]) -> None:
        """Look at what goes into a container or a call.

        joblib's place holder for arrays belongs to neither: whatever became one of them unseen
        would make joblib read on elsewhere.
        """
        if self.wrapper_named and any(
            type(one) is Name and str(one) in ARRAY_WRAPPERS for one in items
        ):
            self.puzzle("it hides where joblib would read an array out of it")

    def read_name(self) -> Name:
        """Read module and name from two lines."""
        module = whole_line(self.reader).decode("utf-8")
        return self.import_name(module, whole_line(self.reader).decode("utf-8"))

    def stack_name(self) -> None:
        """Import what the two top texts name."""
        name, module = self.pop(), self.pop()
        if isinstance(name, str) and isinstance(module, str):
            self.stack.append(self.import_name(module, name))
        elif _text_or_unknown(name) and _text_or_unknown(module):
            known = [one for one in (module, name) if isinstance(one, str)]
            what = f" ({known[0]!r})" if known else ""
            self.puzzle(f"it imports something{what} whose name it makes while it is loaded")
            self.stack.append(ANYTHING)
        else:
            raise ValueError("it imports something whose name is no text")

    def puzzle(self, words: str) -> None:
        """Note what cannot be followed."""
        if len(self.found.puzzles) < 100:
            self.found.puzzles[words] = None

    # What calls.

    def call(self, function: Any, arguments: Any) -> None:
        """Note a call, and push what is known of its result."""
        self.found.acts = True
        by: Name | None = None
        if isinstance(function, Name):
            by = function
            self.found.names[function] = True
            if str(function) == "_codecs.encode":
                self._check_encoding(arguments)
        elif isinstance(function, Made) and function.by and _carries_code(function.by):
            by = function.by
        elif isinstance(function, Made | Unknown):
            self.puzzle("it calls something that it made while it is loaded")
        else:
            raise ValueError("it calls what cannot be called")
        self.stack.append(Made(by, arguments))

    def _check_encoding(self, arguments: Any) -> None:
        """Take what pickle writes for bytes; other codecs make texts that one cannot know."""
        plain = isinstance(arguments, tuple) and len(arguments) == 2
        if not (plain and arguments[1] in ("latin1", "latin-1", "iso-8859-1")):
            self.puzzle("it turns texts into others by a codec (_codecs.encode)")

    def build(self) -> None:
        """Set the state of an object."""
        state, target = self.pop(), self.top()
        if isinstance(target, Name):
            self.found.acts = True
            self.puzzle(f"it changes {target} itself, for the whole process")
        if not isinstance(target, Made):
            return
        target.state = state
        if target.kind in ARRAY_WRAPPERS:
            if not self.found.arrays:
                self.found.arrays = True
                self.found.before = (set(self.found.names), set(self.found.puzzles))
            if self.inner:
                self._pass_array(target, self.inner)

    def _pass_array(self, wrapper: Made, walk: Callable[[int], Walked]) -> None:
        """Pass over the array that stands behind joblib's place holder for it."""
        size = array_bytes(wrapper)
        if size is None:
            self.puzzle("it says in no known way how large an array in it is")
            raise End("the size of an array in it is not known")
        in_frame = self.reader.position < self.frame_end
        place = self.behind_frame if in_frame else self.reader.position
        if size[0] < 0:
            place = self._pass_pickle(walk(place))
        else:
            padding = 0
            if size[1]:
                padding = 1 + Reader(self.source, place).read(1)[0]
            place += padding + size[0]
            if place > self.source.size:
                raise EOFError("it ends in the middle of an array")
        if in_frame:
            self.behind_frame = place
        else:
            self.frame_end = -1
            self.reader.go(place)
        self.stack[-1] = Made(Name("numpy", "ndarray"))

    def _pass_pickle(self, inner: Walked) -> int:
        for name, called in inner.names.items():
            self.found.names[name] = called or self.found.names.get(name, False)
        self.found.asked |= inner.asked
        self.found.texts |= inner.texts
        self.found.puzzles.update(inner.puzzles)
        self.found.blobs += inner.blobs
        if not inner.whole:
            raise End(inner.problem)
        return inner.end

    def enter_frame(self, size: int) -> None:
        """Note a frame."""
        end = self.reader.position + size
        if not self.inner:
            if self.reader.position < self.frame_end < end:
                self.puzzle(OVER_FRAME)
            self.frame_end = max(self.frame_end, end)
        else:
            if self.reader.position < self.frame_end:
                raise End("a frame begins before the last one ends")
            self.frame_end = self.behind_frame = end

    def leave_frame(self) -> None:
        """Go on behind a frame, and what joblib read there meanwhile.

        Python's unpicklers differ where an opcode reaches over the end of its frame: the one in C
        drops what is left of the frame, if its file has no `peek`, and the other one stops.
        """
        if self.reader.position > self.frame_end:
            self.puzzle(OVER_FRAME)
        if not self.inner:
            self.frame_end = -1
            return
        if self.reader.position > self.frame_end:
            raise End(OVER_FRAME)
        self.reader.go(self.behind_frame)
        self.frame_end = -1

    def fail_over_frame(self, *, ended: bool) -> None:
        """Note an opcode that cannot be read and that a reader which drops bytes might read."""
        if self.began < self.frame_end <= self.source.size and (
            ended or self.reader.position > self.frame_end
        ):
            self.puzzle(OVER_FRAME)

    def container(self, kind: str, items: list[Any]) -> None:
        """Push a new list, set or dict."""
        made = Container(kind)
        self.hand_on(items)
        if kind == "dict":
            put_pairs(made, items)
        elif items:
            made.partial = True
        self.stack.append(made)

    def end(self) -> None:
        """End well."""
        self.found.value = self.pop()
        self.found.whole = True
        raise End("")


def put_pairs(target: Any, items: list[Any]) -> None:
    """Put keys and values that stand side by side into a dict."""
    if isinstance(target, Container):
        for key, value in zip(items[::2], items[1::2], strict=False):
            target.put(key, value)


def _text_or_unknown(value: Any) -> bool:
    return isinstance(value, str) or may_be_text(value)


def _carries_code(name: Name) -> bool:
    """Tell whether what a name makes is called in turn: functions that travel as code."""
    return name.module.partition(".")[0] in ("cloudpickle", "dill")
