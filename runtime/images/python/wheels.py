"""Which wheels an image gets, decided from the lock before anything is downloaded.

uv reads the lock and the index for the image's platform, and evaluates environment markers for
it. Of the files it lists, only those count whose SHA-256 the lock holds; among them the order of
compatibility tags decides (PEP 425). So a selection follows from the lock alone: a file that is
uploaded later has a hash that no older lock holds. A file that is taken off the index can make a
selection fail, or fall to another file of the lock, never to an unknown one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import ssl
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import urllib3
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidWheelFilename,
    canonicalize_name,
    parse_wheel_filename,
)

from kfp_bento.runtime import programs
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import parse_toml
from kfp_bento.runtime.files.directories import scratch_inside
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.image import Platform, is_digest
from kfp_bento.runtime.images.python.requirements import (
    addresses_in,
    installer_line,
    option_in,
    requirement_lines,
    says_where,
    variables_in,
)
from kfp_bento.runtime.programs.uv import account_for

BIG_WHEEL = 64_000_000
"""From this size on, in bytes of the wheel file, a wheel gets a layer of its own."""

MOST_BIG_GROUPS = 12
"""Containers may have 127 layers, and pulls gain nothing beyond a few."""

GLIBC = (2, 28)
"""Debian 10, RHEL 8, Ubuntu 20.04 and everything newer."""

# Raised whenever the same lock comes to give another selection.
_RULES = 1
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# PEP 599, 571 and 513: names from before manylinux wheels carried the version of glibc.
_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
_OLDEST_GLIBC = {"x86_64": (2, 5), "aarch64": (2, 17)}
_HASH = re.compile(r"\s--hash[= ](\w+):([0-9a-fA-F]+)")
_VERSION_CONTROL = re.compile(r"(?:^|@\s*)(?:git|hg|svn|bzr)\+")
_SOURCES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
# Servers of packages hold back clients that open more at once.
_CONNECTIONS = 8
_SECONDS = 10.0
_UV_SECONDS = 3600.0


@dataclass(frozen=True)
class Lock:
    """A hash-locked requirements list.

    Attributes:
        file: The requirements file.
        folder: Where relative paths in it start.
        python: Minor version of the interpreter that will import the packages: ``3.11``.
        own: Whether it is a list of the user's own, who may name accounts and variables in it.
    """

    file: Path
    folder: Path
    python: str
    own: bool = True

    @property
    def digest(self) -> str:
        """What the environment follows from: the list, and the local wheels it points to."""
        digest = hashlib.sha256(self.file.read_bytes())
        for wheel in sorted(self.folder.glob("wheels/*")):
            digest.update(f"\0{wheel.name}\0".encode())
            digest.update(bytes.fromhex(_sha256(wheel)))
        return digest.hexdigest()

    def lines(self) -> Iterator[str]:
        """Its lines, continued ones joined, without comments and empty ones.

        Raises:
            ImageError: It cannot be read.
        """
        return requirement_lines(self.file)

    def options(self) -> Iterator[str]:
        """Its options that say where packages are, with paths made absolute.

        No other counts: one of the list would win over ours, and have code built and run.

        Raises:
            ImageError: It includes another file, or has another option that no list may have.
        """
        for line in self.lines():
            found = option_in(line)
            if found is None:
                continue
            option, value = found
            if not says_where(option, own=self.own):
                continue
            if option in {"-f", "--find-links"} and "://" not in value:
                value = str((self.file.parent / value).absolute())
            yield f"{option} {value}".rstrip()


@dataclass(frozen=True)
class Wheel:
    """One wheel that goes into the image.

    Attributes:
        name: Normalised name of the distribution.
        version: Its version.
        filename: ``name-version-…-tags.whl``.
        sha256: Of the file, in hex.
        size: Of the file in bytes; 0 if neither the index nor the server says it.
        source: How the lock names it if not by name and version: a path relative to the lock's
            folder, or an address. Empty for a wheel from an index.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The wheel as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Wheel:
        """Reads what `to_dict` wrote, or somebody else in its name.

        Raises:
            ValueError: It is no wheel, or would be more than one line of a requirements list.
        """
        if not isinstance(data, dict) or type(data.get("size")) is not int:
            raise ValueError("no wheel")
        texts = [value for name, value in data.items() if name != "size"]
        if not all(isinstance(text, str) and len(text.split()) <= 1 for text in texts):
            raise ValueError("a wheel with wrong values")
        if data.keys() != cls.__annotations__.keys() or not is_digest(f"sha256:{data['sha256']}"):
            raise ValueError("a wheel with other fields")
        return cls(**data)


