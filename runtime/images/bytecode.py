"""Bytecode for a tree of Python sources, the same bytes on every run.

Timestamps play no part (``unchecked-hash``, PEP 552), so that a layer whose modification times
are all alike still starts fast. Run as a script, this module is one of the compiling processes;
it therefore imports the standard library only.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path


def compile_tree(root: Path, installed_at: str, processes: int = 2) -> int:
    """Writes ``__pycache__`` beside every source below a directory, with this interpreter.

    Sources that this Python cannot parse are passed over, as pip does: packages ship templates
    and code for other versions.

    Args:
        root: The directory.
        installed_at: The path that tracebacks are to show in its place.
        processes: How many processes share the work.

    Returns:
        How many files were compiled.

    Raises:
        OSError: A result could not be written.
    """
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    # Big files take turns, so that both processes end together.
    found.sort(key=lambda name: -(root / name).stat().st_size)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["PYTHONHASHSEED"] = "0"
    command = [sys.executable, "-S", "-P", "-X", "utf8", __file__, str(root), installed_at]
    workers = []
    try:
        for number in range(processes):
            names = "\n".join(found[number::processes])
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
            workers.append(worker)
            assert worker.stdin is not None  # noqa: S101
            worker.stdin.write(names.encode("utf-8", "surrogateescape"))
            worker.stdin.close()
        return sum(_finish(worker) for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdout, worker.stderr):
                if pipe is not None:
                    pipe.close()


def _finish(worker: subprocess.Popen[bytes]) -> int:
    assert worker.stdout is not None and worker.stderr is not None  # noqa: S101
    counted = worker.stdout.read()
    complaint = worker.stderr.read().decode(errors="replace").strip()
    if worker.wait() != 0:
        number, _, text = complaint.rpartition("\n")[2].partition(" ")
        raise OSError(int(number) if number.isdigit() else 5, text or "the compiler stopped")
    return int(counted)


def compile_source(source: bytes, shown: str) -> bytes | None:
    """The content of a ``.pyc`` file; None if the source cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source, shown, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, UnicodeError, OverflowError):
        return None
    # marshal marks an object as shareable when anything else refers to it at that moment, such
    # as a module loaded by chance. Holding on to every object here makes that always so.
    held: list[object] = []
    _hold(code, held)
    magic = importlib.util.MAGIC_NUMBER
    unchecked_hash = (0b01).to_bytes(4, "little")
    return magic + unchecked_hash + importlib.util.source_hash(source) + marshal.dumps(code)


def _hold(item: object, held: list[object]) -> None:
    held.append(item)
    if isinstance(item, types.CodeType):
        parts = [
            item.co_code,
            item.co_consts,
            item.co_names,
            item.co_varnames,
            item.co_cellvars,
            item.co_freevars,
            item.co_filename,
            item.co_name,
            item.co_linetable,
            getattr(item, "co_qualname", ""),
            getattr(item, "co_exceptiontable", b""),
        ]
        for part in parts:
            _hold(part, held)
    elif isinstance(item, tuple | frozenset):
        for part in item:
            _hold(part, held)


def _main() -> int:
    root, installed_at = Path(sys.argv[1]), sys.argv[2]
    names = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    tag = sys.implementation.cache_tag
    done = 0
    for name in names.splitlines():
        source = root / name
        compiled = compile_source(source.read_bytes(), f"{installed_at}/{name}")
        if compiled is None:
            continue
        target = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        try:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(compiled)
        except OSError as error:
            sys.stderr.write(f"{error.errno} {error.strerror}")
            return 1
        done += 1
    sys.stdout.write(str(done))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
