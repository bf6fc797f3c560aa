"""Where no namespace is named, it is the one of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfp_bento.runtime.deployments import own_namespace
from kfp_bento.runtime.deployments.kube import namespaces


def test_a_pod_says_in_which_namespace_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "_OWN", tmp_path / "namespace")
    assert own_namespace("") == "default"  # outside of a cluster
    (tmp_path / "namespace").write_text("team-a\n")
    assert own_namespace("") == "team-a"
    assert own_namespace("models") == "models"
