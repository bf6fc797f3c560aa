"""Bytecode for a tree of Python sources, the same bytes on every run.

Timestamps play no part (`unchecked-hash`, PEP 552), so that a layer whose modification times
are all alike still starts fast. The bytes do depend on the exact release of Python: of the
modules of a hundred wheels, one in a hundred comes out differently from 3.11.2 and 3.11.7, with
the same magic number.

Run as a script, this module is one of the compiling processes; it therefore imports the standard
library only.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.util
import marshal
import os
import queue
import re
import sys
import threading
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

# What a process takes at a time: little enough that all of them end together.
_BATCH_BYTES = 256 << 10
_BATCH_FILES = 64
_MOST_PROCESSES = 8
_MEMORY = 8 << 30
# Modules that only a test runner ever loads, by pytest's naming.
_TEST_MODULE = re.compile(r"(?:^|/)tests?/(?:.*/)?(?:test_[^/]*|[^/]*_test|conftest)\.py$")


def wants_bytecode(path: str) -> bool:
    """Tell whether a file is a module that a program may import: no test module of a test folder.

    A quarter of the source in an environment for machine learning is tests. They stay where they
    are, and Python compiles one that is imported after all.
    """
    return path.endswith(".py") and not _TEST_MODULE.search(path)


def cache_path(source: str) -> str:
    """Where this interpreter looks for the bytecode of a source (PEP 3147)."""
    folder, _, name = source.rpartition("/")
    file = f"__pycache__/{name.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
    return f"{folder}/{file}" if folder else file


class Compilation:
    """Bytecode that is being written beside the sources of one tree.

    Sources that this Python cannot parse are passed over, as pip does: packages ship templates
    and code for other versions.

    Args:
        root: The directory of the sources.
        installed_at: The path that tracebacks are to show in its place.
        compilers: The processes that do it.
    """

    def __init__(self, root: Path, installed_at: str, compilers: Compilers) -> None:
        self._where = (str(root), installed_at)
        self._compilers = compilers
        self._batch: list[str] = []
        self._batch_bytes = 0
        self._asked: list[str] = []
        self._outcomes: dict[str, bool] = {}
        self._failure: OSError | None = None
        self._under_way = 0
        self._closed = False

    def add(self, name: str, size: int) -> None:
        """Have a source compiled: its path below the root and its size in bytes."""
        self._asked.append(name)
        self._batch.append(name)
        self._batch_bytes += size
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_FILES:
            self.flush()

    def flush(self) -> None:
        """Hand over what was added; nothing may be waited for before."""
        if self._batch:
            self._compilers.ask(self, self._batch)
        self._batch, self._batch_bytes = [], 0

    def wrote(self, name: str) -> bool:
        """Wait for a source; says whether there is bytecode for it.

        Raises:
            OSError: A process could not write, or ended.
        """
        if name not in self._outcomes:
            news = self._compilers.news
            with news:
                news.wait_for(lambda: self._failed or name in self._outcomes)
        if name not in self._outcomes and (failure := self._failed):
            raise OSError(*failure.args)
        return self._outcomes[name]

    def count(self) -> int:
        """Wait for everything that was added; says how many sources have bytecode."""
        self.flush()
        return sum(self.wrote(name) for name in self._asked)

    def close(self) -> None:
        """Let nothing more be written: what is under way is waited for, the rest is dropped."""
        with self._compilers.news:
            self._closed = True
            self._compilers.news.wait_for(lambda: self._failed or not self._under_way)

    @property
    def _failed(self) -> OSError | None:
        return self._failure or self._compilers.failure

    def order(self, batch: Sequence[str]) -> bytes:
        """Give what a process is told of a batch."""
        return "\0".join((*self._where, *batch)).encode("utf-8", "surrogateescape")

    def begin(self) -> bool:
        """Note that a batch is being sent; says whether it is wanted still."""
        with self._compilers.news:
            self._under_way += not self._closed
            return not self._closed

    def end(self, batch: Sequence[str], outcomes: Sequence[bool] | OSError) -> None:
        """Note what became of a batch."""
        with self._compilers.news:
            self._under_way -= 1
            if isinstance(outcomes, OSError):
                self._failure = self._failure or outcomes
            else:
                self._outcomes.update(zip(batch, outcomes, strict=True))
            self._compilers.news.notify_all()


_Job = tuple[Compilation, Sequence[str]]


class Compilers:
    """Processes that compile with this interpreter, for several trees and threads at once.

    They are started when the first source is handed over, and end with the block.

    Args:
        processes: How many share the work; as many as there are processors, up to eight, if 0.
    """

    def __init__(self, processes: int = 0) -> None:
        self._processes = processes
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._running = contextlib.ExitStack()
        self._starting = threading.Lock()
        self.news = threading.Condition()
        self.failure: OSError | None = None

    def __enter__(self) -> Compilers:
        return self

    def __exit__(self, *_: object) -> None:
        with self.news:
            self.failure = self.failure or OSError(errno.ECANCELED, "the build has ended")
            self.news.notify_all()
        for worker in self._workers:
            worker.kill()
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._running.close()
        for worker in self._workers:
            _close(worker)

    @contextlib.contextmanager
    def compilation(self, root: Path, installed_at: str) -> Iterator[Compilation]:
        """Compile sources of a tree; nothing is written to it any more after the block.

        Args:
            root: The directory of the sources; it need not be there yet.
            installed_at: The path that tracebacks are to show in its place.
        """
        work = Compilation(root, installed_at, self)
        try:
            yield work
        finally:
            work.close()

    def ask(self, work: Compilation, batch: Sequence[str]) -> None:
        """Have a batch compiled by whichever process is free."""
        with self._starting:
            if not self._workers:
                self._start()
        self._jobs.put((work, batch))

    def _start(self) -> None:
        # Not at the top of the module: as a script it has the standard library only.
        from kfp_bento.runtime.programs import clean_environment, start_program

        environment = clean_environment(PYTHONHASHSEED="0")
        command = [sys.executable, "-S", "-P", "-X", "utf8", __file__]
        for _ in range(self._processes or _processors()):
            started = start_program(command, environment=environment, memory=_MEMORY)
            worker = self._running.enter_context(started)
            thread = threading.Thread(target=self._feed, args=(worker,), daemon=True)
            self._workers.append(worker)
            self._threads.append(thread)
            thread.start()

    def _feed(self, worker: subprocess.Popen[bytes]) -> None:
        """Give batches to one process until there are no more; runs in a thread of its own."""
        asked: _Job | None = None
        try:
            while True:
                job = self._next(wait=asked is None)
                if job and job[0].begin():
                    _ask(worker, job[0].order(job[1]))
                elif job:
                    continue
                # One batch ahead where there is one, so that the process need not wait for us.
                if asked:
                    asked[0].end(asked[1], _answer(worker, asked[1]))
                if job is None:
                    return
                asked = job or None
        except OSError as error:
            with self.news:
                self.failure = self.failure or error
                self.news.notify_all()

    def _next(self, *, wait: bool) -> _Job | tuple[()] | None:
        try:
            return self._jobs.get(block=wait)
        except queue.Empty:
            return ()


def compile_tree(root: Path, installed_at: str, processes: int = 0) -> int:
    """Write `__pycache__` beside the sources below a directory, with this interpreter.

    Args:
        root: The directory.
        installed_at: The path that tracebacks are to show in its place.
        processes: How many processes share the work; see `Compilers`.

    Returns:
        How many files were compiled.

    Raises:
        OSError: A result could not be written.
    """
    with Compilers(processes) as compilers, compilers.compilation(root, installed_at) as work:
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if wants_bytecode(name):
                work.add(name, path.stat().st_size)
        return work.count()


def compile_source(source: bytes, shown: str) -> bytes | None:
    """Give the content of a `.pyc` file; None if the source cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source, shown, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, UnicodeError, OverflowError):
        return None
    # marshal marks an object as shareable when anything else refers to it at that moment, such
    # as a module loaded by chance. Holding on to every object here makes that always so.
    held: list[object] = [code]
    _hold_code(code, held)
    magic = importlib.util.MAGIC_NUMBER
    unchecked_hash = (0b01).to_bytes(4, "little")
    return magic + unchecked_hash + importlib.util.source_hash(source) + marshal.dumps(code)


