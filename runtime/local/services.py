"""Serving a release on this machine: the image in a container, else its bento as a process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bentos import Bento
from ..errors import LocalRunError
from .engines import Engine, usable_engine
from .processes import free_port, last_lines, running, wait_until_answers

START_SECONDS = 120.0
# Other code than the lock's; and no bytecode, which would make every start as slow as the first.
UNWANTED = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
START_COMMAND = ("sh", "-c", "./env/docker/entrypoint.sh bentoml serve . --production")


@dataclass(frozen=True)
class Service:
    """A release that answers on this machine.

    Attributes:
        url: Base URL on the loopback address.
        runtime: podman, docker or process.
        note: Why the image itself does not run, when the runtime is process; else empty.
    """

    url: str
    runtime: str
    note: str = ""


@contextlib.contextmanager
def serve(
    bento: Bento,
    image: str,
    image_location: str,
    directory: Path,
    cancelled: threading.Event | None = None,
) -> Iterator[Service]:
    """Serve an image for the length of a block.

    The image runs in podman or docker where one is usable; otherwise the same bento with the
    same locked dependencies runs as a process, and the note says why.

    Args:
        bento: The bento that the image was made of.
        image: The image by digest.
        image_location: oci:DIRECTORY where its bytes are; anything else means its registry.
        directory: Scratch space for logs, engine storage and the environment of a process.
        cancelled: Ends the start-up early when set.

    Raises:
        LocalRunError: If the service does not become ready.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stopped = cancelled or threading.Event()
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(usable_engine(directory / "containers"))
            name = _taken_in(engine, image, image_location)
            service = stack.enter_context(_in_container(engine, name, directory, stopped))
        except LocalRunError as error:
            stack.close()
            if stopped.is_set():
                raise
            note = error.message.splitlines()[0]
            service = stack.enter_context(_as_process(bento, directory, note, stopped))
        yield service


def _taken_in(engine: Engine, image: str, location: str) -> str:
    scheme, _, layout = location.partition(":")
    return engine.load(Path(layout).resolve()) if scheme == "oci" else engine.pull(image)


@contextlib.contextmanager
def _in_container(
    engine: Engine, image: str, directory: Path, stopped: threading.Event
) -> Iterator[Service]:
    port = free_port()
    name = f"kfp-bento-{os.getpid()}-{port}"
    log = directory / "service.log"
    argv = engine.run_arguments(
        image, name, {"PORT": str(port), "BENTOML_HOST": "127.0.0.1", "BENTOML_DO_NOT_TRACK": "1"}
    )
    try:
        with running(argv, log) as process:
            url = f"http://127.0.0.1:{port}"
            what = f"The image in {engine.name}"
            _wait(url, process, log, what, stopped)
            yield Service(url, engine.name)
    finally:
        engine.remove(name)


@contextlib.contextmanager
def _as_process(
    bento: Bento, directory: Path, note: str, stopped: threading.Event
) -> Iterator[Service]:
    environment = _environment(bento, directory)
    home = directory / "bentoml-home"
    home.mkdir(exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = directory / "service.log"
    inherited = {k: v for k, v in os.environ.items() if k not in UNWANTED}
    variables = inherited | {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment),
        "BENTOML_HOME": str(home.resolve()),
        "BENTO_PATH": str(bento.directory.resolve()),
        "BENTOML_DO_NOT_TRACK": "1",
        "BENTOML_HOST": "127.0.0.1",
        "PORT": str(port),
    }
    with running(START_COMMAND, log, environment=variables, directory=bento.directory) as process:
        _wait(url, process, log, "The bento's process", stopped)
        yield Service(url, "process", note)


def _wait(
    url: str, process: subprocess.Popen[bytes], log: Path, what: str, stopped: threading.Event
) -> None:
    wait_until_answers(
        f"{url}/livez", process, log, seconds=START_SECONDS, what=what, cancelled=stopped
    )


def _environment(bento: Bento, directory: Path) -> Path:
    """Make, or find again, a virtual environment with exactly the bento's locked dependencies."""
    lock = bento.directory / "env" / "python" / "requirements.txt"
    key = hashlib.sha256(lock.read_bytes() + bento.python_version.encode()).hexdigest()[:16]
    environment = (directory / "environments" / key).resolve()
    if environment.exists():
        return environment
    partial = environment.with_name(f"{key}.partial-{os.getpid()}")
    same = bento.python_version == f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = sys.executable if same else bento.python_version
    log = directory / "environment.log"
    try:
        _uv("venv", "--quiet", "--relocatable", "--python", interpreter, str(partial), log=log)
        _uv(
            *("pip", "sync", "--quiet", "--require-hashes"),
            *("--python", str(partial / "bin" / "python"), str(lock)),
            log=log,
        )
        partial.rename(environment)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return environment


def _uv(*arguments: str, log: Path) -> None:
    import uv

    with log.open("ab") as output:
        done = subprocess.run(
            [uv.find_uv_bin(), *arguments], stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise LocalRunError(
            f"The bento's dependencies cannot be installed.\n{last_lines(log)}",
            hint="A process serves the bento where no container engine is usable, and needs the "
            "package index or its cache for that.",
        )
