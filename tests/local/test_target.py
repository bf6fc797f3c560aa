"""The local target serves what its own run made, for its own user, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_releases import (
    IMAGE,
    body_of,
    said_to,
    spoken,
    write_small_bento,
    write_small_layout,
)

from kfp_bento.runtime.bentos import Bento, load_bento
from kfp_bento.runtime.bentos.bento import write_facts, write_record
from kfp_bento.runtime.deployments.local_target import settle_locally, start_locally
from kfp_bento.runtime.errors import DeploymentError, InvalidInput, LocalRunError
from kfp_bento.runtime.local import local_target
from kfp_bento.runtime.local.target import LocalTarget

NOBODY = 65534
SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "mlflow-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "KFP_BENTO_LOCAL_TARGET": "unix:/nowhere",
    "UV_INDEX_INNER_PASSWORD": "index-secret",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "steps").mkdir(parents=True)
    return tmp_path / "run"


@pytest.fixture
def target(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTarget]:
    monkeypatch.setenv("KFP_BENTO_LOCAL_RUNTIME", "process")
    with local_target(run / "service") as target:
        yield target


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a bento's code writes when it runs."""
    return tmp_path / "marker"


@pytest.fixture
def bento(run: Path, marker: Path) -> Path:
    return write_small_bento(run / "steps" / "bento", marker)


