"""Every option of every target is explained, by the docstrings alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest

from kfp_bento.runtime.deployments import TARGETS
from kfp_bento.runtime.deployments.options.option_docs import option_docs


@dataclass(frozen=True)
class Plain:
    """Some options.

    Attributes:
        first: The first
            of them: with a colon.
        second: See elsewhere.
    """

    first: str = ""
    second: int | None = None


@dataclass(frozen=True)
class Special(Plain):
    """More options.

    Attributes:
        second: Explained anew.
        third: A list, or an object.
    """

    third: Mapping[str, Any] | Sequence[Any] | None = None
    fourth: bool = False
    fifth: str = "red"


def test_options_are_told_in_order_with_the_nearest_meaning() -> None:
    assert [tuple(one) for one in option_docs(Special)] == [
        ("first", "text", "", "The first of them: with a colon."),
        ("second", "number", "", "Explained anew."),
        ("third", "mapping or list", "", "A list, or an object."),
        ("fourth", "true or false", "false", ""),
        ("fifth", "text", "red", ""),
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_every_option_of_a_target_has_a_meaning(target: str) -> None:
    options_type = TARGETS[target].options_type
    told = option_docs(options_type)
    assert [one.name for one in told] == [one.name for one in fields(options_type)]
    assert all(one.meaning and one.meaning != "See the target." for one in told)
    words = {word for one in told for word in one.type.split(" or ")}
    assert words <= {"text", "number", "true", "false", "mapping", "list"}
