"""Logins: where they are kept, and to whom they are shown."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from registries import (
    QUICK,
    FakeRegistry,
    Held,
    Tokens,
    certificate,
    describe,
    log_in,
    no_login,
    registry,
    scripted,
)

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.registry.credentials import Credentials, find_credentials
from kfp_bento.runtime.images.registry.repository import Repository

__all__ = ["certificate", "no_login"]

CONTENT = b"content"
BLOB = describe(CONTENT)


def repository(host: str, name: str = "a") -> Repository:
    return Repository(parse_reference(f"{host}/{name}"), QUICK)


def write_config(tmp_path: Path, **content: Any) -> None:
    (tmp_path / "docker").mkdir(exist_ok=True)
    (tmp_path / "docker/config.json").write_text(json.dumps(content))


# --- files ---------------------------------------------------------------------------------------


def test_credentials_are_found_where_podman_and_docker_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(tmp_path / "docker", "quay.io", "from docker")
    log_in(tmp_path / "podman", "quay.io/team", "from podman")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "podman/config.json"))
    team, other = find_credentials("quay.io", "team/app"), find_credentials("quay.io", "other/app")
    assert team is not None and team.password == "from podman"
    assert other is not None and other.password == "from docker"
    assert "podman" not in repr(team)


@pytest.mark.parametrize("host", ["evil-quay.io", "quay.io.evil.org", "quay.io:444"])
def test_credentials_are_for_their_own_host_only(tmp_path: Path, host: str) -> None:
    log_in(tmp_path / "docker", "quay.io", "secret")
    assert find_credentials(host, "a") is None


def test_a_malformed_login_is_named_without_its_content(tmp_path: Path) -> None:
    write_config(tmp_path, auths={"quay.io": {"auth": "c2VjcmV0LXdpdGhvdXQtY29sb24="}})
    with pytest.raises(RegistryError, match=r"entry for quay\.io") as failure:
        find_credentials("quay.io")
    assert "c2Vj" not in str(failure.value)


def test_a_login_with_broken_lines_is_read(tmp_path: Path) -> None:
    password = "a long secret " * 10
    packed = base64.encodebytes(f"ali:{password}".encode()).decode()
    assert packed.count("\n") > 1
    write_config(tmp_path, auths={"quay.io": {"auth": packed}})
    assert find_credentials("quay.io") == Credentials("ali", password)


def test_a_refused_login_is_named_by_where_it_is_from(tmp_path: Path) -> None:
    def refuse(request: Any) -> Any:
        return 401, {"WWW-Authenticate": 'Basic realm="own"'}, b""

    with scripted(refuse) as host:
        log_in(tmp_path / "docker", host, "the-secret\n")
        with pytest.raises(RegistryError, match="HTTP 401") as failure:
            repository(host).head_manifest("v1")
    assert f"the login of '{host}' in {tmp_path}/docker/config.json" in failure.value.hint
    assert "ends with a blank or line break" in failure.value.hint
    assert "the-secret" not in str(failure.value)


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io"])
def test_docker_hub_is_known_by_its_old_address(tmp_path: Path, key: str) -> None:
    log_in(tmp_path / "docker", key, "hub")
    found = find_credentials("docker.io", "library/python")
    assert found is not None and found.password == "hub"


def test_an_identity_token_is_read(tmp_path: Path) -> None:
    write_config(tmp_path, auths={"quay.io": {"auth": "YWxpOg==", "identitytoken": "refresh"}})
    assert find_credentials("quay.io") == Credentials("ali", "", "refresh")


def test_a_file_that_is_no_json_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text("[]")
    with pytest.raises(RegistryError, match=r"config\.json cannot be read"):
        find_credentials("quay.io")


# --- credential helpers --------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a helper program of the given name and shell script."""

    def install(name: str, script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder

    return install


def answering(user: str, secret: str) -> str:
    return f"""echo '{json.dumps({"Username": user, "Secret": secret})}'"""


def test_a_helper_is_asked_for_its_own_host(tmp_path: Path, helper: Any) -> None:
    folder = helper("own", f'cat > "$(dirname "$0")/asked"; {answering("ali", "helped")}')
    write_config(tmp_path, credHelpers={"quay.io": "own"})
    assert find_credentials("quay.io", "team/app") == Credentials("ali", "helped")
    assert (folder / "asked").read_text() == "quay.io"
    assert find_credentials("other.io", "team/app") is None


def test_a_store_is_asked_for_what_the_file_does_not_hold(tmp_path: Path, helper: Any) -> None:
    folder = helper("all", f'cat > "$(dirname "$0")/asked"; {answering("ali", "stored")}')
    packed = base64.b64encode(b"ali:filed").decode()
    auths = {"quay.io": {}, "ghcr.io": {"auth": packed}}
    write_config(tmp_path, auths=auths, credsStore="all")
    assert find_credentials("quay.io") == Credentials("ali", "stored")
    assert find_credentials("ghcr.io") == Credentials("ali", "filed")
    find_credentials("docker.io", "library/python")
    assert (folder / "asked").read_text() == "https://index.docker.io/v1/"


def test_a_helper_may_give_an_identity_token(tmp_path: Path, helper: Any) -> None:
    helper("own", answering("<token>", "refresh"))
    write_config(tmp_path, credHelpers={"quay.io": "own"})
    assert find_credentials("quay.io") == Credentials("", "", "refresh")


def test_a_helper_that_knows_nothing_means_anonymous(tmp_path: Path, helper: Any) -> None:
    helper("own", "echo 'credentials not found in native keychain'; exit 1")
    write_config(tmp_path, credHelpers={"quay.io": "own"})
    assert find_credentials("quay.io") is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo s3cret; echo s3cret >&2; exit 3", "exit status 3"),
        ("echo s3cret", "gave no credentials"),
        ("echo s3cret; exec sleep 20", "took more than 1 s"),
    ],
)
def test_a_helper_that_fails_is_named_without_what_it_said(
    tmp_path: Path, helper: Any, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr("kfp_bento.runtime.images.registry.credentials._HELPER_SECONDS", 1.0)
    helper("own", script)
    write_config(tmp_path, credHelpers={"quay.io": "own"})
    with pytest.raises(RegistryError, match=words) as failure:
        find_credentials("quay.io")
    told = f"{failure.value}{failure.value.__cause__!r}"
    assert "docker-credential-own" in told
    assert "s3cret" not in told


def test_a_helper_that_is_not_installed_is_named(tmp_path: Path, helper: Any) -> None:
    helper("own", "")
    write_config(tmp_path, credsStore="desktop")
    with pytest.raises(
        RegistryError, match="docker-credential-desktop cannot be started"
    ) as failure:
        find_credentials("quay.io")
    assert "config.json names it" in failure.value.hint


@pytest.mark.parametrize("name", ["../evil", "a/b", "-x", "a b"])
def test_a_helper_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    write_config(tmp_path, credsStore=name)
    with pytest.raises(RegistryError, match="names a credential helper by"):
        find_credentials("quay.io")


# --- tokens --------------------------------------------------------------------------------------


def test_a_token_is_good_for_many_requests_and_threads() -> None:
    fake = FakeRegistry()
    guard = Tokens(fake)
    with scripted(guard) as host:
        target = repository(host)
        threads = [threading.Thread(target=target.has_blob, args=(BLOB,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert fake.count("HEAD") == 12
    assert len(guard.asked) == 1


def test_a_token_is_renewed_before_it_expires() -> None:
    fake = FakeRegistry()
    guard = Tokens(fake, expires_in=2)
    with scripted(guard) as host:
        target = repository(host)
        target.has_blob(BLOB)
        target.has_blob(BLOB)
        time.sleep(1.7)
        target.has_blob(BLOB)
    assert len(guard.asked) == 2
    assert fake.count("HEAD") == 3
    refused = [item for item in guard.requests if item.headers.get("Authorization")]
    assert refused == []


def test_a_token_that_is_refused_when_fresh_is_an_error_at_once() -> None:
    asked: list[str] = []

    def answer(request: Any) -> Any:
        asked.append(request.path)
        if request.path.startswith("/token"):
            return 200, {}, b'{"access_token": "weak"}'
        realm = f'Bearer realm="http://{request.headers["Host"]}/token"'
        return 401, {"WWW-Authenticate": realm}, b""

    with scripted(answer) as host, pytest.raises(RegistryError, match="HTTP 401"):
        repository(host).put_blob(BLOB, Held(CONTENT))
    assert len(asked) == 3


def test_a_password_goes_to_the_token_server_and_the_token_to_the_registry(tmp_path: Path) -> None:
    fake = FakeRegistry()
    guard = Tokens(fake)
    with scripted(guard) as host:
        log_in(tmp_path / "docker", host, "secret")
        repository(host).put_blob(BLOB, Held(CONTENT))
    basic = Credentials("ali", "secret").basic
    assert {item.headers["Authorization"] for item in guard.requests} == {basic}
    assert {item.headers["Authorization"] for item in fake.requests} == {"Bearer t1", "Bearer t2"}


def test_an_identity_token_is_traded_for_an_access_token(tmp_path: Path) -> None:
    guard = Tokens(FakeRegistry())
    with scripted(guard) as host:
        write_config(tmp_path, auths={host: {"identitytoken": "refresh me"}})
        repository(host).put_blob(BLOB, Held(CONTENT))
    assert guard.requests[-1].command == "POST"
    assert guard.asked[-1] == {
        "service": ["s"],
        "scope": ["repository:a:pull,push"],
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh me"],
        "client_id": ["kfp-bento"],
    }


def test_a_login_is_read_again_when_the_old_one_is_refused(tmp_path: Path) -> None:
    """A mounted Secret that was renewed counts, without a restart."""
    good = ["old"]

    def answer(request: Any) -> Any:
        if request.headers.get("Authorization") != Credentials("ali", good[0]).basic:
            return 401, {"WWW-Authenticate": "Basic realm=x"}, b""
        return 404, {}, b""

    with scripted(answer) as host:
        log_in(tmp_path / "docker", host, "old")
        target = repository(host)
        assert not target.has_blob(BLOB)
        good[0] = "new"
        log_in(tmp_path / "docker", host, "new")
        assert not target.has_blob(BLOB)


def test_of_several_ways_to_log_in_the_token_is_taken(tmp_path: Path) -> None:
    def both(request: Any) -> Any:
        given = guard(request)
        if given is not None and given[0] == 401:
            challenge = given[1]["WWW-Authenticate"]
            return 401, {"WWW-Authenticate": f'Basic realm="x", {challenge}'}, b""
        return given

    guard = Tokens(FakeRegistry())
    with scripted(both) as host:
        log_in(tmp_path / "docker", host, "secret")
        assert not repository(host).has_blob(BLOB)
    assert len(guard.asked) == 1


@pytest.mark.parametrize("realm", ["http://elsewhere.example/token", "http://10.0.0.7/token", "x"])
def test_a_login_is_not_sent_where_there_is_no_tls(tmp_path: Path, realm: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    with scripted(lambda request: (401, challenge, b"")) as host:
        log_in(tmp_path / "docker", host, "secret")
        with pytest.raises(RegistryError, match="without TLS"):
            repository(host).head_manifest("v1")


def test_a_token_server_that_fails_for_a_while_is_waited_for() -> None:
    guard = Tokens(FakeRegistry())
    faults = [503, 429]

    def answer(request: Any) -> Any:
        if request.path.startswith("/token") and faults:
            return faults.pop(), {}, b""
        return guard(request)

    with scripted(answer) as host:
        assert not repository(host).has_blob(BLOB)


# --- a real registry that checks real tokens -----------------------------------------------------


@pytest.fixture
def issuer(certificate: tuple[Path, Path]) -> Any:
    """Signs a token for scopes (RFC 7519, RS256)."""
    chain = "".join(certificate[0].read_text().split("-----")[2].split())

    def pack(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    def sign(scopes: list[str]) -> str:
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        now = int(time.time())
        claims = {"iss": "tests", "sub": "ali", "aud": "s", "exp": now + 300, "nbf": now - 10}
        claims |= {"iat": now, "jti": hashlib.sha256(str(scopes).encode()).hexdigest()}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
        parts = (header, {**claims, "access": access})
        text = ".".join(pack(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(certificate[1])],
            input=text.encode(),
            check=True,
            capture_output=True,
        )
        return f"{text}.{pack(signed.stdout)}"

    return sign


def test_a_registry_with_tokens_takes_blobs_and_mounts(
    tmp_path: Path, certificate: tuple[Path, Path], issuer: Any
) -> None:
    asked: list[list[str]] = []

    def serve(request: Any) -> Any:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        asked.append(query["scope"])
        return 200, {}, json.dumps({"token": issuer(query["scope"]), "expires_in": 300}).encode()

    with scripted(serve) as tokens:
        settings = (
            f"auth: {{token: {{realm: 'http://{tokens}/token', service: s, issuer: tests, "
            f"rootcertbundle: {certificate[0]}}}}}\n"
        )
        with registry(tmp_path / "guarded", more=settings) as host:
            source, target = repository(host, "team/one"), repository(host, "team/two")
            assert source.put_blob(BLOB, Held(CONTENT)) == "sent"
            assert target.put_blob(BLOB, source) == "mounted"
            assert b"".join(target.open_blob(BLOB)) == CONTENT
    assert ["repository:team/two:pull,push", "repository:team/one:pull"] in asked
