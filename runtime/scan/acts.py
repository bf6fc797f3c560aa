"""What each opcode does to the state of an unpickler (`Lib/pickletools.py` describes them)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.scan.arguments import ANYTHING, U1, U8
from kfp_bento.runtime.scan.machine import Machine, put_pairs
from kfp_bento.runtime.scan.values import Container, Name

if TYPE_CHECKING:
    from collections.abc import Callable

NEWEST_PROTOCOL = 5


def _set_items(state: Machine, items: list[Any]) -> None:
    state.hand_on(items)
    target = state.top()
    if isinstance(target, Name):
        state.puzzle(f"it changes {target} itself, for the whole process")
    put_pairs(target, items)


def _set_item(state: Machine) -> None:
    value, key = state.pop(), state.pop()
    _set_items(state, [key, value])


def _add(state: Machine, items: list[Any]) -> None:
    state.hand_on(items)
    target = state.top()
    if isinstance(target, Name):
        state.puzzle(f"it changes {target} itself, for the whole process")
    elif isinstance(target, Container) and items:
        target.partial = True


def _append(state: Machine) -> None:
    item = state.pop()
    _add(state, [item])


def _mark(state: Machine) -> None:
    state.below.append(state.stack)
    state.stack = []


def _pop(state: Machine) -> None:
    if state.stack:
        state.stack.pop()
    else:
        state.pop_mark()


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def act(state: Machine) -> None:
        items = tuple(state.pop() for _ in range(count))[::-1]
        state.hand_on(items)
        state.stack.append(items)

    return act


def _tuple(state: Machine) -> None:
    items = state.pop_mark()
    state.hand_on(items)
    state.stack.append(tuple(items))


def _memoize(state: Machine) -> None:
    state.memo[len(state.memo)] = state.top()


def _reduce(state: Machine) -> None:
    arguments, function = state.pop(), state.pop()
    state.call(function, arguments)


def _new_with_keywords(state: Machine) -> None:
    state.pop()
    _reduce(state)


def _object(state: Machine) -> None:
    items = state.pop_mark()
    if not items:
        raise ValueError("its stack is empty")
    state.hand_on(items[1:])
    state.call(items[0], tuple(items[1:]))


def _instance(state: Machine) -> None:
    name = state.read_name()
    items = tuple(state.pop_mark())
    state.hand_on(items)
    state.call(name, items)


def _extension(width: int) -> Callable[[Machine], None]:
    def act(state: Machine) -> None:
        number = int.from_bytes(state.reader.read(width), "little")
        state.puzzle(f"it imports extension {number} of a list that only its loader knows")
        state.stack.append(ANYTHING)

    return act


def _protocol(state: Machine) -> None:
    state.protocol = U1(state.reader)
    if state.protocol > NEWEST_PROTOCOL:
        raise ValueError(f"its protocol is {state.protocol}")


def _persistent(state: Machine) -> None:
    state.pop()
    state.stack.append(ANYTHING)


ACTS: dict[int, Callable[[Machine], None]] = {
    ord("("): _mark,
    ord("."): Machine.end,
    ord("0"): _pop,
    ord("1"): lambda state: (state.pop_mark(), None)[1],
    ord("2"): lambda state: state.stack.append(state.top()),
    0x94: _memoize,
    ord("c"): lambda state: state.stack.append(state.read_name()),
    0x93: Machine.stack_name,
    ord("i"): _instance,
    ord("o"): _object,
    ord("R"): _reduce,
    0x81: _reduce,
    0x92: _new_with_keywords,
    ord("b"): Machine.build,
    ord("Q"): _persistent,
    0x80: _protocol,
    0x82: _extension(1),
    0x83: _extension(2),
    0x84: _extension(4),
    0x95: lambda state: state.enter_frame(U8(state.reader)),
    0x98: lambda state: (state.top(), None)[1],
    ord(")"): lambda state: state.stack.append(()),
    ord("t"): _tuple,
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("]"): lambda state: state.container("list", []),
    ord("}"): lambda state: state.container("dict", []),
    0x8F: lambda state: state.container("set", []),
    ord("l"): lambda state: state.container("list", state.pop_mark()),
    ord("d"): lambda state: state.container("dict", state.pop_mark()),
    0x91: lambda state: state.container("set", state.pop_mark()),
    ord("a"): _append,
    ord("e"): lambda state: _add(state, state.pop_mark()),
    ord("s"): _set_item,
    ord("u"): lambda state: _set_items(state, state.pop_mark()),
    0x90: lambda state: _add(state, state.pop_mark()),
}
