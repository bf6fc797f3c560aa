"""One command, run as a whole process and measured from its start to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 900
_INTERVAL = 0.01
# Of one core, at most this much goes into watching.
_SHARE = 0.03


class CommandFailed(Exception):
    """A measured command ended with an error; the message holds its last words."""


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants used.

    Attributes:
        seconds: From its start to its end.
        cpu_seconds: User and system time, all descendants included.
        bytes_read: Bytes that they took out of files and pipes with read calls (`rchar` of
            /proc/PID/io): what comes from the page cache counts, what is mapped does not.
        peak_rss: The largest sum, over the process tree, of memory that is not the page cache's
            (RssAnon + RssShmem), looked at every 10 ms, or less often if the tree is large; 0 if
            nobody looked.
        output: What it wrote to standard output.
    """

    seconds: float
    cpu_seconds: float
    bytes_read: int
    peak_rss: int
    output: str

    def __add__(self, other: Usage) -> Usage:
        """One after the other."""
        return Usage(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.bytes_read + other.bytes_read,
            max(self.peak_rss, other.peak_rss),
            self.output + other.output,
        )


def run(
    command: Sequence[object],
    environment: Mapping[str, str],
    log: Path,
    *,
    cwd: Path | None = None,
    watch_memory: bool = False,
) -> Usage:
    """Run a command to its end.

    Raises:
        CommandFailed: It ended with an error, or took longer than 15 minutes.
    """
    output = log.with_suffix(".out")
    with output.open("wb") as out, log.open("wb") as complaints:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=complaints,
            start_new_session=True,
        )
    with _ended_at_last(process), _memory_of(process.pid, watch_memory) as peaks:
        # The process is left as a zombie, because /proc still has its figures.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.monotonic() - began
        bytes_read = _bytes_read(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text(errors="replace")
    if process.returncode:
        said = (text + log.read_text(errors="replace")).strip()[-1500:]
        raise CommandFailed(f"{command[0]} ended with {process.returncode}:\n{said}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Usage(seconds, cpu_seconds, bytes_read, max(peaks, default=0), text)


@contextlib.contextmanager
def _ended_at_last(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process group after too long a time, and when this process is told to stop."""
    alarm = threading.Timer(SECONDS, _end, (process.pid,))
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
        if process.returncode is None:
            _end(process.pid)
            process.wait()


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def _memory_of(pid: int, wanted: bool) -> Iterator[list[int]]:
    """Look at the memory of a process tree again and again; the list gets a single peak."""
    peaks: list[int] = []
    if not wanted:
        yield peaks
        return
    done = threading.Event()

    def look() -> None:
        peak, pause, copies = 0, _INTERVAL, set[int]()
        while not done.wait(pause):
            began = time.thread_time()
            tree = [*process_tree(pid)]
            now = {each for each in tree if _has_its_parents_program(each)}
            # At the first look it may be about to start; at the second it is a worker.
            peak = max(peak, sum(own_memory(each) for each in tree if each not in now - copies))
            copies = now
            pause = max(_INTERVAL, (time.thread_time() - began) / _SHARE)
        peaks.append(peak)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def process_tree(pid: int) -> Iterator[int]:
    """Give a process and its descendants, as far as they have not ended."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from process_tree(int(child))


def _has_its_parents_program(pid: int) -> bool:
    """Tell whether a process is a copy of its parent: a worker, or not yet at its own program.

    Until it is, its memory is its parent's, and each of many short programs would be counted as
    one more of what starts it.
    """
    with contextlib.suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        parent = int(stat.rpartition(")")[2].split()[1])
        one, other = (Path(f"/proc/{each}/cmdline").read_bytes() for each in (pid, parent))
        return one == other
    return False


def own_memory(pid: int) -> int:
    """Bytes of a process's memory that no file backs; 0 if it has ended."""
    kibibytes = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                kibibytes += int(line.split()[1])
    return kibibytes << 10


def _bytes_read(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    return 0
