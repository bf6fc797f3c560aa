"""A shell that walks through a page: each command by itself, in one folder, after the others."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import stop_group

PATIENCE = 420.0
"""Seconds that a command may take."""
STAYS = {
    r"^kfp-bento bento serve ": r" answers at http",
    r"^kfp-bento requests record ": r"^Ask http",
    r"^kfp-bento run .* --keep$": r"until Ctrl-C",
    r"^kfp-bento watch (?!.*--render)": r" submitted ",
    r"^mlflow server ": r"startup complete",
}
"""What goes on until Ctrl-C, and what it says once it can be asked."""
ASKS = re.compile(r"^kfp-bento (bento|release) delete ")
"""What asks whether it shall, of whom it answers to on a terminal."""
_MARK = re.compile(r"\.\.\.|…|[0-9a-f]{8,}|\d[\d.,:-]*|/(?:tmp|home)/[\w./-]+", re.ASCII)


def stays(command: str) -> str:
    """What a command says when it is ready to be asked; "" where it ends by itself."""
    joined = command.replace("\\\n", " ")
    return next((says for begins, says in STAYS.items() if re.search(begins, joined)), "")


def unlike(shown: tuple[str, ...], told: str) -> list[str]:
    """Gives what a page shows and nobody said, where numbers and `...` may be anything."""
    lines, missing, place = told.splitlines(), [], 0
    for one in shown:
        if not one.strip() or one.strip() in ("...", "…"):
            continue
        pattern = re.compile(r"\s+".join(map(_pattern, one.split())))
        found = next((n for n in range(place, len(lines)) if pattern.search(lines[n])), None)
        if found is None:
            missing.append(one)
        else:
            place = found + 1
    return missing


def _pattern(word: str) -> str:
    made, place = "", 0
    for mark in _MARK.finditer(word):
        anything = r".*" if mark[0] in ("...", "…") else r"\S*"
        made += re.escape(word[place : mark.start()]) + anything
        place = mark.end()
    return made + re.escape(word[place:])


@dataclass
class Shell:
    """Runs commands as they stand, and ends what goes on.

    Attributes:
        folder: Where a reader of the page is.
        environment: The variables of that reader.
        running: What goes on, and the file with what it says.
        ended: What went on, its code and what it said.
    """

    folder: Path
    environment: Mapping[str, str]
    running: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    ended: list[tuple[str, int, str]] = field(default_factory=list)

    def run(self, text: str) -> tuple[int, str]:
        """Gives the exit code and everything that was said, errors too."""
        if ready := stays(text):
            return self._start(text, ready)
        script = self._script(text)
        output = self.folder.with_name("output")
        with _terminal() if ASKS.match(text) else contextlib.nullcontext() as answers:
            process = self._popen(script, output, answers)
            try:
                code = process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                stop_group(process)
                code = 124
        return code, output.read_text(errors="replace")

    def end(self, only: str = "") -> list[tuple[str, int, str]]:
        """Ends what goes on as people do, with Ctrl-C; gives it, its code and what it said."""
        ended, self.ended = self.ended, []
        for one in [one for one in self.running if only in ("", one[0])]:
            text, process, output = one
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                code = process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                code = 124
            stop_group(process)
            ended.append((text, code, output.read_text(errors="replace")))
            self.running.remove(one)
        return ended

    def _start(self, text: str, ready: str) -> tuple[int, str]:
        # Shown twice it is run twice: the first one has been ended then.
        self.ended = self.end(text)
        output = self.folder.with_name(f"output-{next(self.numbers)}")
        process = self._popen(self._script(text, keep=False), output)
        self.running.append((text, process, output))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            if re.search(ready, output.read_text(errors="replace"), re.MULTILINE):
                return 0, output.read_text(errors="replace")
            time.sleep(0.05)
        if process.poll() is not None:
            self.running.pop()
        return process.poll() or 124, output.read_text(errors="replace")

    def _script(self, text: str, *, keep: bool = True) -> str:
        """What was exported before counts, as in one terminal."""
        state = self.folder.with_name("exported")
        lines = [f"[ ! -e {state} ] || . {state}", text if keep else f"exec {text}"]
        if keep:
            lines += ["code=$?", f"export -p > {state}", "exit $code"]
        return "\n".join(lines)

    def _popen(self, script: str, output: Path, answers: Any = None) -> subprocess.Popen[bytes]:
        with output.open("wb") as stream:
            return subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                env=dict(self.environment),
                stdin=answers or subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """A terminal at which somebody has said yes."""
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)
