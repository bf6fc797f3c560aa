"""A light installation says what it lacks."""

from __future__ import annotations

import pytest

from kfp_bento.runtime.cli.extras import MODULES, require_extra
from kfp_bento.runtime.errors import InvalidInput


def test_a_missing_extra_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULES, "runtime", ("json", "no_such_module"))
    with pytest.raises(InvalidInput, match="no_such_module") as refusal:
        require_extra("runtime")
    assert "json" not in refusal.value.message
    assert refusal.value.hint == "pip install 'kfp-bento[runtime]'"


@pytest.mark.parametrize("extra", MODULES)
def test_what_is_installed_here_is_enough(extra: str) -> None:
    require_extra(extra)
