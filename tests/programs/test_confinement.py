"""Other people's code reaches neither the network nor other processes nor credentials."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import (
    Finished,
    clean_environment,
    code_variables,
    confined,
    confinement,
    confinement_hint,
    run_program,
)
from kfp_bento.runtime.programs.confinement import CONFINEMENT_VARIABLE, VARIABLES_VARIABLE

WAYS = ("namespace", "landlock-network", "landlock")
SECRET = "s3cr3t-T0ken"

pytestmark = pytest.mark.skipif(
    not confinement._works("landlock"), reason="this kernel has no Landlock"
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CONFINEMENT_VARIABLE, raising=False)
    monkeypatch.delenv(VARIABLES_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)


def run(source: str, directory: Path, *, network: bool = False) -> Finished:
    argv = [sys.executable, "-I", "-S", "-c", source]
    return run_program(
        confined(argv, network=network, error=BentoError),
        doing="The test",
        directory=directory,
        environment=clean_environment(code_variables()),
        seconds=60,
        error=BentoError,
    )


@pytest.fixture(params=WAYS[:2])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the ways to be without network, though another may work as well."""
    chosen: str = request.param
    if not confinement._works(chosen):
        pytest.skip(f"{chosen} does not work here")
    monkeypatch.setattr(confinement, "_works", lambda name: name == chosen)
    return chosen


@pytest.mark.usefixtures("way")
def test_code_does_not_reach_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        source = (
            "import socket\n"
            f"try: socket.create_connection(('127.0.0.1', {port}), 5).sendall(b'secret')\n"
            "except OSError as error: print('no', error.errno)"
        )
        assert run(source, tmp_path).output.startswith("no ")
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_network_of_its_own_has_a_loopback(tmp_path: Path) -> None:
    if not confinement._works("namespace"):
        pytest.skip("no namespaces here")
    source = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname(), 5)\n"
        "print('connected')"
    )
    assert run(source, tmp_path).output == "connected\n"


@pytest.mark.parametrize("network", [False, True])
def test_code_cannot_look_into_the_process_that_started_it(tmp_path: Path, network: bool) -> None:
    source = (
        "import os\n"
        "for name in ('environ', 'mem', 'maps', 'auxv', 'root', 'cwd', 'fd/0'):\n"
        f"    path = '/proc/{os.getpid()}/' + name\n"
        "    for look in (os.readlink, lambda path: open(path, 'rb').read(1000)):\n"
        "        try: print(name, look(path))\n"
        "        except OSError: pass\n"
        f"try: os.kill({os.getpid()}, 0); print('signal')\n"
        "except OSError: pass\n"
        "print('looked')"
    )
    assert run(source, tmp_path, network=network).output == "looked\n"


def test_code_cannot_read_credentials_but_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "other/auth.json"))
    for name in (".netrc", ".aws/credentials", ".config/gcloud/x.json", "other/auth.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/credentials").write_text(SECRET)
    (tmp_path / ".kube").symlink_to("elsewhere")
    for name in ("data.txt", ".config/more.txt", "other/data.txt"):
        (tmp_path / name).write_text("readable")
    source = (
        "import pathlib\n"
        f"for path in sorted(pathlib.Path({str(tmp_path)!r}).rglob('*')):\n"
        "    try: print(path.name, path.read_text())\n"
        "    except OSError: pass"
    )
    said = run(source, tmp_path).output
    assert SECRET not in said
    assert said.count("readable") == 3


