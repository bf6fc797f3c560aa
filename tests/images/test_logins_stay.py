"""A registry's login goes to that registry, and to the token server that it names itself."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from registries import (
    QUICK,
    FakeRegistry,
    Held,
    Tokens,
    describe,
    log_in,
    no_login,
    scripted,
)

from kfp_bento.runtime.errors import KfpBentoError, RegistryError
from kfp_bento.runtime.images.oci.image import OCI_INDEX
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.registry.repository import Repository
from kfp_bento.runtime.images.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["no_login"]

CONTENT = b"content"
BLOB = describe(CONTENT)
PASSWORD = "the-secret-of-one"
PACKED = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()


class Listener:
    """A server of somebody else's that notes all that it is told."""

    def __init__(self) -> None:
        self.reply: Callable[[Any], Any] = lambda request: (404, {}, b"")
        self.told: list[str] = []

    def __call__(self, request: Any) -> Any:
        self.told.append(f"{request.command} {request.path}\n{request.headers}\n{request.body!r}")
        return self.reply(request)

    def heard(self, secret: str) -> bool:
        return any(secret in text for text in self.told)

    @property
    def heard_login(self) -> bool:
        return self.heard(PASSWORD) or self.heard(PACKED) or self.heard("Authorization")


@pytest.fixture
def stranger() -> Iterator[tuple[Listener, str]]:
    listener = Listener()
    with scripted(listener) as host:
        yield listener, host


def repository(host: str) -> Repository:
    return Repository(parse_reference(f"{host}/a"), QUICK)


