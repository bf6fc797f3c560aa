"""Whether all JSON that one schema takes is taken by another, and where it is not.

Of requests the later schema has to take what the earlier one took; of answers the earlier one has
to take what the later gives. Schemas may contain themselves: a pair that is looked at already is
taken to fit, as in any comparison of recursive types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.checks.contract_reduction import SCHEMAS, NoContract

MOST_STEPS = 200_000
_DEEPEST = 60
_MOST_WAYS = 64
_MOST_PAIRS = 512
_SHOWN = 12
_SCALARS = ("boolean", "integer", "number", "string")
_BOUNDS = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems"), 1),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems"), -1),
}
_EXACT = ("pattern", "multipleOf", "contentMediaType", "contentEncoding", "dtype", "dim")
_WIDER_FORMATS = {("float", "double"), ("int32", "int64")}
_ANY, _NULL = "any", "null"


@dataclass(frozen=True)
class Change:
    """One place where an API differs from an earlier one.

    Attributes:
        where: The route, then the way to the field.
        what: What happened, as a sentence without its subject.
        breaking: Whether a client of the earlier one may break.
        was: What it was, for people; None where that says nothing.
        now: What it is.
    """

    where: str
    what: str
    breaking: bool
    was: Any = None
    now: Any = None


@dataclass(frozen=True)
class Way:
    """One of the ways in which JSON can fit a schema: of one type, no choices left.

    Attributes:
        type: JSON's type, "any", or another word that a description has for one.
        values: The only values, as JSON; None for all of the type.
        properties: The schemas of named fields.
        required: The fields that have to be there.
        rest: The schema of other fields: True for anything, False for none.
        items: The schema of items.
        facts: What else there is: format, bounds.
    """

    type: str = _ANY
    values: frozenset[str] | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    rest: Any = True
    items: Any = True
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The type for people."""
        form = self.facts.get("format")
        return f"{self.type} ({form})" if form else self.type


@dataclass(frozen=True)
class Side:
    """One of the two documents: its schemas by name."""

    schemas: Mapping[str, Any]

    def resolved(self, reference: Any) -> Any:
        """Give the schema that a reference names; what is not there takes anything."""
        return self.schemas.get(str(reference).removeprefix(SCHEMAS), {})


