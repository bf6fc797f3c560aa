"""Registry credentials as Docker, podman and Kubernetes keep them: `config.json` files."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import RegistryError, in_a_pipeline
from kfp_bento.runtime.files import JSON_LIMIT, parse_json, read_small_file
from kfp_bento.runtime.images.oci.reference import DOCKER_HUB
from kfp_bento.runtime.programs import NETWORK, clean_environment, run_program

MOUNTED_SECRET = Path("/etc/kfp-bento/registry/.dockerconfigjson")

_HUB_ADDRESS = "https://index.docker.io/v1/"
_HUB_KEYS = (_HUB_ADDRESS, "index.docker.io", "registry-1.docker.io", DOCKER_HUB)
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS = 20.0
# Where helpers keep logins, and how they ask the desktop for them.
_HELPERS_OWN = (
    *("DOCKER_*", "XDG_*", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY"),
    *("GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_*"),
)
# Each cloud's helper gets that cloud's login and no other's.
_CLOUDS = {
    "ecr": ("AWS_*",),
    "gc": ("GOOGLE_*", "CLOUDSDK_*"),
    "acr": ("AZURE_*", "ACR_*", "MSI_*", "IDENTITY_*"),
    "gh": ("GH_*", "GITHUB_*"),
}
# The user name by which a credential helper says that its secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, or an identity token; the secrets never show in a repr.

    Attributes:
        user: The user name; may be empty with an identity token.
        password: The password or access token.
        identity_token: What an OAuth2 token endpoint takes as a refresh token.
        place: Entry and file, or program, that they are from; no part of who somebody is.
    """

    user: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    place: str = field(default="", compare=False, repr=False)

    @property
    def told(self) -> str:
        """For people: where they are from, and what is odd about them."""
        odd = self.password != self.password.strip()
        return self.place + (", whose password begins or ends with a blank or line break" * odd)

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def find_credentials(host: str, repository: str = "") -> Credentials | None:
    """Look up the credentials for a registry; None means anonymous.

    Read in this order: `$REGISTRY_AUTH_FILE`, the Secret that the pipelines mount at
    `/etc/kfp-bento/registry`, `$DOCKER_CONFIG/config.json`, `~/.docker/config.json`.
    Inside a file `credHelpers` wins over `auths`, and that over `credsStore`. A key of
    `auths` may name the host alone or, as podman allows, a part of the repository's path; the
    longest that fits wins. Hosts are compared whole, never by suffix.

    Raises:
        RegistryError: A file cannot be read, an entry is malformed or a helper fails.
    """
    for file, required in _files():
        config = _read(file, required)
        if config and (found := _look_up(config, file, host, repository)):
            return found
    return None


def has_logins() -> bool:
    """Tell whether there is any file of logins; nothing in it is read, and no program is asked."""
    return any(file.is_file() for file, _ in _files())


def _files() -> list[tuple[Path, bool]]:
    files: list[tuple[Path, bool]] = []
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        files.append((Path(named), True))
    files.append((MOUNTED_SECRET, False))
    if folder := os.environ.get("DOCKER_CONFIG"):
        files.append((Path(folder) / "config.json", False))
    home = os.environ.get("HOME")
    if home:
        files.append((Path(home) / ".docker" / "config.json", False))
    return files


def _read(file: Path, required: bool) -> dict[str, Any]:
    try:
        return parse_json(read_small_file(file, JSON_LIMIT))
    except (OSError, ValueError) as error:
        if not required and isinstance(error, OSError):
            return {}
        raise RegistryError(
            f"The registry credentials in {file} cannot be read.",
            hint="It must be JSON as `docker login` or `podman login` writes it. "
            + in_a_pipeline("image_secret", "such a file as .dockerconfigjson"),
        ) from error


def _look_up(config: dict[str, Any], file: Path, host: str, repository: str) -> Credentials | None:
    auths, helpers = (config.get(part) or {} for part in ("auths", "credHelpers"))
    if not isinstance(auths, dict) or not isinstance(helpers, dict):
        raise _malformed(host, file)
    for key in _HUB_KEYS if host == DOCKER_HUB else (host,):
        if helper := helpers.get(key):
            return _ask(str(helper), host, file)
    for key in _keys(host, repository):
        # A store leaves empty entries behind for what it keeps itself.
        if entry := auths.get(key):
            return _parse(entry, file, key)
    store = config.get("credsStore")
    return _ask(str(store), host, file) if store else None


def _keys(host: str, repository: str) -> list[str]:
    if host == DOCKER_HUB:
        return list(_HUB_KEYS)
    parts = [host, *(repository.split("/") if repository else [])]
    paths = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    addresses = [f"https://{host}{end}" for end in ("", "/", "/v1/", "/v2/")]
    return [*paths, *addresses, f"http://{host}"]


def _parse(entry: Any, file: Path, key: str) -> Credentials | None:
    try:
        user = password = ""
        if packed := entry.get("auth"):
            # `base64` without -w0 breaks lines, which Docker and the kubelet take.
            whole = "".join(str(packed).split())
            user, colon, password = base64.b64decode(whole, validate=True).decode().partition(":")
            if not colon:
                raise ValueError("no colon")
        elif "username" in entry:
            user, password = str(entry["username"]), str(entry.get("password", ""))
        token = str(entry.get("identitytoken") or "")
    except (ValueError, AttributeError, TypeError, binascii.Error):
        # The cause is left out on purpose: its text can hold the secret.
        raise _malformed(key, file) from None
    place = f"'{key}' in {file}"
    return Credentials(user, password, token, place=place) if user or token else None


def _malformed(key: str, file: Path) -> RegistryError:
    return RegistryError(
        f"The entry for {key} in {file} is malformed.",
        hint="Log in again, for example with `podman login`. "
        + in_a_pipeline("image_secret", "such a file as .dockerconfigjson"),
    )


def _logins_of(helper: str) -> tuple[str, ...]:
    return next((own for cloud, own in _CLOUDS.items() if helper.startswith(cloud)), ())


def _ask(helper: str, host: str, file: Path) -> Credentials | None:
    """Ask `docker-credential-<helper> get`; what it prints is never shown."""
    program = f"docker-credential-{helper}"
    hint = f"{file} names it. Install it, log in anew, or put the login itself into the file."
    if not _HELPER.fullmatch(helper):
        raise RegistryError(f"{file} names a credential helper by '{helper}'.", hint=hint)
    done = run_program(
        [program, "get"],
        doing=f"Asking {program} for the login to {host}",
        directory=Path("/"),
        environment=clean_environment(NETWORK, _HELPERS_OWN, _logins_of(helper)),
        seconds=_HELPER_SECONDS,
        given=(_HUB_ADDRESS if host == DOCKER_HUB else host).encode(),
        error=RegistryError,
        hint=hint,
    )
    if done.status:
        if "credentials not found" in done.output + done.complaint:
            return None
        raise RegistryError(f"{program} failed for {host} (exit status {done.status}).", hint=hint)
    try:
        answer = parse_json(done.output.encode())
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"{program} gave no credentials for {host}.", hint=hint) from None
    if user == _TOKEN_USER:
        return Credentials("", "", secret, place=program)
    return Credentials(user, secret, place=program) if user or secret else None