@dataclass(frozen=True)
class WheelGroup:
    """Wheels that share a layer.

    Attributes:
        wheels: In the order of their names.
        last: Whether the environment's own files (``pyvenv.cfg``, ``bin/python`` …) are with
            them; true for exactly one group, which may have no wheels at all.
    """

    wheels: tuple[Wheel, ...]
    last: bool

    @property
    def title(self) -> str:
        """For people: ``torch 2.4.0``, ``dependencies (41 wheels)``."""
        count = f"({len(self.wheels)} wheel{'s' if len(self.wheels) != 1 else ''})"
        if self.last:
            return f"dependencies {count}"
        first = f"{self.wheels[0].name} {self.wheels[0].version}"
        if len(self.wheels) == 1:
            return first
        large = all(wheel.size >= BIG_WHEEL for wheel in self.wheels)
        return f"{'large dependencies' if large else 'own wheels'} {count}"

    @property
    def download_size(self) -> int:
        """Bytes of the wheel files, as far as known."""
        return sum(wheel.size for wheel in self.wheels)

    def inputs(self, python: str, interpreter: str, bytecode: str) -> dict[str, Any]:
        """Everything that the group's files follow from, as plain JSON values.

        Neither the lock nor the platform is among it: the wheels say it all. The interpreter's
        path is in the environment's own files only.

        Args:
            python: Minor version of the image's Python.
            interpreter: Path of the image's Python.
            bytecode: Which compiler writes the bytecode; empty for none.
        """
        inputs: dict[str, Any] = {
            "kind": "dependencies",
            "wheels": [wheel.sha256 for wheel in self.wheels],
            "python": python,
            "bytecode": bytecode,
        }
        return {**inputs, "interpreter": interpreter} if self.last else inputs


def selection_inputs(lock: Lock, platform: Platform) -> dict[str, Any]:
    """What a selection follows from, as plain JSON values: a key to keep selections under."""
    return {
        "kind": "selection",
        "rules": _RULES,
        "lock": lock.digest,
        "python": lock.python,
        "platform": str(platform),
        "glibc": ".".join(map(str, GLIBC)),
    }


def select_wheels(lock: Lock, platform: Platform) -> tuple[Wheel, ...]:
    """Decides which wheel of each locked requirement goes into the image.

    Needs the package index or a warm uv cache (``UV_OFFLINE=1``); downloads no wheel. An index
    that does not give sizes (PEP 700) is asked for those of the selected files one by one.

    Args:
        lock: What to select for.
        platform: The image's platform.

    Returns:
        The wheels in the order of their names, without what markers exclude.

    Raises:
        ImageError: A requirement is a source distribution or comes from version control, the
            index has no wheel for the platform and Python among those of the lock, a local wheel
            is not the locked one, or uv fails.
    """
    known = _locked_hashes(lock)
    if not known:
        return ()
    ranks = _tag_ranks(lock.python, platform.architecture)
    found = []
    for package in _compiled(lock, platform):
        candidates = list(_candidates(package, lock))
        name = canonicalize_name(package["name"])
        best = _best(candidates, known.get(name, frozenset()), ranks)
        if best is None:
            raise _no_wheel(f"{name} {package.get('version', '')}", candidates, lock, platform)
        found.append(best)
    return tuple(sorted(_sized(found, lock), key=lambda wheel: wheel.name))


def locked(wheels: Sequence[Wheel], lock: Lock) -> bool:
    """Whether `select_wheels` can have given these wheels for the lock, whoever says so.

    The lock holds the hash of every wheel, names its file or address, and has no requirement
    without a condition that is left out.

    Raises:
        ImageError: The lock cannot be read.
    """
    known = _locked_hashes(lock)
    lines = [line for line in lock.lines() if not line.startswith("-")]
    chosen = {wheel.name: wheel for wheel in wheels}
    always = {_required_name(_requirement_in(line)) for line in lines if ";" not in line}
    return (
        len(chosen) == len(wheels)
        and always <= chosen.keys()
        and all(wheel.sha256 in known.get(name, frozenset()) for name, wheel in chosen.items())
        and all(_is_named(wheel, lines) for wheel in chosen.values() if wheel.source)
    )


def _is_named(wheel: Wheel, lines: Iterable[str]) -> bool:
    """Whether a lock names the place of a wheel: an address as it stands, a file by its name."""
    if "://" in wheel.source:
        return any(wheel.source in line for line in lines)
    place = PurePosixPath(wheel.source)
    inside = not place.is_absolute() and ".." not in place.parts
    return inside and any(place.name in line for line in lines)


