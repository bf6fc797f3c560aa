"""kfp-bento bento list, show, delete and prune, as people run them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from kfp_bento_command import COMMAND, assert_refused
from kfp_bento_command import kfp_bento_here as kfp_bento
from sample_bentos import write_bento

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.deployments import ReleaseStatus

DAY = 86_400


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three versions of wine, the youngest first, and one of beer."""
    now = (tmp_path.stat().st_mtime // 60) * 60
    ages = {"wine-c": ("wine", "c", 0), "wine-b": ("wine", "b", 10), "wine-a": ("wine", "a", 40)}
    for place, (name, version, days) in {**ages, "beer": ("beer", "a", 90)}.items():
        file = write_bento(tmp_path / place, name, version) / "bento.yaml"
        os.utime(file, (now - days * DAY, now - days * DAY))
    return tmp_path


def listed(store: Path) -> list[str]:
    return [one["place"] for one in json.loads(kfp_bento("bento", "list", store, "--json").stdout)]


def test_a_listing_is_a_table_for_people_and_a_document_for_machines(store: Path) -> None:
    lines = kfp_bento("bento", "list", store).stdout.splitlines()
    assert lines[0].split() == ["bento", "size", "there", "since", "(UTC)", *lines[0].split()[5:]]
    assert [line.split()[0] for line in lines[1:]] == ["wine:c", "wine:b", "wine:a", "beer:a"]
    assert listed(store) == ["wine-c", "wine-b", "wine-a", "beer"]
    (store / "empty").mkdir()
    done = kfp_bento("bento", "list", store / "empty")
    assert (done.returncode, done.stdout) == (0, "")
    assert "has no bentos" in done.stderr


def test_a_deletion_is_confirmed_on_a_terminal(store: Path) -> None:
    assert_refused(kfp_bento("bento", "delete", "wine:b", store), "--yes")
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "bento", "delete", "wine:b", str(store)],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(master, b"n\n")
    out, told = process.communicate(timeout=60)
    os.close(master)
    os.close(terminal)
    assert process.returncode == 2
    assert "wine:b" in out
    assert f"Delete 1 bento (79 bytes) from {store}?" in told
    assert "nothing was deleted" in told
    assert len(listed(store)) == 4


def test_a_bento_is_deleted(store: Path) -> None:
    assert_refused(kfp_bento("bento", "delete", "wine:z", store, "--yes"), "no bento wine:z")
    done = kfp_bento("bento", "delete", "wine:b", store, "--yes", "--json")
    assert json.loads(done.stdout)["deleted"] == [{"tag": "wine:b", "place": "wine-b"}]
    assert listed(store) == ["wine-c", "wine-a", "beer"]


def test_pruning_shows_first_and_then_does_what_it_showed(store: Path) -> None:
    assert_refused(kfp_bento("bento", "prune", store, "--yes"), "--keep 3")
    assert_refused(kfp_bento("bento", "prune", store, "--older-than", "soon", "--yes"), "30d")
    prune = ("bento", "prune", store, "--keep", "1", "--older-than", "2w")
    shown = kfp_bento(*prune, "--dry-run")
    assert "wine-a" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "Would delete 1 bento (79 bytes)."
    assert len(listed(store)) == 4
    done = kfp_bento(*prune, "--yes", "--json")
    assert json.loads(done.stdout) == {
        "dry_run": False,
        "deleted": [{"tag": "wine:a", "place": "wine-a"}],
        "size": 79,
    }
    assert listed(store) == ["wine-c", "wine-b", "beer"]
    assert kfp_bento(*prune, "--yes").stdout == "Nothing is to go.\n"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace where a release serves wine:a."""
    image = f"registry.example.com/wine@sha256:{'a1' * 32}"
    release = ReleaseStatus(
        "wine", "prod", "workload", True, True, "serves", image=image, bento="wine:a"
    )
    monkeypatch.setattr(
        "kfp_bento.runtime.deployments.list_releases", lambda namespace, context="": (release,)
    )


@pytest.mark.usefixtures("cluster")
def test_what_a_release_serves_is_told_and_kept(store: Path) -> None:
    done = kfp_bento("bento", "list", store, "-n", "prod", "--json")
    assert [one["place"] for one in json.loads(done.stdout) if one["releases"]] == ["wine-a"]
    assert (
        "prod/wine  a1a1a1a1a1a1  wine-a"
        in kfp_bento(*("bento", "list", store, "-n", "prod")).stdout
    )
    kfp_bento("bento", "prune", store, "--keep", "1", "-n", "prod", "--yes")
    assert listed(store) == ["wine-c", "wine-a", "beer"]
    done = kfp_bento("bento", "delete", "wine:a", store, "-n", "prod", "--yes")
    assert_refused(done, "served by prod/wine")
    assert listed(store) == ["wine-c", "wine-a", "beer"]


def test_a_bento_is_shown(store: Path) -> None:
    done = kfp_bento("bento", "show", store / "wine-c")
    facts = dict(line.split(None, 1) for line in done.stdout.splitlines()[1:])
    assert facts["digest"] == load_bento(store / "wine-c").digest
    assert facts["service"] == "service:Wine"
    document = json.loads(kfp_bento("bento", "show", store / "wine-c", "--json").stdout)
    assert (document["tag"], document["golden"], document["lock"]) == ("wine:c", None, None)


def test_golden_answers_count_for_their_own_bento_only(store: Path) -> None:
    golden = store / "wine-c.golden.json"
    facts = {"format": 1, "bento": "wine:c", "models": [], "requests": [], "verified": "off"}
    facts |= {"reason": "Nobody asked.", "tolerance": {"relative": 0, "absolute": 0}}
    golden.write_text(json.dumps(facts | {"rows": {"are": "unknown", "reason": ""}}))
    show = ("bento", "show", store / "wine-c")
    assert "off: Nobody asked." in kfp_bento(*show).stdout
    golden.write_text(golden.read_text().replace("wine:c", "wine:b"))
    assert json.loads(kfp_bento(*show, "--json").stdout)["golden"] is None
    golden.write_text("{")
    assert json.loads(kfp_bento(*show, "--json").stdout)["golden"]["verified"] == "unknown"


def test_what_is_no_bento_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    for source, told in ((tmp_path / "empty", "bento.yaml"), ("nobody:v1", "nobody:v1")):
        assert_refused(kfp_bento("bento", "show", source), told)