def bento_with_record(directory: Path) -> Bento:
    made = load_bento(directory)
    write_record(made)
    return made


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/livez", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def as_nobody(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as another user of the machine; skips where that cannot be."""
    if os.getuid() != 0:
        pytest.skip("only root can play another user")
    done = subprocess.run(
        [shutil.which("python3", path="/usr/bin") or sys.executable, "-c", code, *arguments],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if "Traceback" in done.stderr or done.returncode:
        pytest.skip(f"another user cannot run Python here: {done.stderr[-200:]}")
    return done


CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(10)
    try:
        connection.connect(sys.argv[1])
        connection.sendall(sys.argv[2].encode())
        print("answer", connection.recv(1000))
    except OSError as error:
        print(type(error).__name__)
"""


def test_what_a_run_made_is_served_with_nothing_of_ours(
    target: LocalTarget, bento: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = {"OMP_NUM_THREADS": "3", "KFP_BENTO_API_TOKEN": "for-callers"}
    for name, value in {**SECRETS, **passed}.items():
        monkeypatch.setenv(name, value)
    url = start_locally(target.address, [], image=IMAGE, image_location="", bento_directory=bento)
    assert answers(url)
    seen = json.loads(marker.read_text())
    assert not seen.keys() & SECRETS.keys()
    assert not set(seen.values()) & set(SECRETS.values())
    assert seen.items() >= passed.items()
    assert seen["HOME"].startswith(str(target.directory))


def test_another_user_of_the_machine_gets_nowhere(
    target: LocalTarget, bento: Path, marker: Path
) -> None:
    path = target.address.removeprefix("unix:")
    request = spoken(body_of(bento)).decode()
    assert as_nobody(CONNECT, path, request).stdout == "PermissionError\n"
    # Even where the file system would let them in, the kernel says who they are.
    Path(path).parent.chmod(0o755)
    Path(path).chmod(0o777)
    told = as_nobody(CONNECT, path, request).stdout
    assert told in ("answer b''\n", "ConnectionResetError\n", "BrokenPipeError\n")
    assert not marker.exists()


def test_nothing_listens_on_a_port(target: LocalTarget) -> None:
    kind, _, path = target.address.partition(":")
    assert kind == "unix"
    assert Path(path).is_socket()
    assert Path(path).parent.stat().st_mode & 0o077 == 0


def test_a_step_talks_to_nobody_but_its_own_user() -> None:
    listen = (
        "import os, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); listener.listen()\n"
        "print('up', flush=True); listener.settimeout(20)\n"
        "print(listener.accept()[0].recv(100))\n"
    )
    if os.getuid() != 0:
        pytest.skip("only root can play another user")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        with subprocess.Popen(
            ["/usr/bin/env", "python3", "-c", listen, f"{place}/target"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as stranger:
            assert stranger.stdout is not None
            if stranger.stdout.readline() != "up\n":
                pytest.skip("another user cannot run Python here")
            with pytest.raises(DeploymentError, match="another user"):
                start_locally(
                    f"unix:{place}/target",
                    [],
                    image=IMAGE,
                    image_location="",
                    bento_directory=Path(place),
                )
            assert stranger.stdout.readline() == "b''\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example.com"}, 421),
        ({"Host": None}, 421),
        ({"Origin": "http://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Referer": "http://evil.example.com/x"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain", "Content-Type": None}, 415),
        ({"Content-Type": None}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Length": None}, 411),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "0x10"}, 400),
        ({"Content-Length": "1e3"}, 400),
        ({"Content-Length": "+5"}, 400),
        ({"Content-Length": "99999999999999999999"}, 400),
        ({"Content-Length": "999999999999999999"}, 413),
        ({"content-length": "1"}, 400),
        ({"Transfer-Encoding": "chunked"}, 501),
        ({"Transfer-Encoding ": "chunked"}, 400),
    ],
)
def test_a_request_that_no_step_sends_is_not_looked_at(
    target: LocalTarget, bento: Path, marker: Path, headers: dict[str, str | None], status: int
) -> None:
    assert said_to(target.address, spoken(body_of(bento), **headers))[0] == status
    assert not marker.exists()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /releases HTTP/1.1", 501),
        (b"POST / HTTP/1.1", 404),
        (b"POST /releases?x HTTP/1.1", 404),
        (b"POST http://localhost/releases HTTP/1.1", 404),
        (b"\x16\x03\x01\x02", 0),
        (b"POST /releases HTTP/9.9", 0),
    ],
)
def test_a_line_that_no_step_sends_is_refused(
    target: LocalTarget, bento: Path, marker: Path, line: bytes, status: int
) -> None:
    request = spoken(body_of(bento)).replace(b"POST /releases HTTP/1.1", line, 1)
    assert said_to(target.address, request)[0] == status
    assert not marker.exists()


def test_a_bento_of_elsewhere_is_not_started(
    target: LocalTarget, run: Path, tmp_path: Path, marker: Path
) -> None:
    elsewhere = write_small_bento(tmp_path / "elsewhere", marker)
    (run / "steps" / "link").symlink_to(elsewhere)
    for given in (elsewhere, run / "steps" / "link", run / "steps" / ".." / ".." / "elsewhere"):
        status, told = said_to(target.address, spoken(body_of(given)))
        assert (status, "does not lie in the directory of this run" in told) == (400, True)
    assert not marker.exists()


def test_the_whole_bento_beside_given_facts_is_served(target: LocalTarget, bento: Path) -> None:
    write_facts(bento_with_record(bento), bento.with_name("facts"))
    facts = bento.with_name("facts")
    assert answers(
        start_locally(target.address, [], image=IMAGE, image_location="", bento_directory=facts)
    )


@pytest.mark.parametrize("beside", ["nothing", "another"])
def test_facts_without_their_bento_start_nothing(
    target: LocalTarget, run: Path, bento: Path, marker: Path, beside: str
) -> None:
    write_facts(bento_with_record(bento), run / "steps/alone/facts")
    if beside == "another":
        bento_with_record(write_small_bento(run / "steps/alone/bento", marker, version="v9"))
    status, told = said_to(target.address, spoken(body_of(run / "steps/alone/facts")))
    assert (status, "does not lie beside it" in told) == (400, True)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["steps", "steps/bento"])
def test_a_bento_that_others_can_change_is_not_started(
    target: LocalTarget, run: Path, bento: Path, marker: Path, place: str
) -> None:
    for folder in (run, run / "steps", bento):
        folder.chmod(0o755)
    (run / place).chmod(0o777)
    status, told = said_to(target.address, spoken(body_of(bento)))
    assert (status, "can be changed by other users" in told) == (400, True)
    assert not marker.exists()


def test_a_bento_of_another_user_is_not_started(
    target: LocalTarget, run: Path, bento: Path, marker: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    (run / "steps").chmod(0o755)
    run.chmod(0o755)
    os.chown(bento, NOBODY, NOBODY)
    assert said_to(target.address, spoken(body_of(bento)))[0] == 400
    assert not marker.exists()


def test_an_image_is_the_one_that_was_asked_for(
    target: LocalTarget, run: Path, tmp_path: Path, bento: Path, marker: Path
) -> None:
    fitting = write_small_layout(tmp_path / "image", "wine:v1")
    other = write_small_layout(run / "other", "fraud:v2")
    place = f"oci:{tmp_path}/image"
    for location, digest, told in (
        (place, "sha256:" + "b2" * 32, "not sha256:b2b2"),
        (f"oci:{run}/other", other, "was not made of the bento wine:v1"),
        (f"oci:{run}/steps", fitting, "is no OCI layout"),
        (f"oci:{run}/missing", fitting, "cannot be found"),
    ):
        body = body_of(bento, image=f"localhost/wine@{digest}", image_location=location)
        status, answer = said_to(target.address, spoken(body))
        assert status in (400, 502)
        assert told in answer
    assert not marker.exists()
    body = body_of(bento, image=f"localhost/wine@{fitting}", image_location=place)
    assert said_to(target.address, spoken(body))[0] == 200


def test_an_image_that_others_can_write_is_not_started(
    target: LocalTarget, tmp_path: Path, bento: Path, marker: Path
) -> None:
    digest = write_small_layout(tmp_path / "image", "wine:v1")
    (tmp_path / "image").chmod(0o777)
    location = f"oci:{tmp_path}/image"
    body = body_of(bento, image=f"localhost/wine@{digest}", image_location=location)
    status, told = said_to(target.address, spoken(body))
    assert (status, "can be changed by other users" in told) == (400, True)
    assert not marker.exists()


def test_what_runs_goes_on_until_another_one_serves(
    target: LocalTarget, run: Path, bento: Path, tmp_path: Path
) -> None:
    def asked(given: Path) -> int:
        return said_to(target.address, spoken(body_of(given)))[0]

    assert asked(bento) == 200
    first = target.services[-1].url
    broken = "#!/bin/sh\nexit 3\n"
    write_small_bento(run / "steps" / "broken", tmp_path / "other", entrypoint=broken)
    assert asked(run / "steps" / "missing") == 400
    assert asked(run / "steps" / "broken") == 502
    assert answers(first)
    write_small_bento(run / "steps" / "newer", tmp_path / "newer", version="v2")
    assert asked(run / "steps" / "newer") == 200
    assert answers(target.services[-1].url)
    assert not answers(first)


def test_what_serves_already_is_left_as_it_is(
    target: LocalTarget, run: Path, bento: Path, tmp_path: Path
) -> None:
    def deployed(given: Path) -> str:
        assert said_to(target.address, spoken(body_of(given)))[0] == 200
        return target.services[-1].url

    first = deployed(bento)
    settle_locally(target.address, first, confirm=True)
    assert deployed(bento) == first
    settle_locally(target.address, first, confirm=False)  # nothing was on trial
    assert answers(first)
    newer = deployed(write_small_bento(run / "steps/newer", tmp_path / "newer", version="v2"))
    assert newer != first
    again = deployed(bento)
    assert again != newer
    assert (answers(newer), answers(again)) == (False, True)


def test_what_has_ended_is_started_again(target: LocalTarget, bento: Path) -> None:
    first = start_locally(target.address, [], image=IMAGE, image_location="", bento_directory=bento)
    settle_locally(target.address, first, confirm=True)
    assert target._good is not None
    target._good.running.close()
    assert not answers(first)
    again = start_locally(target.address, [], image=IMAGE, image_location="", bento_directory=bento)
    assert answers(again)


def test_a_source_distribution_in_a_lock_runs_no_code(
    target: LocalTarget, run: Path, tmp_path: Path, marker: Path
) -> None:
    source = tmp_path / "evil-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"open({str(tmp_path / 'built')!r}, 'w').close()\n"
        "from setuptools import setup\nsetup(name='evil', version='1.0')\n"
    )
    archive = tmp_path / "evil-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, "evil-1.0")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    lock = f"evil @ {archive.as_uri()} --hash=sha256:{digest}\n"
    given = write_small_bento(run / "steps" / "bento", marker, lock=lock)
    status, told = said_to(target.address, spoken(body_of(given)))
    assert (status, "cannot be installed" in told) == (502, True)
    assert not (tmp_path / "built").exists()
    assert not marker.exists()


def test_an_image_name_is_no_option_of_an_engine(target: LocalTarget, bento: Path) -> None:
    for image in ("--authfile=/etc/shadow@sha256:" + "a1" * 32, "wine:latest", "", 7):
        assert said_to(target.address, spoken(body_of(bento, image=image)))[0] == 400


def test_a_slow_or_idle_request_ends_and_lets_others_in(
    target: LocalTarget, bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_bento.runtime.local.endpoint.READ_SECONDS", 0.4)
    path = target.address.removeprefix("unix:")
    ended = threading.Event()

    def drip() -> None:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(path)
            try:
                for letter in spoken(body_of(bento)):
                    slow.sendall(bytes([letter]))
                    time.sleep(0.02)
            except OSError:
                ended.set()

    dripping = threading.Thread(target=drip)
    dripping.start()
    idle = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for connection in idle:
        connection.connect(path)
    for connection in idle:  # told to go, or not let in
        connection.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1 << 12).partition(b" ")[2][:3] in (b"", b"408")
        connection.close()
    dripping.join(20)
    assert ended.is_set()
    assert said_to(target.address, spoken(b"{}"))[0] == 400


def test_answers_tell_no_more_than_they_should(
    target: LocalTarget, run: Path, bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("kfp_bento.runtime.local.target.parse_request", fail)
    status, told = said_to(target.address, spoken(body_of(bento)))
    assert (status, "secret" in told) == (500, False)


def test_scratch_space_is_ours_alone(tmp_path: Path) -> None:
    (tmp_path / "run" / "service").mkdir(parents=True)
    with local_target(tmp_path / "run" / "service"):
        assert (tmp_path / "run" / "service").stat().st_mode & 0o777 == 0o700
    (tmp_path / "run" / "service").chmod(0o777)
    with (
        pytest.raises(LocalRunError, match="written by other users"),
        local_target(tmp_path / "run" / "service"),
    ):
        pass


def test_a_network_that_is_none_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidInput, match="network"),
        local_target(tmp_path / "service", network="bridge"),
    ):
        pass


def test_what_cannot_be_kept_from_the_network_is_not_started(
    run: Path, bento: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_LOCAL_RUNTIME", "process")
    monkeypatch.setenv("KFP_BENTO_LOCAL_NETWORK", "none")
    with local_target(run / "service") as target:
        status, told = said_to(target.address, spoken(body_of(bento)))
    assert (status, "cannot be kept from the network" in told) == (502, True)
    assert not marker.exists()


def listening() -> list[str]:
    """Addresses at which this process waits for connections from anybody on the machine."""
    own = set()
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that reads the folder is gone again
            own.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    tables = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return [row[1] for row in tables if row[3] == "0A" and row[9] in own]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc")
def test_a_target_is_not_to_be_reached_over_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        (before,) = listening()
    with local_target(tmp_path / "service"):
        assert [place for place in listening() if place != before] == []