def wheel_groups(wheels: Sequence[Wheel], *, own_files: bool = True) -> tuple[WheelGroup, ...]:
    """Shares wheels out to layers: each big one alone, largest first, then all others.

    Of more than `MOST_BIG_GROUPS` big wheels the smallest share a layer. Without `own_files` no
    group is the last one, since the environment is in a lower layer.
    """
    big = sorted(
        (wheel for wheel in wheels if wheel.size >= BIG_WHEEL),
        key=lambda wheel: (-wheel.size, wheel.name),
    )
    alone = big if len(big) <= MOST_BIG_GROUPS else big[: MOST_BIG_GROUPS - 1]
    groups = [WheelGroup((wheel,), last=False) for wheel in alone]
    if together := big[len(alone) :]:
        groups.append(WheelGroup(_by_name(together), last=False))
    rest = [wheel for wheel in wheels if wheel.size < BIG_WHEEL]
    if rest or own_files:
        groups.append(WheelGroup(_by_name(rest), last=own_files))
    return tuple(groups)


def run_uv(
    lock: Lock,
    platform: Platform,
    *arguments: str,
    offline: bool = False,
    scratch: Path | None = None,
) -> str:
    """Runs uv for the lock's Python and the image's platform; gives what it prints.

    Args:
        lock: Whose Python, and from whose folder.
        platform: The image's.
        arguments: The command and its options.
        offline: Whether uv's cache must do.
        scratch: Where uv gets a cache if its own place cannot be written and none is among the
            arguments; a temporary directory if not given.

    Raises:
        ImageError: uv is missing or fails, its last lines are in the message; or the disk is full.
    """
    with _scratch("kfp-bento-uv-") as folder:
        if "--cache-dir" not in arguments and not _has_cache():
            cache = (scratch or folder).absolute() / "uv-cache"
            arguments = (*arguments, "--cache-dir", str(cache))
        # In a directory of our own: uv looks for its settings where it runs.
        return _run_uv(lock, platform, *arguments, offline=offline, directory=folder)


@contextlib.contextmanager
def _scratch(prefix: str) -> Iterator[Path]:
    """A temporary directory; what killed processes left of the kind goes as well."""
    near = Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        with storage_errors(near):
            folder = stack.enter_context(scratch_inside(near, prefix))
        yield folder


def _has_cache() -> bool:
    """Whether uv's usual cache can be written.

    A random uid has no home, or ``/``; without any, uv would take the working directory, which
    is the bento.
    """
    if "UV_CACHE_DIR" in os.environ:
        return True
    home = os.environ.get("HOME")
    usual = os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    place = Path(usual or "/nowhere", "uv")
    while not place.exists():
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


def _run_uv(lock: Lock, platform: Platform, *arguments: str, offline: bool, directory: Path) -> str:
    lines = list(lock.lines())
    done = programs.run_uv(
        [
            *(*arguments, "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python", sys.executable, "--python-version", lock.python),
            *("--python-platform", f"{_MACHINES[platform.architecture]}-{_manylinux(GLIBC)}"),
            *(["--offline"] if offline else []),
        ],
        doing="Installing the bento's dependencies",
        directory=directory,
        seconds=_UV_SECONDS,
        error=ImageError,
        # Only entries for these very hosts are taken from the netrc file.
        indexes=[address for line in lines for address in addresses_in(line)],
        variables=[name for line in lines for name in variables_in(line)] if lock.own else (),
    )
    if done.status == 0:
        return done.output
    raise ImageError(
        f"The bento's dependencies cannot be installed. uv says:\n{done.last_lines()}",
        hint="All packages must exist as wheels for the image's platform and Python. "
        + programs.UV_DOES_NOT_ANSWER,
    )


def _compiled(lock: Lock, platform: Platform) -> list[dict[str, Any]]:
    """The packages of the lock as uv finds them in the index (PEP 751, ``packages``)."""
    with _scratch("kfp-bento-lock-") as folder:
        file = folder / "requirements.txt"
        text = "".join(f"{line}\n" for line in _installer_lines(lock))
        with storage_errors(file):
            file.write_text(text, encoding="utf-8")
        text = run_uv(
            lock, platform, "pip", "compile", str(file), "--format", "pylock.toml", "--no-header"
        )
    packages: list[dict[str, Any]] = parse_toml(text.encode()).get("packages", [])
    return packages


