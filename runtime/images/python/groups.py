"""Which wheels of an environment share a layer, and which have one of their own.

A layer follows from the wheels in it and from nothing else of the lock, so that images share it
as a blob. By far the most bytes of an environment are in a few wheels: each of these is a layer.
The many small ones are spread over a fixed number of layers by their names, so that another
version of one changes its own layer and leaves the others alone. What makes the directory a
virtual environment comes last: no wheel can put anything in its place.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.oci.tar import TarEntry
from kfp_bento.runtime.images.python.bytecode import Compilers
from kfp_bento.runtime.images.python.environment import (
    bytecode_identity,
    installed_wheels,
    own_files,
)
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel, select_wheels

ALONE = 256_000
"""From this size on, in bytes of the wheel file, a wheel gets a layer of its own."""

MOST_ALONE = 36
"""So many have one at most, the largest: Docker allows 127 layers, those of the base among them."""

SHARED = 20
"""Over so many layers all others are spread."""

_TITLED = 3


@dataclass(frozen=True)
class DependencyGroup:
    """Wheels that make one layer of the environment, or what makes it an environment.

    Attributes:
        wheels: Which wheels, in the order of their names; without any, this is the layer of the
            environment's own files (`pyvenv.cfg`, `bin/python` …).
        lock: What to install.
        platform: For which platform the wheels were chosen.
        interpreter: The image's Python, for example `/usr/local/bin/python3.11`.
        bytecode: Which compiler writes the bytecode; empty for none.
    """

    wheels: tuple[Wheel, ...]
    lock: Lock = field(repr=False)
    platform: Platform = field(repr=False)
    interpreter: str = field(repr=False)
    bytecode: str = field(repr=False)

    @property
    def title(self) -> str:
        """For people: `numpy 2.4.6`, `wheels: idna, pytz and six`, `environment (Python 3.11)`."""
        if not self.wheels:
            return f"environment (Python {self.lock.python})"
        if len(self.wheels) == 1:
            return f"{self.wheels[0].name} {self.wheels[0].version}"
        names = [wheel.name for wheel in self.wheels]
        if more := len(names[_TITLED:]):
            return f"wheels: {', '.join(names[:_TITLED])} and {more} more"
        return f"wheels: {', '.join(names[:-1])} and {names[-1]}"

    @property
    def download_size(self) -> int:
        """Bytes of the wheel files."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def own_files(self) -> list[TarEntry]:
        """What makes the directory an environment, in the layer without wheels."""
        return [] if self.wheels else own_files(self.lock.python, self.interpreter)

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that the group's files follow from, as plain JSON values.

        Neither the lock nor the platform is among it: the wheels say it all. The interpreter's
        path is in the environment's own files only, and bytecode is not.
        """
        inputs = {"kind": "dependencies", "python": self.lock.python}
        if not self.wheels:
            return {**inputs, "interpreter": self.interpreter}
        wheels = [wheel.sha256 for wheel in self.wheels]
        return {**inputs, "wheels": wheels, "bytecode": self.bytecode}

    @contextlib.contextmanager
    def prepared(
        self,
        scratch: Path,
        compilers: Compilers,
        progress: Callable[[str], None],
        *,
        spare: Path | None = None,
    ) -> Iterator[Callable[[], Iterable[TarEntry]]]:
        """Make the files ready below `scratch`, until the block ends; see `installed_wheels`.

        Yields:
            A function that lists the layer's members, in order; it may be called again.

        Raises:
            ImageError: As `installed_wheels`.
        """
        if not self.wheels:
            listed = self.own_files
            yield lambda: listed
            return
        progress(f"installing {self.title}")
        with installed_wheels(
            self.wheels,
            self.lock,
            self.platform,
            scratch,
            compilers if self.bytecode else None,
            progress,
            spare=spare,
        ) as listing:
            yield listing


def dependency_groups(
    lock: Lock,
    platform: Platform,
    *,
    interpreter: str,
    wheels: Iterable[Wheel] | None = None,
) -> tuple[DependencyGroup, ...]:
    """Decide on the layers of the environment, from the lowest to the highest.

    Nothing is downloaded or installed for it. Wheels with a layer of their own come first, the
    larger below the smaller: what lies above a changed layer is unpacked again by every node.

    Args:
        lock: What to install.
        platform: For which platform the wheels are chosen.
        interpreter: The image's Python, for example `/usr/local/bin/python3.11`.
        wheels: What `select_wheels` gave for the lock and platform, if it is known already.

    Raises:
        ImageError: See `select_wheels`.
    """
    chosen = select_wheels(lock, platform) if wheels is None else tuple(wheels)
    parts = [*_divided(chosen), ()]
    compiler = bytecode_identity(lock.python)
    return tuple(DependencyGroup(part, lock, platform, interpreter, compiler) for part in parts)


def own_wheels(
    lock: Lock, platform: Platform, *, interpreter: str, wheels: Iterable[Wheel]
) -> tuple[DependencyGroup, ...]:
    """Give the one layer of wheels that are added to an environment below; none without wheels."""
    own, compiler = _by_name(wheels), bytecode_identity(lock.python)
    return (DependencyGroup(own, lock, platform, interpreter, compiler),) if own else ()


def _divided(wheels: Sequence[Wheel]) -> Iterator[tuple[Wheel, ...]]:
    """Give the wheels layer by layer."""
    large = sorted((wheel for wheel in wheels if wheel.size >= ALONE), key=_largest_first)
    alone = large[:MOST_ALONE]
    for wheel in sorted(alone, key=_order):
        yield (wheel,)
    shared: dict[int, list[Wheel]] = {}
    for wheel in set(wheels) - set(alone):
        shared.setdefault(_share(wheel.name), []).append(wheel)
    for _, together in sorted(shared.items()):
        yield _by_name(together)


def _largest_first(wheel: Wheel) -> tuple[int, str]:
    return -wheel.size, wheel.name


def _order(wheel: Wheel) -> tuple[int, str]:
    """Order layers by the power of two below their size, so that most versions keep their place."""
    return -wheel.size.bit_length(), wheel.name


def _share(name: str) -> int:
    """Give the number of the layer that a wheel shares with others: its name alone decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % SHARED


def _by_name(wheels: Iterable[Wheel]) -> tuple[Wheel, ...]:
    return tuple(sorted(wheels, key=lambda wheel: wheel.name))