def _hold_code(code: types.CodeType, held: list[object]) -> None:
    held += (
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_filename,
        code.co_name,
        code.co_linetable,
        getattr(code, "co_qualname", ""),
        getattr(code, "co_exceptiontable", b""),
    )
    held += code.co_names
    held += code.co_varnames
    held += code.co_cellvars
    held += code.co_freevars
    _hold_constants(code.co_consts, held)


def _hold_constants(items: Iterable[object], held: list[object]) -> None:
    for item in items:
        held.append(item)
        if isinstance(item, types.CodeType):
            _hold_code(item, held)
        elif isinstance(item, tuple | frozenset):
            _hold_constants(item, held)


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    # A pod on a large node may use a fraction of its processors (cgroup v2).
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, max(1, round(int(quota) / int(period))))
    return min(available, _MOST_PROCESSES)


def _ask(worker: subprocess.Popen[bytes], message: bytes) -> None:
    assert worker.stdin is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError):  # the answer says why
        worker.stdin.write(len(message).to_bytes(4, "big") + message)
        worker.stdin.flush()


def _answer(worker: subprocess.Popen[bytes], batch: Sequence[str]) -> list[bool] | OSError:
    """Give whether there is bytecode of each source, or why one could not be written."""
    assert worker.stdout is not None  # noqa: S101
    failure = worker.stdout.read(1)
    if failure and failure[0]:
        return OSError(failure[0], os.strerror(failure[0]))
    answer = worker.stdout.read(len(batch))
    if len(answer) < len(batch):
        raise OSError(5, "the compiler stopped")
    return [outcome == 1 for outcome in answer]


def _close(worker: subprocess.Popen[bytes]) -> None:
    worker.wait()
    for pipe in (worker.stdin, worker.stdout, worker.stderr):
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()


def _main() -> int:
    # Compiling makes no cycles worth collecting.
    gc.disable()
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    while length := orders.read(4):
        message = orders.read(int.from_bytes(length, "big"))
        root, installed_at, *names = message.decode("utf-8", "surrogateescape").split("\0")
        try:
            done = bytes(_compile_file(root, name, installed_at) for name in names)
            answers.write(b"\0" + done)
        except OSError as error:
            answers.write(bytes([error.errno or 5]))
        answers.flush()
    return 0


def _compile_file(root: str, name: str, installed_at: str) -> bool:
    with open(f"{root}/{name}", "rb") as file:  # noqa: PTH123
        compiled = compile_source(file.read(), f"{installed_at}/{name}")
    if compiled is None:
        return False
    target = Path(f"{root}/{cache_path(name)}")
    target.parent.mkdir(exist_ok=True)
    # A wheel may bring bytecode, as a hard link into uv's cache: replaced, never written to.
    target.unlink(missing_ok=True)
    target.write_bytes(compiled)
    return True


if __name__ == "__main__":
    raise SystemExit(_main())