def _installer_lines(lock: Lock) -> Iterator[str]:
    """The lock as uv gets it."""
    yield from lock.options()
    for line in lock.lines():
        if not line.startswith("-"):
            yield installer_line(line, lock.folder)


def _locked_hashes(lock: Lock) -> dict[str, frozenset[str]]:
    """The SHA-256 of every file that the lock allows, by normalised name."""
    hashes: dict[str, frozenset[str]] = {}
    for line in lock.lines():
        if line.startswith("-"):
            continue
        name = _required_name(_requirement_in(line))
        found = {value.lower() for kind, value in _HASH.findall(line) if kind == "sha256"}
        if not found:
            raise ImageError(
                f"The lock gives no SHA-256 for '{name}'.",
                hint="Lock with `uv pip compile --generate-hashes`.",
            )
        hashes[name] = hashes.get(name, frozenset()) | found
    return hashes


def _requirement_in(line: str) -> str:
    """The requirement in a line of a lock, without its hashes."""
    return re.split(r"\s--", line, maxsplit=1)[0].strip()


def _required_name(text: str) -> str:
    """The normalised name in one requirement, which must be one that wheels can meet."""
    place = re.split(r"\s;", text, maxsplit=1)[0].strip()
    if _VERSION_CONTROL.search(place):
        raise ImageError(
            f"The lock takes a requirement from version control: '{place}'.",
            hint="Build a wheel of it (`uv build --wheel`) and add the bento again with that "
            "file, or publish it to your package index.",
        )
    if "@" in place or not (place.endswith((".whl", *_SOURCES)) or "/" in place):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise ImageError(f"The lock holds '{text}', which is no requirement.") from error
        if not requirement.url:
            return canonicalize_name(requirement.name)
        place = requirement.url
    filename = _filename(place)
    try:
        return parse_wheel_filename(filename)[0]
    except InvalidWheelFilename as error:
        raise _not_a_wheel(filename) from error


def _not_a_wheel(what: str) -> ImageError:
    return ImageError(
        f"The lock needs {what}, which is no wheel: nothing is built or run while an image is "
        "assembled.",
        hint="Build a wheel of it once (`uv build --wheel`, or `pip wheel --no-deps`) and build "
        "the bento with that file, or publish it to your package index.",
    )


def _candidates(package: dict[str, Any], lock: Lock) -> Iterator[tuple[Wheel, str]]:
    """The wheels that uv lists for one package, each with the address it is at."""
    archive: dict[str, Any] = package.get("archive") or {}
    listed: list[dict[str, Any]] = [archive] if archive else package.get("wheels", [])
    if not listed:
        raise _not_a_wheel(f"{package['name']} {package.get('version', '')}".rstrip())
    for item in listed:
        address = str(item.get("url", ""))
        filename = str(item.get("name") or _filename(address or item["path"]))
        try:
            _, version, _, _ = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            continue
        # A local file is what it is, whatever a page beside it says.
        file = _local_file(item, lock)
        wheel = Wheel(
            name=canonicalize_name(package["name"]),
            version=str(package.get("version", version)),
            filename=filename,
            sha256=_sha256(file) if file else item.get("hashes", {}).get("sha256", "").lower(),
            size=file.stat().st_size if file else int(item.get("size", 0)),
            source=_source(archive, file, lock),
        )
        yield wheel, address


def _source(archive: Mapping[str, Any], file: Path | None, lock: Lock) -> str:
    """How the lock names a wheel that no index gives; paths start in its folder."""
    folder = lock.folder.absolute()
    if archive and file and file.is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    return str(archive.get("path") or archive.get("url", ""))


def _local_file(item: Mapping[str, Any], lock: Lock) -> Path | None:
    address = urllib.parse.urlsplit(str(item.get("url", "")))
    if address.scheme == "file":
        return Path(urllib.request.url2pathname(address.path))
    return lock.folder / item["path"] if item.get("path") else None


def _best(
    candidates: Sequence[tuple[Wheel, str]],
    allowed: frozenset[str],
    ranks: Mapping[Tag, int],
) -> tuple[Wheel, str] | None:
    """The candidate that fits best, of those with an allowed hash that fit at all."""
    rated = []
    for wheel, address in candidates:
        _, _, build, tags = parse_wheel_filename(wheel.filename)
        fitting = [ranks[tag] for tag in tags if tag in ranks]
        if fitting and wheel.sha256 in allowed:
            rated.append((-min(fitting), build, wheel.filename, wheel, address))
    if not rated:
        return None
    *_, wheel, address = max(rated, key=lambda item: item[:3])
    return wheel, address