@pytest.mark.parametrize("named", ["absolute", "relative", "key"])
def test_code_cannot_read_keys_that_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    own = [f"{folder}/kfp-bento/record-key" for folder in ("home/.local/state", "state")]
    for name in (*own, "keys/cosign.key", "keys/cosign.password", "keys/cosign.pub"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("public" if name.endswith(".pub") else SECRET)
    key = {
        "absolute": str(tmp_path / "keys/cosign.key"),
        "relative": " keys/cosign.key\n",
        "key": f"-----BEGIN PRIVATE KEY-----\n/{tmp_path}/keys\n-----END PRIVATE KEY-----\n",
    }[named]
    monkeypatch.setenv("KFP_BENTO_SIGNING_KEY", key)
    (tmp_path / "inside").mkdir()
    source = (
        "import pathlib\n"
        f"for path in sorted(pathlib.Path({str(tmp_path)!r}).rglob('*')):\n"
        "    try: print(path.name, path.read_text())\n"
        "    except OSError: pass"
    )
    said = run(source, tmp_path / "inside").output
    # A variable that holds the key itself names no files.
    kept = [f"cosign.{name} {SECRET}" for name in ("key", "password") if named == "key"]
    assert said.splitlines() == [*kept, "cosign.pub public"]


def test_a_file_that_a_variable_names_from_here_is_hidden_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, name in (
        ("REGISTRY_AUTH_FILE", "auth.json"),
        ("MLFLOW_TRACKING_CLIENT_CERT_PATH", "client.pem"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token"),
    ):
        (tmp_path / name).write_text(SECRET)
        monkeypatch.setenv(variable, name)
    (tmp_path / "inside").mkdir()
    source = (
        "for name in ('auth.json', 'client.pem', 'token'):\n"
        "    try: print(open(f'../{name}').read())\n"
        "    except PermissionError: print('hidden')"
    )
    assert run(source, tmp_path / "inside").output == "hidden\n" * 3


def test_files_are_made_moved_and_run_as_ever(tmp_path: Path) -> None:
    source = (
        "import os, subprocess, tempfile\n"
        "os.makedirs('a/b'); open('a/file', 'w').write('text')\n"
        "os.rename('a/file', 'a/b/file'); os.link('a/b/file', 'linked')\n"
        "print(open('linked').read(), subprocess.run(['true']).returncode, os.getuid())\n"
        "tempfile.TemporaryFile().write(b'x')"
    )
    done = run(source, tmp_path)
    assert (done.output, done.complaint) == (f"text 0 {os.getuid()}\n", "")


def test_the_status_is_the_programs_own(tmp_path: Path) -> None:
    assert run("raise SystemExit(7)", tmp_path).status == 7
    command = confined(["/no/such/program"], error=BentoError)
    done = run_program(
        command, doing="x", directory=tmp_path, environment={}, seconds=9, error=BentoError
    )
    assert (done.status, done.complaint) == (97, "/no/such/program: No such file or directory\n")


def test_a_system_that_cannot_confine_runs_code_as_it_is_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confinement, "_works", lambda way: False)
    assert confined(["program"], error=BentoError) == ["program"]
    monkeypatch.setenv(CONFINEMENT_VARIABLE, "required")
    with pytest.raises(BentoError, match="cannot keep a program from the network"):
        confined(["program"], error=BentoError)
    assert confined(["program"], network=True, error=BentoError) == ["program"]
    monkeypatch.setenv(CONFINEMENT_VARIABLE, "perhaps")
    with pytest.raises(BentoError, match="'perhaps'"):
        confined(["program"], error=BentoError)


def test_the_user_can_lift_it_and_pass_variables_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("SERVICE_SIZE", "3")
    assert CONFINEMENT_VARIABLE in confinement_hint()
    source = "import os; print(sorted({'OPENAI_API_KEY', 'SERVICE_SIZE'} & os.environ.keys()))"
    assert run(source, tmp_path).output == "[]\n"
    monkeypatch.setenv(VARIABLES_VARIABLE, "OPENAI_API_KEY, SERVICE_*")
    assert run(source, tmp_path).output == "['OPENAI_API_KEY', 'SERVICE_SIZE']\n"
    monkeypatch.setenv(CONFINEMENT_VARIABLE, "off")
    assert confined(["program"], error=BentoError) == ["program"]
    assert CONFINEMENT_VARIABLE not in confinement_hint()


STARTER = """\
import os, sys, time
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import clean_environment, confined, start_program

sleeper = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
with start_program(confined(sleeper, error=BentoError), environment=clean_environment()) as one:
    print(one.pid, flush=True)
    time.sleep(600)
"""


def test_code_does_not_outlive_a_starter_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        sleeper = int(starter.stdout.readline())
        command = Path(f"/proc/{sleeper}/cmdline")
        while (
            b"time.sleep" not in command.read_bytes() or b"confined_start" in command.read_bytes()
        ):
            time.sleep(0.02)
        starter.kill()
    deadline = time.monotonic() + 30
    while command.exists() and command.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not command.exists() or not command.read_bytes()


@pytest.mark.parametrize("wish", ["", "off"])
def test_what_others_set_is_seen_by_what_is_confined_alone(
    wish: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if wish:
        monkeypatch.setenv(CONFINEMENT_VARIABLE, wish)
    told = "import os; print(os.environ['GREETING'], os.environ['-S'], os.environ['LD_PRELOAD'])"
    argv = confined(
        [sys.executable, "-I", "-S", "-c", told],
        error=BentoError,
        # The loader says so where it is preloaded, and goes on.
        variables={"GREETING": "hello world", "-S": "x", "LD_PRELOAD": "/nowhere.so"},
    )
    done = run_program(
        argv,
        doing="The test",
        directory=tmp_path,
        environment=clean_environment(),
        seconds=60,
        error=BentoError,
    )
    assert done.output == "hello world x /nowhere.so\n"
    started = [word for word in argv if word.endswith("confined_start.py")]
    assert [argv.index(word) < argv.index("env") for word in started] == ([] if wish else [True])
