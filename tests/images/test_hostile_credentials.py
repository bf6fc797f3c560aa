"""Login files changed by chance."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from by_chance import MUTATIONS, garbled, mutated

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.images.registry.credentials import find_credentials

if TYPE_CHECKING:
    pass


def test_a_credentials_file_changed_by_chance_is_taken_or_refused_without_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(2)
    packed_login = base64.b64encode(b"user:hunter2").decode()
    good = {"auths": {"registry.example": {"auth": packed_login, "email": "x"}}, "credsStore": "x"}
    file = tmp_path / "config.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    outcomes = []
    for number in range(MUTATIONS):
        content = json.dumps(good if number % 2 else mutated(good, chance)).encode()
        file.write_bytes(garbled(content, chance) if number % 2 else content)
        try:
            find_credentials("registry.example", "team/x")
            outcomes.append("taken")
        except KfpBentoError as error:
            assert "hunter2" not in str(error) and packed_login not in str(error)
            outcomes.append("refused")
    assert {"refused", "taken"} == set(outcomes)
