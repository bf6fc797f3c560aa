"""Other people's code, kept from the network, other processes and credentials where that works.

A clean environment alone is little: code of the same user reads the environment of the process
that started it in /proc, and logins in the home directory. So it starts in a network of its own
(user and network namespaces, or Landlock where these are not to be had, as in most pods), and in
a Landlock domain, from where other processes can be neither looked into nor signalled, and files
with credentials not read. Nothing of it needs privilege. Where the system has none of it the code
runs as it is, unless `KFP_BENTO_CONFINEMENT` says otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.programs.clean_room import run_program
from kfp_bento.runtime.programs.endings import memory_limit
from kfp_bento.runtime.programs.environment import CACHES, COMPUTING, NETWORK, chosen

CONFINEMENT_VARIABLE = "KFP_BENTO_CONFINEMENT"
"""`required`: other people's code runs without network or not at all. `off`: it runs as it is."""

VARIABLES_VARIABLE = "KFP_BENTO_CODE_VARIABLES"
"""Names, with commas between, of more variables for other people's code; `*` ends a beginning."""

_LAUNCHER = Path(__file__).with_name("confined_start.py")
_PROBE_SECONDS = 20.0
_WITHOUT_NETWORK = ("namespace", "landlock-network")
_SLACK = 8 << 30
_SECRETS_AT_HOME = (
    *(".aws", ".azure", ".databrickscfg", ".docker", ".git-credentials", ".gnupg", ".kaggle"),
    *(".kube", ".mlflow", ".my.cnf", ".netrc", ".pgpass", ".pypirc", ".ssh", ".wandb"),
    *(".config/containers", ".config/gcloud", ".config/git", ".config/gh", ".config/kfp-bento"),
    *(".config/pip", ".config/rclone", ".local/share/keyrings", ".cache/huggingface/token"),
    ".local/state/kfp-bento",
)
_SECRETS_ELSEWHERE = ("/run/secrets", "/var/run/secrets", "/etc/kfp-bento", "/etc/kubernetes")
_SECRETS_NAMED = (
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("DOCKER_CERT_PATH", "DOCKER_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "KUBECONFIG"),
    *("KF_PIPELINES_SA_TOKEN_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "NETRC"),
    *("REGISTRY_AUTH_FILE", "SSL_CLIENT_CERT"),
)
# It holds a key, or names its file; the password is beside it.
_SIGNING_KEY, _ITS_PASSWORD = "KFP_BENTO_SIGNING_KEY", "cosign.password"


def confined(
    argv: Sequence[str],
    *,
    error: type[KfpBentoError],
    network: bool = False,
    readable: Iterable[str] = (),
    variables: Mapping[str, str] | None = None,
) -> list[str]:
    """Give the command that starts a program confined, as far as the system can do it.

    Args:
        argv: The program and its arguments.
        error: What to raise.
        network: Whether it needs the network for what it is run for.
        readable: Names of the files with credentials that it needs, such as `.netrc`.
        variables: What other people set for it. Only what is confined already sees them: an
            `LD_PRELOAD` of theirs would otherwise run in what confines.

    Raises:
        error: It has to be kept from the network, and cannot be.
    """
    if variables:
        argv = ["env", "--", *(f"{name}={value}" for name, value in variables.items()), *argv]
    wish = os.environ.get(CONFINEMENT_VARIABLE, "")
    if wish not in ("", "off", "required"):
        raise error(
            f"{CONFINEMENT_VARIABLE} is {wish!r}.", hint="Set it to required or off, or unset it."
        )
    if wish == "off":
        return list(argv)
    way = _way(network=network)
    if wish == "required" and not network and way not in _WITHOUT_NETWORK:
        raise error(
            "This system cannot keep a program from the network without privilege, and "
            f"{CONFINEMENT_VARIABLE}=required asks for that.",
            hint="Allow user namespaces or Landlock here, or unset it and keep the whole step "
            "from the network, in a cluster with a NetworkPolicy.",
        )
    if not way:
        return list(argv)
    kept = frozenset(readable)
    # What a variable names from here, the program would look for in its own directory.
    hidden = (os.path.abspath(path) for path in _secrets() if Path(path).name not in kept)  # noqa: PTH100
    return [*_started(way, os.pathsep.join(sorted(set(hidden)))), *argv]


def keeps_from_network() -> bool:
    """Say whether other people's code runs without network here."""
    wish = os.environ.get(CONFINEMENT_VARIABLE, "")
    return wish != "off" and _way(network=False) in _WITHOUT_NETWORK


def hides_credentials() -> bool:
    """Say whether other people's code cannot read the credentials of its user here."""
    return os.environ.get(CONFINEMENT_VARIABLE, "") != "off" and bool(_way(network=False))


def code_variables() -> list[str]:
    """Give the names of the variables that other people's code gets besides `BASIC`."""
    more = os.environ.get(VARIABLES_VARIABLE, "").replace(",", " ").split()
    network = NETWORK if os.environ.get(CONFINEMENT_VARIABLE) == "off" else ()
    return [*COMPUTING, *CACHES, *network, *more]


def confinement_hint() -> str:
    """Say what to do where code may have failed for want of network, logins or variables."""
    if os.environ.get(CONFINEMENT_VARIABLE) == "off" or not _way(network=False):
        return f"Its code sees few variables; {VARIABLES_VARIABLE}=NAME,… passes more on."
    return (
        "Its code runs without network, credentials and most variables; "
        f"{CONFINEMENT_VARIABLE}=off and {VARIABLES_VARIABLE}=NAME,… let it have them."
    )


def memory_for_code() -> int:
    """Give the bytes of private memory that other people's code may have: all that there is.

    More is reserved than is ever used (stacks of threads, arenas), hence the slack.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, memory_limit() or total) + _SLACK


def _secrets() -> Iterator[str]:
    """Give where credentials usually are, and where the environment says that they are."""
    homes = {os.environ.get("HOME", ""), os.path.expanduser("~")} - {""}  # noqa: PTH111
    yield from (f"{home}/{name}" for home in homes for name in _SECRETS_AT_HOME)
    yield from _SECRETS_ELSEWHERE
    named = chosen(os.environ, _SECRETS_NAMED).values()
    yield from (path for value in named for path in value.split(os.pathsep) if path)
    if state := os.environ.get("XDG_STATE_HOME"):
        yield f"{state}/kfp-bento"
    key = os.environ.get(_SIGNING_KEY, "").strip()
    if key and not key.startswith("-----BEGIN "):
        yield from (key, str(Path(key).parent / _ITS_PASSWORD))


def _way(*, network: bool) -> str:
    ways = ("landlock",) if network else (*_WITHOUT_NETWORK, "landlock")
    return next((way for way in ways if _works(way)), "")


def _started(way: str, hidden: str = "") -> list[str]:
    return [sys.executable, "-I", "-S", str(_LAUNCHER), way, hidden]


@lru_cache
def _works(way: str) -> bool:
    """Whether a way of confining works here, tried once."""
    if sys.platform != "linux":
        return False
    try:
        tried = run_program(
            _started(way),
            doing="Confining a program",
            directory=Path("/"),
            environment={},
            seconds=_PROBE_SECONDS,
            error=KfpBentoError,
        )
    except KfpBentoError:
        return False
    return tried.status == 0