class Comparison:
    """Compares schemas of two documents, within a limit to all work together."""

    def __init__(self, earlier: Side, later: Side) -> None:
        self._sides = (earlier, later)
        self._steps = 0
        self._kept: list[Any] = []  # what is known by its id must not go away
        self._known: dict[tuple[int, int, bool], Change | None] = {}
        self._ways: dict[tuple[int, int], tuple[Way, ...]] = {}

    def changes(self, was: Any, now: Any, where: str, *, answer: bool) -> list[Change]:
        """Give what changed between two schemas, of a request or an answer.

        Raises:
            NoContract: There is too much to compare.
        """
        self._step()
        if where.count(".") + where.count("[") > _DEEPEST:
            raise NoContract("its schemas are nested deeper than can be compared")
        pair = (id(was), id(now), answer)
        if pair in self._known:
            known = self._known[pair]
            return [] if known is None else [replace(known, where=where)]
        self._known[pair] = None
        found = list(self._compared(was, now, where, answer))
        first = next((one for one in found if one.breaking), None)
        if first is not None:
            what = first.what if first.where == where else f"changed: {first.where} {first.what}"
            self._known[pair] = replace(first, what=what)
        return found

    def _compared(self, was: Any, now: Any, where: str, answer: bool) -> Iterator[Change]:
        before, after = self._ways_of(was, 0), self._ways_of(now, 1)
        # What has to be taken, and what takes it.
        given, taking = (after, before) if answer else (before, after)
        for way in given:
            yield from self._covered(way, given, taking, where, answer)
        if not answer:
            for way in after:
                if not any(_takes(one, way) for one in before):
                    yield Change(where, f"may be {_a(way.word)} now", False)

    def _covered(
        self, way: Way, given: Sequence[Way], taking: Sequence[Way], where: str, answer: bool
    ) -> Iterator[Change]:
        """Say why none of some ways takes all that another one does; nothing if one does."""
        candidates = [one for one in taking if _takes(one, way)]
        if not candidates:
            yield _retyped(way, given, taking, where, answer)
        elif len(candidates) == 1:
            yield from self._way(way, candidates[0], where, answer)
        else:
            tried = [self._tried(way, one, where, answer) for one in candidates]
            fitting = [one for one in tried if not any(change.breaking for change in one)]
            yield from min(fitting or tried, key=len)

    def _tried(self, way: Way, other: Way, where: str, answer: bool) -> list[Change]:
        """Compare as if: what a trial takes for granted must not be believed after it."""
        known = len(self._known)
        found = list(self._way(way, other, where, answer))
        for pair in list(self._known)[known:]:
            del self._known[pair]
        return found

    def _way(self, given: Way, taking: Way, where: str, answer: bool) -> Iterator[Change]:
        was, now = (taking, given) if answer else (given, taking)
        yield from _values(was, now, where, answer)
        yield from _facts(given, taking, where, answer)
        if was.type != now.type:
            return
        if was.type == "object":
            yield from self._fields(was, now, where, answer)
        elif was.type == "array":
            yield from self.changes(was.items, now.items, f"{where}[]", answer=answer)

    def _fields(self, was: Way, now: Way, where: str, answer: bool) -> Iterator[Change]:
        for name in sorted(was.properties.keys() | now.properties.keys()):
            at = f"{where}.{name}"
            if name not in now.properties:
                yield Change(at, "is gone", True, was=self._word(was.properties[name], 0))
            elif name not in was.properties:
                needed = name in now.required and not answer
                what = "is new, and required" if needed else "is new"
                yield Change(at, what, needed, now=self._word(now.properties[name], 1))
            else:
                yield from self.changes(
                    was.properties[name], now.properties[name], at, answer=answer
                )
        for name in sorted(now.required - was.required):
            old = name in was.properties
            if not answer and (old or name not in now.properties):
                what = "is required now" if old else "is new, and required"
                yield Change(f"{where}.{name}", what, True)
        if answer:
            left = (was.required - now.required) & now.properties.keys()
            for name in sorted(left):
                yield Change(f"{where}.{name}", "may be left out now", True)
        yield from self._rest(was, now, where, answer)

    def _rest(self, was: Way, now: Way, where: str, answer: bool) -> Iterator[Change]:
        """Compare what is said of fields without a name."""
        if was.rest is False or (now.rest is False and answer):
            return  # nothing was taken, or nothing is given
        if now.rest is False:
            yield Change(f"{where}.*", "is refused now: no other fields may be sent", True)
        elif answer and not isinstance(was.rest, Mapping):
            return
        else:
            yield from self.changes(was.rest, now.rest, f"{where}.*", answer=answer)

    def _word(self, schema: Any, side: int) -> str:
        return " or ".join(sorted({way.word for way in self._ways_of(schema, side)})) or "nothing"

    def _ways_of(self, schema: Any, side: int) -> tuple[Way, ...]:
        key = (id(schema), side)
        if key not in self._ways:
            self._kept.append(schema)
            found = _united(self._expanded(schema, self._sides[side], 0))
            if len(found) > _MOST_WAYS:
                raise NoContract("a schema has more choices than can be compared")
            self._ways[key] = tuple(found)
        return self._ways[key]

    def _expanded(self, schema: Any, side: Side, depth: int) -> list[Way]:
        """Give the ways of a schema; references that lead to themselves alone take anything."""
        self._step()
        if schema is False:
            return []
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return [Way()]
        found = _own_ways(schema)
        if "$ref" in schema:
            found = self._both(
                found, self._expanded(side.resolved(schema["$ref"]), side, depth + 1)
            )
        for choice in ("anyOf", "oneOf"):
            if schema.get(choice):
                each = [self._expanded(one, side, depth + 1) for one in schema[choice]]
                found = self._both(found, [way for ways in each for way in ways])
        for one in schema.get("allOf", ()):
            found = self._both(found, self._expanded(one, side, depth + 1))
        if schema.get("nullable") is True and not any(way.type in (_NULL, _ANY) for way in found):
            found = [*found, Way(_NULL)]
        return found

    def _both(self, some: Sequence[Way], others: Sequence[Way]) -> list[Way]:
        """Give the ways of what fits two schemas."""
        if len(some) * len(others) > _MOST_PAIRS:
            raise NoContract("a schema has more choices than can be compared")
        found = []
        for one in some:
            for other in others:
                self._step()
                both = _merged(one, other)
                found += [both] if both is not None else []
        return _united(found)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise NoContract("there is more to compare than a real API has")


def _own_ways(schema: Mapping[str, Any]) -> list[Way]:
    """Give the ways that a schema has without its references and choices."""
    values = schema.get("enum")
    if "const" in schema:
        values = [schema["const"]]
    named = schema.get("type")
    types = [str(one) for one in named] if isinstance(named, list) else [named] if named else []
    if not types and isinstance(values, list):
        types = sorted({_type_of(value) for value in values})
    if not types:
        types = ["object"] if "properties" in schema else ["array"] if "items" in schema else [_ANY]
    facts = {key: schema[key] for key in ("format", *_EXACT, *_BOUNDS) if key in schema}
    ways = []
    for kind in types:
        fitting = None
        if isinstance(values, list):
            fitting = frozenset(
                _text(one) for one in values if _type_of(one) in _types_within(kind)
            )
            if not fitting:
                continue
        properties = schema.get("properties", {}) if kind == "object" else {}
        ways.append(
            Way(
                str(kind),
                fitting,
                properties if isinstance(properties, Mapping) else {},
                frozenset(_names(schema.get("required"))) if kind == "object" else frozenset(),
                schema.get("additionalProperties", True) if kind == "object" else True,
                schema.get("items", True) if kind == "array" else True,
                {} if kind == _NULL else facts,
            )
        )
    return ways


