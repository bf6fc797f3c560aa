"""Where a service listens by its own word, and whether anybody would find it there.

Releases, their probes and the operators of KServe and Yatai expect a service on port 3000 of all
addresses, with plain HTTP and its health at `/readyz`. BentoML lets the decorator of a service
(`services[].config` of `bento.yaml`) and variables say otherwise. In a container the variables
win: its entrypoint sets `BENTOML_PORT` to `PORT`, and both are asked before the decorator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.bentos.bento_file import BentoFile, Listed, Place
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import parse_yaml

WHERE_EXPECTED: Mapping[str, str] = {
    "PORT": "3000",
    "BENTOML_PORT": "3000",
    "BENTOML_HOST": "0.0.0.0",  # noqa: S104 - in a container
}
"""Variables by which a service listens where releases expect it, whatever its code says."""

_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - a comparison
_LEAVE_OUT = {
    "prefix": "Leave path_prefix out of the service; the route of the release can have it.",
    "tls": "Leave ssl out of the service: certificates belong to what stands before it.",
}


@dataclass(frozen=True)
class Listening:
    """Where a service listens by its own word.

    Attributes:
        moved: What says another port or address, with its place, for people.
        hidden: What keeps probes from finding it, wherever it listens; each with a way out.
    """

    moved: tuple[Listed, ...] = ()
    hidden: tuple[tuple[Listed, str], ...] = ()


def listening_of(file: BentoFile) -> Listening:
    """Read from a `bento.yaml` where its service listens."""
    place, config = _entry_config(file)
    return Listening(
        moved=(*_moved(place, config), *_variables(file)),
        hidden=tuple(_hidden(place, config)),
    )


def require_found(tag: str, listening: Listening) -> None:
    """Refuse a service that would be waited for in vain.

    Raises:
        BentoError: Its health is where nobody asks.
    """
    if listening.hidden:
        told, ways = zip(*listening.hidden, strict=True)
        raise BentoError(
            f"{tag} would be waited for in vain: {'; '.join(one.shown for one in told)}.",
            hint=" ".join(ways),
        )


def _entry_config(file: BentoFile) -> tuple[Place, Mapping[str, Any]]:
    """Give what the service that takes requests says of its server, and the keys to it."""
    data = parse_yaml(file.content)
    services = data.get("services") if isinstance(data, dict) else None
    listed = services if isinstance(services, list) else []
    found = {n: one for n, one in enumerate(listed) if isinstance(one, dict)}
    entry = [n for n, one in found.items() if one.get("name") == file.entry_service]
    for index in (*entry, *found):
        return ("services", index, "config"), _section(found[index], "config")
    return ("services",), {}


def _moved(place: Place, config: Mapping[str, Any]) -> Iterator[Listed]:
    http = _section(config, "http")
    for key, fitting in (("port", ("", "3000")), ("host", _ANYWHERE)):
        value = http.get(key)
        if str("" if value is None else value) not in fitting:
            yield Listed(f"services[].config.http.{key}: {value}", (*place, "http", key))


def _variables(file: BentoFile) -> Iterator[Listed]:
    above: Place = ("envs",) if file.own_envs else ("docker", "env")
    for name, value in file.variables("all").items():
        expected = WHERE_EXPECTED.get(name)
        if expected and value not in (expected, *(_ANYWHERE if name == "BENTOML_HOST" else ())):
            yield Listed(f"{name}={value}", above)


def _hidden(place: Place, config: Mapping[str, Any]) -> Iterator[tuple[Listed, str]]:
    """Give what moves or veils its health; BentoML writes a prefix down in its endpoints."""
    ready = _section(config, "endpoints").get("readyz")
    if isinstance(ready, str) and ready.endswith("/readyz") and ready != "/readyz":
        prefix = ready.removesuffix("/readyz")
        told = f"the service answers below {prefix}, its health too: probes ask /readyz"
        yield Listed(told, (*place, "endpoints", "readyz")), _LEAVE_OUT["prefix"]
    if _section(config, "ssl").get("enabled"):
        told = "services[].config.ssl: the service speaks TLS, and probes plain HTTP"
        yield Listed(told, (*place, "ssl")), _LEAVE_OUT["tls"]


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}
