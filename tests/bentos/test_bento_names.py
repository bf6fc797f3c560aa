"""Any registered name becomes a tag, a class and a label; any column name an identifier."""

from __future__ import annotations

import keyword

import pytest
from pydantic import BaseModel

from kfp_bento.runtime.bentos.naming import class_name, identifier, unique
from kfp_bento.runtime.models import is_tag_name, tag_name

NAMES = ["Credit Risk", "größe", "数量", "a/b@c", "--x--", "x" * 90, "", "_", "3d", "A.B_c-1"]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_becomes_a_tag(name: str) -> None:
    assert is_tag_name(tag_name(name))
    assert class_name(name, "Service").isidentifier()


def test_a_name_that_is_a_tag_stays_as_it_is() -> None:
    assert tag_name("credit_risk-v1.2") == "credit_risk-v1.2"
    assert tag_name("Credit Risk") == "credit-risk"
    assert class_name("credit_risk-v1.2", "Service") == "CreditRiskV12Service"


@pytest.mark.parametrize(
    "name", [*NAMES, *keyword.kwlist, "int", "model_fields", "__a", "1", "😀", "a\n"]
)
def test_every_column_becomes_an_identifier(name: str) -> None:
    found = identifier(name, fallback="column_1")
    assert found.isidentifier()
    assert not keyword.iskeyword(found)
    assert not found.startswith("_")
    assert not hasattr(BaseModel, found)


def test_names_that_occur_twice_are_numbered() -> None:
    assert unique(["a", "a_2", "a", "a"]) == ["a", "a_2", "a_3", "a_4"]
