"""What a bento is, for people who look at one."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.bento_file import Api, BentoFile, read_bento_file
from kfp_bento.runtime.bentos.service_source import spoken_protocols
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.models import model_files

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos.bento import Bento

_LOCK = Path("env", "python", "requirements.txt")
_LOCK_LIMIT = 16 << 20
_PINNED = re.compile(r"^[A-Za-z0-9][\w.-]*(?:\[[\w.,-]*\])? *(?:===?|@)", re.MULTILINE)
_HASHED = re.compile(r"--hash[= ]")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?:[:=][\w.+:~-]+)?")
_INSTALL = re.compile(r"\bapt-get(?: -\S+)* install ([^&|;\n]*)")


@dataclass(frozen=True)
class BentoLock:
    """The list of what a bento's environment consists of.

    Attributes:
        packages: How many versions it pins.
        size: Bytes.
        hashed: Whether it has hashes, without which nothing is installed from it.
    """

    packages: int
    size: int
    hashed: bool


@dataclass(frozen=True)
class BentoDescription:
    """What `describe_bento` gives.

    Attributes:
        bento: The bento.
        size: Bytes of all files.
        routes: Where the service answers, as far as its bento.yaml says it.
        protocols: What a generated service speaks besides; see `Speech`.
        lock: Its lock; None where it has none.
        base_image: The base that it asks for, or "".
        system_packages: Debian packages that it asks for.
        variables: Names of the environment variables that it sets or asks for.
    """

    bento: Bento
    size: int
    routes: tuple[Api, ...]
    protocols: tuple[str, ...]
    lock: BentoLock | None
    base_image: str
    system_packages: tuple[str, ...]
    variables: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the value as JSON-able data."""
        return {
            **self.bento.to_dict(),
            "size": self.size,
            "routes": [asdict(route) for route in self.routes],
            "protocols": list(self.protocols),
            "lock": self.lock and asdict(self.lock),
            "base_image": self.base_image,
            "system_packages": list(self.system_packages),
            "variables": list(self.variables),
        }


def describe_bento(bento: Bento) -> BentoDescription:
    """Look at a bento, without running any of it.

    Args:
        bento: What `load_bento` gave.

    Raises:
        BentoError: Its bento.yaml cannot be read.
    """
    file = read_bento_file(bento.directory)
    files = model_files(bento.directory, leave_out=frozenset())
    return BentoDescription(
        bento=bento,
        size=sum(path.stat().st_size for path in files.values()),
        routes=file.apis,
        protocols=spoken_protocols(bento),
        lock=_lock(bento.directory),
        base_image=file.base_image,
        system_packages=_system_packages(file),
        variables=tuple(dict.fromkeys(variable.name for variable in file.environment)),
    )


def _lock(directory: Path) -> BentoLock | None:
    try:
        content = read_small_file(directory / _LOCK, _LOCK_LIMIT)
    except (OSError, ValueError):
        return None
    text = content.decode("utf-8", "replace")
    return BentoLock(len(_PINNED.findall(text)), len(content), bool(_HASHED.search(text)))


def _system_packages(file: BentoFile) -> tuple[str, ...]:
    """Give those of `docker.system_packages`, and those that a command installs."""
    found = [listed.shown for listed in file.system_packages]
    for command in (*file.commands, *file.post_commands):
        for words in _INSTALL.findall(command.text):
            found += [word for word in words.split() if _PACKAGE.fullmatch(word)]
    return tuple(dict.fromkeys(found))
