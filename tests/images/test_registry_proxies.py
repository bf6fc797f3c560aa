"""Registries before and behind a proxy: who is asked, and who is blamed."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from proxy_server import ProxyServer
from registries import QUICK, FakeRegistry, Held, describe, no_login, noise, scripted
from servers import free_port

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.registry.repository import Repository

__all__ = ["no_login"]

DEAD = "http://127.0.0.1:9"
CONTENT = noise(300_000)
BLOB = describe(CONTENT)
PLACES = ("10.1.2.3", "fd00::5", "registry.corp.example")
NAMED = "registry.only.example:5000"
REFUSALS = [
    ("https", "407 Proxy Authentication Required", "account"),
    ("https", "403 Forbidden", "NO_PROXY"),
    ("https", "503 Service Unavailable", "HTTPS_PROXY"),
    # Other refusals of requests without a tunnel could be the registry's as well.
    ("http", "407 Proxy Authentication Required", "account"),
]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of a network that is not there stand for this machine."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host in PLACES else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


def repository(host: str) -> Repository:
    return Repository(parse_reference(f"{host}/a"), QUICK)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("10.1.2.3", "10.0.0.0/8,.svc,.cluster.local"),
        ("registry.corp.example", "*.corp.example"),
        ("registry.corp.example", "corp.example"),
        ("[fd00::5]", "fd00::/8"),
        ("[fd00::5]", "fd00::5"),
    ],
)
def test_a_registry_that_is_listed_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, name: str, listed: str
) -> None:
    registry = FakeRegistry()
    with scripted(registry) as host:
        named = f"{name}:{host.rpartition(':')[2]}"
        monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", named)
        monkeypatch.setenv("HTTP_PROXY", DEAD)
        monkeypatch.setenv("NO_PROXY", listed)
        repository(named).put_blob(BLOB, Held(CONTENT))
    assert registry.blobs == {BLOB.digest: CONTENT}


@pytest.mark.parametrize("form", ["http://{}", "{}", "user:pass@{}"])
def test_a_registry_is_reached_by_the_proxy_whatever_its_form(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    registry = FakeRegistry()
    with scripted(registry) as host, ProxyServer({NAMED: host}) as proxy:
        monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", NAMED)
        monkeypatch.setenv("HTTP_PROXY", form.format(proxy.host))
        repository(NAMED).put_blob(BLOB, Held(CONTENT))
    assert registry.blobs == {BLOB.digest: CONTENT}
    assert set(proxy.asked) == {NAMED}


@pytest.mark.parametrize(("scheme", "refuses", "hint"), REFUSALS)
def test_the_proxys_trouble_is_called_the_proxys(
    monkeypatch: pytest.MonkeyPatch, scheme: str, refuses: str, hint: str
) -> None:
    if scheme == "http":
        monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", NAMED)
    with ProxyServer(refuses=refuses) as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"ali:secret@{proxy.host}")
        with pytest.raises(RegistryError, match=refuses) as failure:
            repository(NAMED).head_manifest("v1")
    assert failure.value.message.startswith(f"The proxy {proxy.url} does not lead to {NAMED}")
    assert hint in failure.value.hint
    assert "secret" not in str(failure.value)
    # What will not pass is not tried again.
    assert len(proxy.asked) == (QUICK.attempts if refuses.startswith("503") else 1)


def test_a_proxy_that_is_not_there_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(RegistryError, match=f"The proxy http://{address} does not lead to"):
        repository(NAMED).head_manifest("v1")


def test_a_registry_that_is_not_there_is_not_the_proxys_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    with pytest.raises(RegistryError, match="The registry 127"):
        repository(f"127.0.0.1:{free_port()}").head_manifest("v1")
