"""Looking at the bytes of files: what they are by content, what is packed in them, what they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kfp_bento.runtime.files import parse_json_value
from kfp_bento.runtime.scan.documents import hdf5_problems, keras_problems, skops_names
from kfp_bento.runtime.scan.finding import Finding, Severity
from kfp_bento.runtime.scan.judgement import judge
from kfp_bento.runtime.scan.layout import LONGEST_MODULE_FILE, module_file_finding, native_finding
from kfp_bento.runtime.scan.limits import LimitReached
from kfp_bento.runtime.scan.machine import OVER_FRAME
from kfp_bento.runtime.scan.packed import (
    Member,
    closed_format,
    compression,
    escapes,
    is_tar,
    tar_members,
    unpacked,
    zip_members,
)
from kfp_bento.runtime.scan.pickles import Pickled, looks_like_pickle, read_pickles
from kfp_bento.runtime.scan.protobuf import external_files, operations
from kfp_bento.runtime.scan.values import words
from kfp_bento.runtime.scan.zips import is_zip

if TYPE_CHECKING:
    from kfp_bento.runtime.scan.limits import Budget
    from kfp_bento.runtime.scan.source import Source

_HEAD = 1024
_LARGEST_DOCUMENT = 64 << 20
_OVERLAP = 4096
_NPY = b"\x93NUMPY"
_OBJECTS = re.compile(rb"['\"][|<>=]?O\d?['\"]")
# States with them make statsmodels evaluate the formula beside them (`statsmodels/base/data.py`).
FORMULAS = words("restore_design_info restore_model_spec")
_FILE_OPERATIONS = words("ReadFile WriteFile MatchingFiles PyFunc PyFuncStateless EagerPyFunc")
_ANEW = "Log the model anew, or pull it again; do not load what cannot be read."
_NEVER = "Do not load it. Ask who logged it, and log it anew."


class Contents:
    """Looks at files, one after another.

    Args:
        lists: The lists of harmless names that count.
        own_modules: Modules in the model's own code folders.
        budget: What is left of the scan's limits.
        found: Takes each finding.
    """

    def __init__(
        self,
        lists: tuple[str, ...],
        own_modules: frozenset[str],
        budget: Budget,
        found: Callable[[Finding], None],
    ) -> None:
        self._lists, self._own, self._budget, self._found = lists, own_modules, budget, found

    def look(self, path: str, source: Source, depth: int = 0, *, embedded: bool = False) -> None:
        """Look at a file, or at what is packed in one.

        Args:
            path: Its path; what is packed in a file stands behind `!`.
            source: Its bytes.
            depth: How deep it is packed.
            embedded: Whether it is just bytes in a pickle, which may look like anything.

        Raises:
            LimitReached: There is too much.
        """
        if depth > self._budget.limits.depth:
            raise LimitReached(f"it is packed more than {self._budget.limits.depth} times")
        head = source.read_at(0, _HEAD)
        if not head:
            return
        if not embedded and (native := native_finding(path, head)):
            self._found(native)
        if is_zip(source):
            self._members(path, zip_members(source, self._budget), depth, embedded)
        if is_tar(head):
            self._members(path, tar_members(source, self._budget), depth, embedded)
        if kind := compression(head):
            self._compressed(path, source, kind, depth, embedded)
        if (kind := closed_format(head)) and not embedded:
            self._unreadable(path, f"it is packed as {kind}, which is not looked into")
        if head.startswith(_NPY):
            self._array(path, source, head, depth)
        else:
            self._pickles(path, source, 0, depth, strict=looks_like_pickle(head) and not embedded)
        if not embedded:
            self._documents(path, source, head)

    # Containers.

    def _members(self, path: str, members: Iterator[Member], depth: int, embedded: bool) -> None:
        for one in members:
            inner = f"{path}!{one.name}"
            if one.problem and not (embedded and one.content is None):
                severity = Severity.DANGEROUS if escapes(one.name) else Severity.UNKNOWN
                why = f"In an archive: {one.problem}."
                self._found(Finding(severity, inner, inner, why, _ANEW))
            if one.content is not None:
                self.look(inner, one.content, depth + 1)

    def _compressed(self, path: str, source: Source, kind: str, depth: int, embedded: bool) -> None:
        with unpacked(source, kind, self._budget) as (content, problem):
            # Two bytes are not much of a sign: what does not unpack at all was no such stream.
            if problem and not embedded and (content.size or kind not in ("zlib", "lzma")):
                self._unreadable(path, problem)
            if content.size:
                self.look(f"{path}!", content, depth + 1, embedded=embedded)

    # Pickles.

    def _array(self, path: str, source: Source, head: bytes, depth: int) -> None:
        """Look at an array in NumPy's own format: objects in it are a pickle."""
        width = 2 if head[6:7] == b"\x01" else 4
        size = int.from_bytes(head[8 : 8 + width], "little")
        start = 8 + width + size
        header = source.read_at(8 + width, min(size, _LARGEST_DOCUMENT))
        behind = source.read_at(start, 2)
        objects = bool(_OBJECTS.search(header))
        if objects or looks_like_pickle(behind):
            self._pickles(path, source, start, depth, strict=objects)

    def _pickles(self, path: str, source: Source, start: int, depth: int, *, strict: bool) -> None:
        """Look at pickles that begin at a place.

        Args:
            path: The path of the file.
            source: The file.
            start: Where they begin.
            depth: How deep it is packed.
            strict: Whether it is a pickle for certain, so that it counts if it cannot be read.
        """
        pickled = read_pickles(source, start, self._budget, watched=FORMULAS)
        if strict or _credible(pickled):
            self._tell(path, pickled, strict)
        elif not pickled.whole:
            return
        for blob in pickled.blobs:
            inner = source.part(blob.start, blob.size)
            if blob.size >= 4 and _may_hold_more(inner):
                self.look(f"{path}!bytes at {blob.start}", inner, depth + 1, embedded=True)

    def _tell(self, path: str, pickled: Pickled, strict: bool) -> None:
        """Give the findings of pickles."""
        for name, called in sorted(pickled.names.items(), key=lambda item: str(item[0])):
            if verdict := judge(name, called, self._lists, self._own):
                severity, why, advice = verdict
                shown = name.module if severity is Severity.CODE else str(name)
                self._found(Finding(severity, path, shown, why, advice))
        for puzzle in pickled.puzzles:
            shown = f"{path}: {puzzle}"
            why = "A pickle of a model has no need for that, and what it does cannot be followed."
            self._found(Finding(Severity.DANGEROUS, path, shown, why, _NEVER))
        if pickled.texts:
            why = "It holds a formula of statsmodels, which is evaluated as code when it is loaded."
            advice = "Read the formula; allow it by this name, or fit the model without one."
            self._found(Finding(Severity.CODE, path, f"{path}: formula", why, advice))
        if pickled.problem and (pickled.names or strict):
            problem = f"it is no whole pickle: {pickled.problem}; what is before that still runs"
            self._unreadable(path, problem)

    # Documents.

    def _documents(self, path: str, source: Source, head: bytes) -> None:
        name = PurePosixPath(path.rpartition("!")[2]).name
        if found := module_file_finding(path, source.read_at(0, LONGEST_MODULE_FILE)):
            self._found(found)
        if name == "schema.json" and "!" in path:
            self._skops(path, source)
        elif name == "config.json" and "!" in path:
            self._keras(path, source)
        elif head.startswith(b"\x89HDF\r\n"):
            self._hdf5(path, source)
        elif name in ("saved_model.pb", "graph.pb", "frozen_graph.pb"):
            self._protocol_buffer(path, source, operations, _operation)
        elif name.endswith(".onnx") or _like_onnx(head):
            self._protocol_buffer(path, source, external_files, _external_file)

    def _skops(self, path: str, source: Source) -> None:
        try:
            names = list(skops_names(_json(source)))
        except ValueError as failure:
            self._unreadable(path, str(failure))
            return
        for name, called in names:
            if verdict := judge(name, called, self._lists, self._own):
                severity, why, advice = verdict
                self._found(Finding(severity, path, str(name), why, advice))

    def _keras(self, path: str, source: Source) -> None:
        try:
            problems = list(keras_problems(_json(source)))
        except ValueError as failure:
            self._unreadable(path, str(failure))
            return
        for severity, name, why in problems:
            advice = "Read what it does; allow it by this name, or log the model without it."
            self._found(Finding(severity, path, name, why, advice))

    def _hdf5(self, path: str, source: Source) -> None:
        before = b""
        for _, piece in source.pieces():
            self._budget.look_at_clock()
            for severity, name, why in hdf5_problems(before + piece):
                advice = "Read what it does; allow it by this name, or log the model without it."
                self._found(Finding(severity, path, name, why, advice))
            before = piece[-_OVERLAP:]

    def _protocol_buffer(
        self,
        path: str,
        source: Source,
        texts: Callable[[Source, Budget], Iterator[str]],
        finding: Callable[[str, str], Finding | None],
    ) -> None:
        try:
            for text in texts(source, self._budget):
                if found := finding(path, text):
                    self._found(found)
        except ValueError as failure:
            self._unreadable(path, str(failure))

    def _unreadable(self, path: str, problem: str) -> None:
        why = f"{problem[:1].upper()}{problem[1:]}."
        self._found(Finding(Severity.UNKNOWN, path, path, why, _ANEW))


