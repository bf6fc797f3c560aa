"""The command itself against a real API server: a release from its first apply to its end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import COMMAND, assert_refused, kfp_bento
from live_cluster import LiveCluster
from pod_behaviour import becomes_ready, crash_loop, image_pull_backoff
from sample_bentos import write_bento
from workload_releases import FIRST, SECOND

DEPLOYMENT = ("apps/v1", "Deployment")


class Commands:
    """The command in one namespace, for releases of the target workload."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder
        self.bento = write_bento(folder / "bento")

    def deploy(self, command: str, image: str, *more: object) -> subprocess.CompletedProcess[str]:
        place = ["--bento", self.bento, "-t", "workload", "-n", self.namespace]
        if command == "apply":
            place += ["--to", self.folder / "manifests"]
        return kfp_bento("deploy", command, image, *place, *more)

    def release(self, command: str, *more: object) -> subprocess.CompletedProcess[str]:
        return kfp_bento("release", command, *more, "-n", self.namespace)

    def told(self, command: str, *more: object) -> Any:
        done = self.release(command, *more, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def out(self, image: str, *more: object) -> Any:
        done = self.deploy("apply", image, "--wait-seconds", 60, "--confirm", "--json", *more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def commands(cluster: LiveCluster, namespace: str, kubeconfig: Path, tmp_path: Path) -> Commands:
    return Commands(namespace, tmp_path)


def served_image(cluster: LiveCluster, namespace: str) -> str:
    live = cluster.api.get(*DEPLOYMENT, namespace, "wine")
    assert live is not None
    return str(live["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_release_lives_from_apply_to_delete(cluster: LiveCluster, commands: Commands) -> None:
    first = commands.out(FIRST)
    assert first["verdict"]["ready"]
    assert {one["change"] for one in first["objects"]} == {"created"}
    assert first["url"] == f"http://wine.{commands.namespace}.svc:3000"
    (listed,) = commands.told("list")
    assert (listed["name"], listed["target"], listed["ready"]) == ("wine", "workload", True)
    assert listed["last_good"] == first["revision"]
    assert commands.told("status", "wine")["objects"] == [
        f"Deployment {commands.namespace}/wine",
        f"Service {commands.namespace}/wine",
    ]
    assert commands.told("wait", "wine")["reason"] == "Ready"

    assert commands.deploy("diff", FIRST, "--exit-code").returncode == 0
    changes = commands.deploy("diff", SECOND, "--exit-code")
    assert (changes.returncode, changes.stderr) == (1, "Would be: 2 changed.\n")
    second = commands.out(SECOND)
    assert second["revision"] != first["revision"]
    assert served_image(cluster, commands.namespace) == SECOND

    back = commands.told("roll-back", "wine", "--leaving-image", SECOND)
    assert back["from"] == {"revision": second["revision"], "image": SECOND}
    assert back["to"] == {"revision": first["revision"], "image": FIRST}
    assert back["changed"] and back["verdict"]["ready"]
    assert served_image(cluster, commands.namespace) == FIRST
    again = commands.told("roll-back", "wine", "--leaving-image", SECOND)
    assert not again["changed"]

    gone = commands.told("delete", "wine", "--yes")
    assert sorted(gone["removed"]) == [
        f"Deployment {commands.namespace}/wine",
        f"Service {commands.namespace}/wine",
    ]
    assert commands.told("list") == []
    assert commands.told("delete", "wine", "--yes", "-t", "workload")["removed"] == []


def test_what_people_read_of_it(commands: Commands) -> None:
    done = commands.deploy("apply", FIRST, "--wait-seconds", 60)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:3]] == ["created", "created"]
    assert "wine serves, after " in done.stdout
    assert "waiting: " in done.stderr
    heading, row = commands.release("list").stdout.splitlines()
    words = ["name", "target", "ready", "on", "trial", "image", "revision", "last", "good"]
    assert heading.split() == words
    assert row.split()[:5] == ["wine", "workload", "yes", "yes", "a1" * 6]
    assert "wine is good" in commands.release("confirm", "wine").stdout
    assert commands.release("list").stdout.splitlines()[1].split()[3] == "no"
    commands.out(SECOND)
    looked = commands.release("roll-back", "wine", "--dry-run")
    assert any(line.startswith("+") and FIRST in line for line in looked.stdout.splitlines())
    assert "wine went back" not in looked.stdout
    assert commands.told("status", "wine")["image"] == SECOND
    back = commands.release("roll-back", "wine")
    assert back.stdout.index(FIRST) < back.stdout.index("wine went back")
    assert "wine was left as it is" in commands.release("roll-back", "wine").stdout
    assert "wine is deleted" in commands.release("delete", "wine", "--yes").stdout


def test_a_failing_release_goes_back_and_tells_why(
    cluster: LiveCluster, commands: Commands
) -> None:
    good = commands.out(FIRST)
    cluster.pods.behave(commands.namespace, image_pull_backoff(), image="b2b2")
    done = commands.deploy("apply", SECOND, "--wait-seconds", 60, "--roll-back-on-failure")
    assert_refused(done, "wine does not serve (")
    assert "manifest unknown" in done.stderr
    assert f"It was rolled back to revision {good['revision']}, which serves" in done.stderr
    assert "rolled back to" in done.stdout
    assert served_image(cluster, commands.namespace) == FIRST
    assert commands.release("status", "wine", "--exit-code").returncode == 0


def test_a_failing_release_stays_with_its_evidence(
    cluster: LiveCluster, commands: Commands
) -> None:
    cluster.pods.behave(commands.namespace, crash_loop(), image="a1a1")
    done = commands.deploy("apply", FIRST, "--wait-seconds", 60, "--json")
    assert done.returncode == 2
    verdict = json.loads(done.stdout)["verdict"]
    assert verdict["reason"] == "CrashLoopBackOff"
    assert "ModuleNotFoundError" in json.loads(done.stderr)["error"]
    waited = commands.release("wait", "wine", "--wait-seconds", "20")
    assert_refused(waited, "wine does not serve (CrashLoopBackOff)")
    assert "ModuleNotFoundError" in waited.stderr
    assert commands.release("status", "wine").returncode == 0
    assert commands.release("status", "wine", "--exit-code").returncode == 1
    assert_refused(commands.release("roll-back", "wine"), "no good release on record")


def test_a_reason_can_be_tolerated_until_the_time_is_up(
    cluster: LiveCluster, commands: Commands
) -> None:
    cluster.pods.behave(commands.namespace, image_pull_backoff(), image="a1a1")
    tolerated = ("--tolerate", "ErrImagePull", "--tolerate", "ImagePullBackOff")
    done = commands.deploy("apply", FIRST, "--wait-seconds", 3, *tolerated)
    assert_refused(done, "wine does not serve (DeadlineExceeded)")


def test_a_field_of_somebody_else_is_a_conflict_until_forced(
    cluster: LiveCluster, commands: Commands
) -> None:
    commands.out(FIRST)
    container = {"name": "bento", "image": SECOND}
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "wine", "namespace": commands.namespace},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    cluster.api.apply(theirs, manager="somebody-else", force=True)
    for command in ("diff", "apply"):
        assert_refused(commands.deploy(command, FIRST), "somebody-else owns")
    assert served_image(cluster, commands.namespace) == SECOND
    assert commands.deploy("diff", FIRST, "--force", "--exit-code").returncode == 1
    assert commands.out(FIRST, "--force")["verdict"]["ready"]
    assert served_image(cluster, commands.namespace) == FIRST


def test_a_mistake_changes_nothing(cluster: LiveCluster, commands: Commands) -> None:
    assert_refused(commands.deploy("apply", FIRST, "--set", "startup_seconds=soon"), "no integer")
    assert_refused(commands.deploy("apply", "wine:1"), "names no digest")
    assert_refused(commands.deploy("apply", FIRST, "-n", "nowhere"), 'namespaces "nowhere"')
    assert_refused(commands.deploy("apply", FIRST, "--context", "other"), "other")
    commands.out(FIRST)
    assert_refused(
        commands.release("roll-back", "wine", "--to-revision", "77"), "no good release 77"
    )
    assert_refused(commands.release("delete", "wine"), "confirmed on a terminal")
    assert cluster.api.get(*DEPLOYMENT, commands.namespace, "wine") is not None


@pytest.mark.parametrize(("answer", "left"), [("n", True), ("y", False)])
def test_a_deletion_is_confirmed_on_a_terminal(
    cluster: LiveCluster, commands: Commands, answer: str, left: bool
) -> None:
    commands.out(FIRST)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "release", "delete", "wine", "-n", commands.namespace],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{answer}\n".encode())
    told, asked = process.communicate(timeout=60)
    for end in (ours, theirs):
        os.close(end)
    assert f"Delete wine (workload) in {commands.namespace}, 2 objects?" in asked
    assert process.returncode == (2 if left else 0), told + asked
    live = cluster.api.get(*DEPLOYMENT, commands.namespace, "wine")
    assert (live is not None) is left


def test_what_is_stopped_while_it_waits_stays_and_can_be_waited_for(
    cluster: LiveCluster, commands: Commands
) -> None:
    cluster.pods.behave(commands.namespace, becomes_ready(after=8), image="a1a1")
    arguments = ["deploy", "apply", FIRST, "--bento", str(commands.bento), "-t", "workload"]
    place = ["-n", commands.namespace, "--to", str(commands.folder / "manifests")]
    process = subprocess.Popen(
        [*COMMAND, *arguments, *place], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("waiting: ")
    process.terminate()
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "Error: Stopped before the verdict." in told
    assert "Traceback" not in told
    assert commands.told("wait", "wine", "--wait-seconds", "60")["ready"]
