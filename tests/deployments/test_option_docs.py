"""Every option of every target is explained, by the docstrings alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator

from kfp_bento.runtime.deployments import TARGETS
from kfp_bento.runtime.deployments.options.option_docs import option_docs


class Plain(BaseModel):
    """Some options.

    Attributes:
        first: The first
            of them: with a colon.
        second: See elsewhere.
    """

    first: str = ""
    second: int | None = None


class Special(Plain):
    """More options.

    Attributes:
        second: Explained anew.
        third: A list, or an object.
    """

    third: Annotated[
        list[str],
        BeforeValidator(list, json_schema_input_type=dict[str, Any] | list[str]),
    ] = []
    fourth: bool = False
    fifth: Literal["red", "blue"] = "red"
    sixth: Plain = Plain()


def test_options_are_told_in_order_with_the_nearest_meaning() -> None:
    assert [tuple(one) for one in option_docs(Special)] == [
        ("first", "text", "", "The first of them: with a colon."),
        ("second", "number", "", "Explained anew."),
        ("third", "mapping or list", "", "A list, or an object."),
        ("fourth", "true or false", "false", ""),
        ("fifth", "text", "red", ""),
        ("sixth", "mapping", "", ""),
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_every_option_of_a_target_has_a_meaning(target: str) -> None:
    options_type = TARGETS[target].options_type
    told = option_docs(options_type)
    assert [one.name for one in told] == list(options_type.model_fields)
    assert all(one.meaning and one.meaning != "See the target." for one in told)
    words = {word for one in told for word in one.type.split(" or ")}
    assert words <= {"text", "number", "true", "false", "mapping", "list"}
