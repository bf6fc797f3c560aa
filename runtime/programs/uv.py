"""uv, which locks and installs: found in one place, and run with what is configured for it only.

No configuration file counts, since uv looks for one in every parent of its working directory, and
whoever can write there could name another index. Accounts come from uv's own variables, and from
the netrc file for the hosts of configured indexes: uv would send its `default` entry to any host
that a requirement names.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import shutil
import tempfile
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.programs.clean_room import Finished, clean_environment, run_program
from kfp_bento.runtime.programs.environment import NETWORK
from kfp_bento.runtime.proxies import for_other_programs

UV = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_*"),
    *("UV_FIND_LINKS", "UV_NO_INDEX", "UV_KEYRING_PROVIDER", "UV_INSECURE_HOST", "UV_OFFLINE"),
    *("UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_HTTP_*", "UV_REQUEST_TIMEOUT", "UV_CONCURRENT_*"),
    *("UV_CACHE_DIR", "UV_LINK_MODE", "UV_EXCLUDE_NEWER", "UV_PRERELEASE", "XDG_CACHE_HOME"),
    *("UV_NO_CACHE", "SSL_CLIENT_CERT"),
)
"""What a user may set for uv: where packages are, how they are reached, where they are kept."""

PYTHONS = ("UV_PYTHON_*", "UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON")
"""Which interpreters uv uses, and where it fetches them."""

KEYRINGS = (
    *("PYTHON_KEYRING_*", "DBUS_SESSION_BUS_ADDRESS", "CLOUDSDK_*", "AWS_PROFILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)
"""What the `keyring` program needs, which uv asks for accounts where the user wants that."""

_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_MEMORY = 8 << 30
_NO_WHEEL = re.compile(r"Wheels are required for `([\w.-]+)` because building from source")
UV_DOES_NOT_ANSWER = (
    "uv needs the package index (UV_DEFAULT_INDEX) or a warm cache (UV_OFFLINE=1), and "
    "SSL_CERT_FILE for certificates of your own."
)


def find_uv(error: type[KfpBentoError]) -> str:
    """Give the uv installed beside this interpreter, else that on PATH.

    Raises:
        error: There is none.
    """
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return str(find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise error(
            "uv was not found; it locks and installs dependencies.",
            hint="Install it: pip install uv (it is part of kfp-bento[runtime]).",
        )
    return found


def run_uv(
    arguments: Sequence[str],
    *,
    doing: str,
    directory: Path,
    seconds: float,
    error: type[KfpBentoError],
    indexes: Iterable[str] = (),
    downloads: bool = False,
    variables: Iterable[str] = (),
    cancelled: threading.Event | None = None,
) -> Finished:
    """Run uv without any configuration but the user's environment variables for it.

    Args:
        arguments: The command and its options.
        doing: What it is run for; see `run_program`.
        directory: Its working directory: one of ours that goes away, also where a process was
            killed, since accounts are in it meanwhile.
        seconds: How long it may take.
        error: What to raise where it cannot be run.
        indexes: Addresses of further indexes that the user configured.
        downloads: Whether it may fetch an interpreter, where the user does not forbid that.
        variables: Names of more variables that it gets: those that a user's own list names.
        cancelled: Ends it early when set.
    """
    addresses = [*configured_indexes(), *indexes]
    with _accounts_file(directory, addresses) as accounts:
        return run_program(
            [find_uv(error), *arguments, "--no-config", "--no-progress"],
            doing=doing,
            directory=directory,
            environment=clean_environment(
                NETWORK,
                UV,
                PYTHONS if downloads else (),
                KEYRINGS if os.environ.get("UV_KEYRING_PROVIDER") else (),
                variables,
                NETRC=str(accounts),
                NO_COLOR="1",
                **for_other_programs(addresses),
                **({} if downloads else {"UV_PYTHON_DOWNLOADS": "never"}),
            ),
            seconds=seconds,
            memory=_MEMORY,
            error=error,
            hint=UV_DOES_NOT_ANSWER,
            cancelled=cancelled,
        )


def without_wheel(said: str) -> str:
    """Give the package that uv found sources of only, by what it said; "" where that was not it."""
    found = _NO_WHEEL.search(said)
    return found[1] if found else ""


def configured_indexes(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Give the addresses of the package indexes that the environment names."""
    words = " ".join(environment.get(name, "") for name in _INDEXES).split()
    # UV_INDEX takes `name=https://…`.
    return [word[word.find("http") :] for word in words if "://" in word]


def account_for(host: str) -> tuple[str, str] | None:
    """Give user and password of the netrc file for a host; its `default` entry is for nobody."""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc(os.environ.get("NETRC")).hosts.get(host)
        if found:
            return found[0], found[2] or ""
    return None


@contextlib.contextmanager
def _accounts_file(directory: Path, indexes: Sequence[str]) -> Iterator[Path]:
    """Give a netrc file with the entries for these indexes' hosts, gone at the end."""
    hosts = {urllib.parse.urlsplit(address).hostname or "" for address in indexes}
    entries = {host: account_for(host) for host in sorted(hosts) if host}
    handle, name = tempfile.mkstemp(prefix="kfp-bento-netrc-", dir=directory)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for host, account in entries.items():
                if account and not any(set(part) & set(" \t\n\"'\\") for part in account):
                    file.write(f"machine {host} login {account[0]} password {account[1]}\n")
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def keeps_downloads() -> bool:
    """Tell whether uv's usual cache can be written.

    A random uid has no home, or `/`; without any, uv would take its working directory.
    """
    if "UV_CACHE_DIR" in os.environ:
        return True
    home = os.environ.get("HOME")
    usual = os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    place = Path(usual or "/nowhere", "uv")
    while not place.exists():
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


@contextlib.contextmanager
def downloads_kept_in(folder: Path) -> Iterator[None]:
    """Let uv keep what it fetches in a folder for the length of a block, where it has no cache.

    What several parts of one task install is fetched once then.
    """
    if keeps_downloads():
        yield
        return
    os.environ["UV_CACHE_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ["UV_CACHE_DIR"]