def basic_only(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A registry that wants a password, and only then answers."""

    def answer(request: Any) -> Any:
        if request.headers.get("Authorization") != f"Basic {PACKED}":
            return 401, {"WWW-Authenticate": 'Basic realm="own"'}, b""
        return inner(request)

    return answer


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://{host}/token",service="s"',
        'Basic realm="here"',
        'Basic realm="x", Bearer realm="http://{host}/token"',
    ],
)
@pytest.mark.parametrize("known_before", [False, True], ids=["stranger", "logged in"])
@pytest.mark.parametrize("read", ["manifest", "blob"])
def test_where_a_redirect_leads_no_login_can_be_asked_for(
    tmp_path: Path,
    stranger: tuple[Listener, str],
    challenge: str,
    known_before: bool,
    read: str,
) -> None:
    listener, elsewhere = stranger

    def ask(request: Any) -> Any:
        if request.path.startswith("/token"):
            return 200, {}, b'{"token": "t"}'
        return 401, {"WWW-Authenticate": challenge.format(host=elsewhere)}, b""

    listener.reply = ask
    away = {"Location": f"http://{elsewhere}/v2/a/stolen"}

    def redirect(request: Any) -> Any:
        return 307, away, b""

    with scripted(basic_only(redirect) if known_before else redirect) as host:
        log_in(tmp_path / "docker", host, PASSWORD)
        target = repository(host)
        with pytest.raises(RegistryError) as caught:
            if read == "manifest":
                target.fetch_manifest("v1")
            else:
                b"".join(target.open_blob(BLOB))
    assert listener.told and not listener.heard_login
    assert f"it sends us to {elsewhere}, which answers HTTP 401" in caught.value.message
    assert "never go along" in caught.value.hint


def test_a_realm_elsewhere_that_the_registry_itself_names_gets_its_login(
    tmp_path: Path, stranger: tuple[Listener, str]
) -> None:
    tokens, elsewhere = stranger
    tokens.reply = lambda request: (200, {}, b'{"token": "t1"}')

    def answer(request: Any) -> Any:
        if request.headers.get("Authorization") == "Bearer t1":
            return 200, {}, CONTENT
        realm = f'Bearer realm="http://{elsewhere}/token",service="s"'
        return 401, {"WWW-Authenticate": realm}, b""

    with scripted(answer) as host:
        log_in(tmp_path / "docker", host, PASSWORD)
        assert b"".join(repository(host).open_blob(BLOB)) == CONTENT
    assert tokens.heard(PACKED)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("identity", [False, True], ids=["password", "identity token"])
def test_a_token_server_cannot_send_the_login_on(
    tmp_path: Path, stranger: tuple[Listener, str], status: int, identity: bool
) -> None:
    listener, elsewhere = stranger

    def answer(request: Any) -> Any:
        if request.path.startswith("/token"):
            return status, {"Location": f"http://{elsewhere}/token"}, b""
        realm = f'Bearer realm="http://{request.headers["Host"]}/token"'
        return 401, {"WWW-Authenticate": realm}, b""

    with scripted(answer) as host:
        if identity:
            entry = {"identitytoken": PASSWORD}
            (tmp_path / "docker").mkdir()
            (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: entry}}))
        else:
            log_in(tmp_path / "docker", host, PASSWORD)
        with pytest.raises(RegistryError, match=f"give a token: HTTP {status}"):
            repository(host).head_manifest("v1")
    assert not listener.told


def test_no_upload_page_or_mount_takes_a_login_elsewhere(
    tmp_path: Path, stranger: tuple[Listener, str]
) -> None:
    listener, elsewhere = stranger

    def answer(request: Any) -> Any:
        if request.command == "POST":
            return 202, {"Location": f"http://{elsewhere}/v2/a/blobs/uploads/1"}, b""
        if request.path.startswith("/v2/a/referrers/"):
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
            link = {"Link": f'<http://{elsewhere}/v2/a/more>; rel="next"'}
            return 200, link, json.dumps(index).encode()
        return 404, {}, b""

    with scripted(basic_only(answer)) as host:
        log_in(tmp_path / "docker", host, PASSWORD)
        target = repository(host)
        for attempt in (
            lambda: target.put_blob(BLOB, Held(CONTENT)),
            lambda: target.referrers(BLOB.digest),
        ):
            with contextlib.suppress(KfpBentoError):
                attempt()
    # The port of the address is taken for a proxy's mistake, and our own is used.
    assert not listener.told


def test_the_login_for_one_registry_is_not_shown_to_another(tmp_path: Path) -> None:
    source, target = FakeRegistry(), FakeRegistry()
    source.blobs[BLOB.digest] = CONTENT
    guard = Tokens(source)
    with scripted(guard) as one, scripted(Tokens(target)) as other:
        log_in(tmp_path / "docker", one, PASSWORD)
        assert repository(other).put_blob(BLOB, repository(one)) == "sent"
    assert guard.requests[0].headers["Authorization"] == f"Basic {PACKED}"
    seen = [str(item.headers.get("Authorization", "")) for item in target.requests]
    assert not any(PACKED in text for text in seen)
    # Nor does the second learn of the first by a mount.
    assert not any("from=" in item.path for item in target.requests)


def test_neither_urls_nor_data_of_a_layer_are_gone_to(stranger: tuple[Listener, str]) -> None:
    from kfp_bento.runtime.images.oci.image import descriptor_from

    listener, elsewhere = stranger
    fake = FakeRegistry()
    fake.blobs[BLOB.digest] = CONTENT
    foreign = {**BLOB.to_dict(), "urls": [f"http://{elsewhere}/layer"], "data": "eHh4eHh4eA=="}
    with scripted(fake) as host:
        assert b"".join(repository(host).open_blob(descriptor_from(foreign))) == CONTENT
    assert not listener.told


@pytest.mark.parametrize(
    "address",
    [
        # urllib3 goes to the first host of these, urlsplit sees the second.
        "https://127.0.0.1:1\\@quay.io/blob",
        "https://10.0.0.7\\.quay.io/blob",
        "https://169.254.169.254\\@quay.io:443/latest",
        "https://quay.io:443:80/x",
        "https://[::1/x",
        "https://quay.io:port/x",
    ],
)
def test_an_address_that_programs_read_differently_is_none(address: str) -> None:
    transport = Transport("quay.io", "a", QUICK)
    with pytest.raises(RegistryError, match="names an address that is none"):
        transport.joined("https://quay.io/v2/", address)


def test_an_address_with_a_user_is_refused_and_its_password_not_shown() -> None:
    transport = Transport("quay.io", "a", QUICK)
    with pytest.raises(RegistryError, match=r"with a user at 'cdn\.example'") as caught:
        transport.joined("https://quay.io/v2/", "https://ali:s3cret@cdn.example/blob")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["https://cdn.quay.io/sha256/ab?X-Sig=a%2Fb&X-Exp=1", "/v2/blob", "HTTPS://CDN.quay.IO:443/x"],
)
def test_ordinary_addresses_are_taken(address: str) -> None:
    joined = Transport("quay.io", "a", QUICK).joined("https://quay.io/v2/", address)
    assert urllib.parse.urlsplit(joined).hostname in {"quay.io", "cdn.quay.io"}


@pytest.mark.parametrize("host", ["QUAY.IO", "quay.io:443", "quay.io:5000"])
def test_a_login_is_for_the_name_as_it_was_written(tmp_path: Path, host: str) -> None:
    from kfp_bento.runtime.images.registry.credentials import find_credentials

    log_in(tmp_path / "docker", "quay.io", PASSWORD)
    assert find_credentials(host, "a") is None


@pytest.mark.parametrize(
    "name", ["quay.io./a", "ali:pw@quay.io/a", "quay.io\\.evil/a", "quay.io%00/a"]
)
def test_a_reference_names_a_host_and_nothing_else(name: str) -> None:
    with pytest.raises(KfpBentoError, match="is no image reference"):
        parse_reference(name)


def test_what_a_registry_says_cannot_steer_a_terminal() -> None:
    text = "\x1b[2K\x1b]0;title\x07 all is well\r\nPassed \u202e"
    answer = json.dumps({"errors": [{"code": "DENIED", "message": text}]}).encode()
    with (
        scripted(lambda request: (403, {}, answer)) as host,
        pytest.raises(RegistryError) as caught,
    ):
        repository(host).fetch_manifest("v1")
    assert caught.value.message.endswith("HTTP 403 (DENIED all is well Passed).")


# --- registries that hide what they have, and fronts of registries -------------------------------


def hiding(status: int, inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A registry whose root alone asks strangers for a login; all else is hidden from them."""
    guarded = basic_only(inner)

    def answer(request: Any) -> Any:
        if request.path == "/v2/" or request.headers.get("Authorization"):
            return guarded(request)
        return status, {}, b""

    return answer


@pytest.mark.parametrize("status", [403, 404])
def test_a_login_is_sent_where_strangers_are_not_asked_for_one(tmp_path: Path, status: int) -> None:
    registry = FakeRegistry()
    with scripted(hiding(status, registry)) as host:
        log_in(tmp_path / "docker", host, PASSWORD)
        repository(host).put_blob(BLOB, Held(CONTENT))
    assert registry.blobs == {BLOB.digest: CONTENT}


def test_a_token_is_fetched_where_strangers_are_not_asked_for_one(tmp_path: Path) -> None:
    registry = FakeRegistry()
    tokens = Tokens(registry)

    def answer(request: Any) -> Any:
        known = request.headers.get("Authorization") or request.path == "/v2/"
        return tokens(request) if known or "/token" in request.path else (404, {}, b"")

    with scripted(answer) as host:
        log_in(tmp_path / "docker", host, PASSWORD)
        repository(host).put_blob(BLOB, Held(CONTENT))
    assert registry.blobs == {BLOB.digest: CONTENT}
    assert tokens.requests[0].headers["Authorization"] == f"Basic {PACKED}"


def test_a_registry_that_knows_no_login_is_asked_once_and_told_nothing(tmp_path: Path) -> None:
    registry = FakeRegistry()
    with scripted(registry) as host:
        log_in(tmp_path / "docker", host, PASSWORD)
        target = repository(host)
        for content in (b"one", b"two", b"three"):
            target.put_blob(describe(content), Held(content))
    assert len(registry.blobs) == 3
    assert registry.asked.count("GET /v2/") == 1
    assert not any(request.headers.get("Authorization") for request in registry.requests)


@pytest.fixture
def elsewhere() -> Iterator[tuple[FakeRegistry, str]]:
    registry = FakeRegistry()
    with scripted(registry) as host:
        yield registry, host


@pytest.mark.parametrize("named", ["", "http://{there}", "http://{front}"])
@pytest.mark.parametrize("status", [307, 308])
def test_uploads_go_where_a_front_sends_all_requests(
    tmp_path: Path, elsewhere: tuple[FakeRegistry, str], status: int, named: str
) -> None:
    registry, there = elsewhere
    front = basic_only(lambda request: (status, {"Location": f"http://{there}{request.path}"}, b""))
    answers = registry._answer

    with scripted(front) as host:

        def renamed(*arguments: Any) -> Any:
            code, headers, body = answers(*arguments)
            if "Location" in headers:
                where = named.format(there=there, front=host)
                headers["Location"] = f"{where}{headers['Location']}"
            return code, headers, body

        registry._answer = renamed  # type: ignore[method-assign]
        log_in(tmp_path / "docker", host, PASSWORD)
        repository(host).put_blob(BLOB, Held(CONTENT))
    assert registry.blobs == {BLOB.digest: CONTENT}
    assert not any(request.headers.get("Authorization") for request in registry.requests)


def test_a_manifest_goes_where_a_front_sends_it(elsewhere: tuple[FakeRegistry, str]) -> None:
    registry, there = elsewhere
    stored: list[bytes] = []

    def store(request: Any) -> Any:
        if request.command != "PUT":
            return None
        stored.append(request.body)
        return 201, {}, b""

    registry.fault = store
    manifest = describe(b"{}", OCI_INDEX)
    front = lambda request: (307, {"Location": f"http://{there}{request.path}"}, b"")  # noqa: E731
    with scripted(front) as host:
        repository(host).put_manifest(manifest, b"{}")
    assert stored == [b"{}"]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_write_is_not_sent_on_as_something_else(
    elsewhere: tuple[FakeRegistry, str], status: int
) -> None:
    registry, there = elsewhere
    front = lambda request: (  # noqa: E731
        (404, {}, b"")
        if request.command == "HEAD"
        else (status, {"Location": f"http://{there}{request.path}"}, b"")
    )
    with scripted(front) as host, pytest.raises(RegistryError, match=f"to '{there}'"):
        repository(host).put_blob(BLOB, Held(CONTENT))
    assert registry.asked == []


def test_an_upload_is_sent_on_to_no_third_host(elsewhere: tuple[FakeRegistry, str]) -> None:
    registry, there = elsewhere
    answers = registry._answer

    def away(*arguments: Any) -> Any:
        code, headers, body = answers(*arguments)
        if "Location" in headers:
            headers["Location"] = "https://third.example/upload"
        return code, headers, body

    registry._answer = away  # type: ignore[method-assign]
    front = lambda request: (307, {"Location": f"http://{there}{request.path}"}, b"")  # noqa: E731
    with scripted(front) as host, pytest.raises(RegistryError, match=r"to 'third\.example'"):
        repository(host).put_blob(BLOB, Held(CONTENT))
