"""Options of targets as pydantic models: strict, closed and frozen, refused by the field's name.

KFP knows no null inside dictionaries; what it makes of it is put right here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import (
    Refused,
    between,
    otherwise,
    plain,
    problems,
    quoted,
    unknown_option,
)

Count = Annotated[int, between(0)]
Text = Annotated[str, BeforeValidator(quoted)]
IntOrText = Annotated[int | str, otherwise("it is neither a number nor text", "Quote it.")]


class Settings(BaseModel):
    """A closed object in an option; null stands for the default."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    # Settings that cannot be honoured, each with the reason and the way out.
    refused: ClassVar[Mapping[str, tuple[str, str]]] = {}
    # What an unknown setting may have meant.
    beyond: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name in cls.refused.keys() & given.keys():
            raise Refused(*cls.refused[name], at=f".{name}")
        return {name: value for name, value in given.items() if value is not None}

    def given(self) -> dict[str, Any]:
        """Give what the user has said, by the names that users write."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Options(Settings):
    """The options of one target."""

    def __init__(self, **parameters: Any) -> None:
        try:
            super().__init__(**plain(parameters))
        except ValidationError as error:
            for problem in problems(type(self), error):
                raise InvalidInput(f"{problem.sentence}.", hint=problem.hint) from None

    @classmethod
    def of(cls, target: str, parameters: Mapping[str, Any]) -> Self:
        """Give the options out of parameters; what is empty stands for the default.

        Raises:
            InvalidInput: A name that the target does not have, or a value that it cannot honour.
        """
        for name in parameters:
            if name not in cls.model_fields and name not in cls.refused:
                raise unknown_option(name, f"the target {target}", cls.model_fields)
        return cls(
            **{name: value for name, value in parameters.items() if not _says_nothing(value)}
        )


def without_empty(block: Mapping[str, Any]) -> dict[str, Any]:
    """Give an object without the keys that say nothing."""
    return {key: value for key, value in block.items() if value not in (None, "", {}, [])}


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping | list | tuple) and not value)