@lru_cache
def _tag_ranks(python: str, architecture: str) -> Mapping[Tag, int]:
    """The tags that an image's Python accepts; the lower the number, the better."""
    version = tuple(int(part) for part in python.split("."))[:2]
    platforms = _platforms(_MACHINES[architecture])
    interpreter = f"cp{version[0]}{version[1]}"
    tags = [
        *cpython_tags(version, [interpreter], platforms),
        *compatible_tags(version, interpreter, platforms),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _platforms(machine: str) -> list[str]:
    """Platform tags from the newest C library on, as pip orders them (PEP 600)."""
    names = []
    for minor in range(GLIBC[1], _OLDEST_GLIBC[machine][1] - 1, -1):
        names.append(f"{_manylinux((GLIBC[0], minor))}_{machine}")
        if old := _LEGACY.get((GLIBC[0], minor)):
            names.append(f"{old}_{machine}")
    return [*names, f"linux_{machine}"]


def _manylinux(glibc: tuple[int, int]) -> str:
    return f"manylinux_{glibc[0]}_{glibc[1]}"


def _no_wheel(
    what: str, candidates: Sequence[tuple[Wheel, str]], lock: Lock, platform: Platform
) -> ImageError:
    offered = ", ".join(sorted(wheel.filename for wheel, _ in candidates)) or "none"
    return ImageError(
        f"No wheel of {what.strip()} for {platform} and Python {lock.python} has a hash that the "
        f"lock holds. There is: {offered}.",
        hint="Lock again for this platform and Python (`uv pip compile --generate-hashes`). If "
        "a file of the bento was changed after it was locked, build the bento again.",
    )


def _sized(found: Sequence[tuple[Wheel, str]], lock: Lock) -> Iterator[Wheel]:
    """The wheels, with the sizes that the index did not give asked from the servers."""
    unknown = [(wheel, address) for wheel, address in found if not wheel.size]
    sizes: dict[str, int] = {}
    if unknown and os.environ.get("UV_OFFLINE", "").lower() not in {"1", "true", "yes", "on"}:
        pool, accounts = _pool(), _accounts(lock)

        def ask(item: tuple[Wheel, str]) -> tuple[str, int]:
            return item[0].sha256, _content_length(pool, item[1], accounts)

        with ThreadPoolExecutor(min(_CONNECTIONS, len(unknown))) as executor:
            sizes.update(executor.map(ask, unknown))
    for wheel, _ in found:
        yield wheel if wheel.size else replace(wheel, size=sizes.get(wheel.sha256, 0))


def _content_length(
    pool: urllib3.PoolManager, address: str, accounts: Mapping[str, tuple[str, str]]
) -> int:
    """The size of a file on a server, or 0: it decides about layers only, never about content."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in {"http", "https"}:
        return 0
    headers = {}
    if account := accounts.get(_origin(parts)) or account_for(parts.hostname or ""):
        headers = urllib3.make_headers(basic_auth=":".join(account))
    try:
        answer = pool.request("HEAD", parts._replace(fragment="").geturl(), headers=headers)
        length = answer.headers.get("Content-Length", "")
    except urllib3.exceptions.HTTPError:
        return 0
    return int(length) if answer.status == 200 and length.isdigit() else 0


def _pool() -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(_SECONDS),
        "retries": urllib3.Retry(3, backoff_factor=0.2),
        "maxsize": _CONNECTIONS,
        # create_default_context reads SSL_CERT_FILE and SSL_CERT_DIR.
        "ssl_context": ssl.create_default_context(),
    }
    proxy = urllib.request.getproxies().get("https")
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)


def _accounts(lock: Lock) -> dict[str, tuple[str, str]]:
    """User and password by origin, from the index addresses that uv is given."""
    variables = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    words = " ".join([*lock.options(), *(os.environ.get(name, "") for name in variables)]).split()
    accounts = {}
    for word in words:
        address = word[word.find("http") :] if "://" in word else ""
        parts = urllib.parse.urlsplit(address)
        if parts.username:
            unquoted = urllib.parse.unquote(parts.username)
            accounts[_origin(parts)] = unquoted, urllib.parse.unquote(parts.password or "")
    return accounts


def _origin(parts: urllib.parse.SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _filename(address: str) -> str:
    path = urllib.parse.urlsplit(re.sub(r"\[[^\]]*\]$", "", address)).path
    return urllib.parse.unquote(path).rpartition("/")[2]


def _by_name(wheels: Sequence[Wheel]) -> tuple[Wheel, ...]:
    return tuple(sorted(wheels, key=lambda wheel: wheel.name))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