def _credible(pickled: Pickled) -> bool:
    """Tell whether what read like a pickle is one, and not some text or numbers."""
    if OVER_FRAME in pickled.puzzles:
        return True
    if not pickled.names and not pickled.puzzles:
        return False
    plain = all(
        part.isidentifier()
        for name in pickled.names
        for part in f"{name.module}.{name.name}".split(".")
    )
    return pickled.acts or (pickled.whole and plain and bool(pickled.names))


def _may_hold_more(source: Source) -> bool:
    head = source.read_at(0, 512)
    return (
        looks_like_pickle(head)
        or head.startswith((_NPY, b"PK\x03\x04"))
        or bool(compression(head))
        or is_tar(head)
    )


def _like_onnx(head: bytes) -> bool:
    """Tell whether something begins as ONNX models do: its version, then who made it."""
    return (
        len(head) > 16 and head[0] == 8 and 0 < head[1] < 32 and head[2:3] in (b"\x12", b"B", b":")
    )


def _json(source: Source) -> object:
    if source.size > _LARGEST_DOCUMENT:
        raise ValueError(f"it is larger than {_LARGEST_DOCUMENT} bytes")
    return parse_json_value(source.read_at(0, source.size), nan=True)


def _external_file(path: str, location: str) -> Finding | None:
    if not escapes(location):
        return None
    why = "It takes the bytes of a tensor from a file outside of the model's folder."
    return Finding(Severity.DANGEROUS, path, location, why, _NEVER)


def _operation(path: str, name: str) -> Finding | None:
    if name not in _FILE_OPERATIONS:
        return None
    why = "The graph reads or writes files, or calls Python, when it is run."
    return Finding(Severity.DANGEROUS, path, f"tensorflow {name}", why, _NEVER)
