"""What pydantic says of a value in our words: the field with its path, the reason, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ValidationError, WrapValidator
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

from kfp_bento.runtime.errors import InvalidInput

LARGEST_INT32 = 2**31 - 1


class Refused(ValueError):
    """What a validator says of a value, without the name of the field, which only pydantic knows.

    Args:
        reason: What is wrong, as it stands behind the field's name.
        hint: The way out.
        at: The place below the field, such as `[0].name`.
    """

    def __init__(self, reason: str, hint: str, at: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint, self.at = reason, hint, at


class Problem(NamedTuple):
    """Why a value was refused: a sentence that begins with the field, and the way out."""

    sentence: str
    hint: str


def problems(kind: Any, error: ValidationError, field: str = "") -> Iterator[Problem]:
    """Give what pydantic says of a value of a type in our words.

    Args:
        kind: The type.
        error: What it raised.
        field: Name of the value; "" where the fields of a model have names of their own.
    """
    for detail in error.errors(include_url=False):
        path, owner = _place(kind, detail["loc"])
        reason, hint = _reason(detail, owner)
        yield Problem(f"{field}{path}{reason}".removeprefix("" if field else "."), hint)


def valid(problem: Callable[[str], str], hint: str) -> AfterValidator:
    """Give the check of a text by what is wrong with it; "" where nothing is."""

    def check(value: str) -> str:
        if told := problem(value):
            raise Refused(f": {value!r} {told}", hint)
        return value

    return AfterValidator(check)


def optional(problem: Callable[[str], str]) -> Callable[[str], str]:
    """Give what is wrong with a text that may be empty."""
    return lambda value: problem(value) if value else ""


def between(lowest: int, highest: int = LARGEST_INT32, why: str = "") -> AfterValidator:
    """Give the check of a number's bounds, with the reason why a number below is none."""

    def check(value: int) -> int:
        if value < lowest and why:
            raise Refused(f": {value} is below {lowest}; {why}", f"Set it to {lowest} or more.")
        if not lowest <= value <= highest:
            raise Refused(
                f": {value} is not between {lowest} and {highest}", "Choose a number in between."
            )
        return value

    return AfterValidator(check)


def otherwise(reason: str, hint: str) -> WrapValidator:
    """Give one sentence instead of all that a type says of a value that is none of it."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise Refused(f": {reason}", hint) from None

    return WrapValidator(check)


def quoted(value: Any) -> Any:
    """Refuse what looks like text and is none, such as a version."""
    if isinstance(value, str):
        return value
    raise Refused(f": {value!r} is no string", "Quote the value.")


def plain(given: Any) -> Any:
    """Give nested parameters as JSON has them: KFP makes floats of all numbers inside."""
    if isinstance(given, Mapping):
        return {key: plain(value) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [plain(item) for item in given]
    if isinstance(given, float) and given.is_integer():
        return int(given)
    return given


def unknown_option(name: object, whose: str, known: Iterable[str]) -> InvalidInput:
    """Give what to raise for an option that nobody has, with the nearest one that there is.

    Args:
        name: The option.
        whose: What has the known ones, such as "the target workload".
        known: Their names.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return InvalidInput(
        f"{name}: {whose} has no such option.", hint=f"{meant}It has {', '.join(names)}."
    )


_TYPES: Mapping[str, tuple[str, str]] = {
    "string_type": ("is no text", "Quote it."),
    "int_type": ("is no integer", "Write a number such as 2."),
    "int_from_float": ("is no integer", "Write a number such as 2."),
    "bool_type": ("is neither true nor false", "Write true or false, without quotes."),
    "list_type": ("is no list", "Write [...]."),
    "dict_type": ("is no object", "Write {'key': value}."),
    "model_type": ("is no object", "Write {'key': value}."),
    "model_attributes_type": ("is no object", "Write {'key': value}."),
}


def _reason(detail: ErrorDetails, owner: Any) -> tuple[str, str]:
    """Give what is wrong with a field, as it stands behind its name, and the way out."""
    kind, value = detail["type"], detail["input"]
    if kind == "value_error" and isinstance(told := detail["ctx"]["error"], Refused):
        return f"{told.at}{told.reason}", told.hint
    closed = is_typeddict(owner)
    if kind == "missing":
        return " is missing" if closed else ": it is missing", f"Set it. Known: {_known(owner)}."
    if kind == "extra_forbidden":
        # What Kubernetes itself has is written as every version of it, and of a CRD, has it.
        reason = " is no field that every version has" if closed else ": no such setting"
        return reason, f"Known: {_known(owner)}.{getattr(owner, 'beyond', '')}"
    if kind == "literal_error":
        # The empty word is the default, and no word to write.
        expected = str(detail["ctx"]["expected"]).removeprefix("'', ")
        return f": {value!r} is unknown", f"One of {expected}."
    reason, hint = _TYPES.get(kind, (f"is refused: {detail['msg']}", "Correct it."))
    return f": {value!r} {reason}", hint if value is not None else "Leave the key out."


def _place(kind: Any, steps: Sequence[int | str]) -> tuple[str, Any]:
    """Give the path of an error as users write it, and the object that its last field is in."""
    path, owner = "", kind
    for step in steps:
        owner = _bare(kind)
        if isinstance(step, int):
            path, kind = f"{path}[{step}]", get_args(owner)[0]
        elif get_origin(owner) is dict:
            path, kind = f"{path}[{step}]", get_args(owner)[1]
        elif step != "[key]":
            path, kind = f"{path}.{step}", _fields(owner).get(step)
    return path, owner


def _bare(kind: Any) -> Any:
    """Give a type without its validators, and without None."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    return kind


def _fields(owner: Any) -> Mapping[str, Any]:
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        return {one.alias or name: one.annotation for name, one in owner.model_fields.items()}
    return get_type_hints(owner) if is_typeddict(owner) else {}


def _known(owner: Any) -> str:
    return ", ".join(sorted(_fields(owner)))