def _merged(one: Way, other: Way) -> Way | None:
    """Give the way of what fits both; None where nothing does."""
    kind = _narrower(one.type, other.type)
    if kind is None:
        return None
    values = one.values if other.values is None else other.values
    if one.values is not None and other.values is not None:
        values = one.values & other.values
        if not values:
            return None
    return Way(
        kind,
        values,
        {
            name: _both_of(one.properties.get(name), other.properties.get(name))
            for name in {**one.properties, **other.properties}
        },
        one.required | other.required,
        False if False in (one.rest, other.rest) else _both_of(one.rest, other.rest),
        _both_of(one.items, other.items),
        {**one.facts, **other.facts},
    )


def _both_of(one: Any, other: Any) -> Any:
    if one is None or one is True or one == {}:
        return True if other is None else other
    if other is None or other is True or other == {} or one == other:
        return one
    return {"allOf": [one, other]}


def _united(ways: Sequence[Way]) -> list[Way]:
    """Put ways together that differ in their values only, and leave out what another one is."""
    found: list[Way] = []
    values: list[frozenset[str] | None] = []
    for way in ways:
        bare = way if way.values is None else replace(way, values=None)
        place = next((place for place, one in enumerate(found) if one == bare), None)
        if place is None:
            found.append(bare)
            values.append(way.values)
            continue
        known = values[place]
        values[place] = None if known is None or way.values is None else known | way.values
    return [
        one if some is None else replace(one, values=some)
        for one, some in zip(found, values, strict=True)
    ]


def _narrower(one: str, other: str) -> str | None:
    if one == other or other == _ANY:
        return one
    if one == _ANY:
        return other
    return "integer" if {one, other} == {"integer", "number"} else None


def _types_within(kind: Any) -> tuple[str, ...]:
    if kind == "number":
        return ("number", "integer")
    return (*_SCALARS, _NULL, "object", "array") if kind == _ANY else (str(kind),)


def _takes(taking: Way, way: Way) -> bool:
    """Say whether a way takes the type of another one."""
    kinds = (taking.type, way.type)
    return taking.type in (way.type, _ANY) or kinds == ("number", "integer")


def _retyped(
    way: Way, given: Sequence[Way], taking: Sequence[Way], where: str, answer: bool
) -> Change:
    """Say that a type is not taken, in words for one of several or for the only one."""
    others, several = " or ".join(sorted({one.word for one in taking})) or "nothing", len(given) > 1
    if answer:
        what = f"{'may be' if several else 'is'} {_a(way.word)} now, not {others}"
        return Change(where, what, True, others, way.word)
    what = f"may not be {_a(way.word)} any more" if several else f"was {_a(way.word)}, is {others}"
    return Change(where, what, True, way.word, others)


def _values(was: Way, now: Way, where: str, answer: bool) -> Iterator[Change]:
    if now.values == was.values:
        return
    if now.values is None:
        yield Change(where, "may be any value now", False)
        return
    if was.values is None:
        yield Change(where, "may have certain values only", not answer, now=_shown(now.values))
        return
    gone, new = was.values - now.values, now.values - was.values
    if gone:
        what = f"does not take {', '.join(_shown(gone))} any more"
        if answer:
            what = f"is never {', '.join(_shown(gone))} any more"
        yield Change(where, what, not answer, _shown(was.values), _shown(now.values))
    if new:
        yield Change(where, f"may be {', '.join(_shown(new))} too", False)


def _facts(given: Way, taking: Way, where: str, answer: bool) -> Iterator[Change]:
    """Say which format, pattern or bound does not take all that is given."""

    def change(name: str, mine: Any, wanted: Any) -> Change:
        was, now = (wanted, mine) if answer else (mine, wanted)
        shown = [("none" if one is None else json.dumps(one)) for one in (was, now)]
        return Change(where, f"{name} was {shown[0]}, is {shown[1]}", True, was, now)

    for name in ("format", *_EXACT):
        mine, wanted = given.facts.get(name), taking.facts.get(name)
        widened = name == "format" and (mine, wanted) in _WIDER_FORMATS
        if wanted is not None and mine != wanted and not widened:
            yield change(name, mine, wanted)
    if answer:
        return  # how many or how long is nothing that answers promise
    for name, direction in _BOUNDS.items():
        mine, wanted = given.facts.get(name), taking.facts.get(name)
        if wanted is not None and _is_tighter(mine, wanted, direction):
            yield change(name, mine, wanted)


def _is_tighter(mine: Any, wanted: Any, direction: int) -> bool:
    numbers = isinstance(mine, int | float) and isinstance(wanted, int | float)
    if not numbers or isinstance(mine, bool) or isinstance(wanted, bool):
        return bool(mine != wanted)  # `exclusiveMinimum: true` of OpenAPI 3.0
    return bool((wanted - mine) * direction > 0)


def _names(required: Any) -> Iterator[str]:
    yield from (str(one) for one in required) if isinstance(required, list) else ()


def _type_of(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    names = {float: "number", str: "string", list: "array"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "object")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shown(values: frozenset[str]) -> list[str]:
    ordered = sorted(values)
    return ordered[:_SHOWN] + (["…"] if len(ordered) > _SHOWN else [])


def _a(word: str) -> str:
    if word in (_NULL, _ANY):
        return {"any": "anything"}.get(word, word)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
