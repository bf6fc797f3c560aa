"""Pushing to and reading from real registries, and what happens when they refuse."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import write_base
from registries import (
    NAMED,
    QUICK,
    FakeRegistry,
    Stream,
    certificate,
    describe,
    log_in,
    named,
    no_login,
    noise,
    registry,
    scripted,
)
from servers import free_port

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images import ImageOptions, build_image, choose_base
from kfp_bento.runtime.images.oci.image import Descriptor
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.registry.connections import RetryPolicy, is_loopback, is_plain
from kfp_bento.runtime.images.registry.repository import Repository
from kfp_bento.runtime.images.registry.transport import Transport

__all__ = ["certificate", "named", "no_login"]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.bentos import Bento


def test_an_image_is_pushed_by_digest_and_then_tagged(
    bento: Bento, base: str, oci_registry: str
) -> None:
    image = build_image(bento, f"{oci_registry}/demo/tiny", ImageOptions(base=base))
    assert image.reference == f"{oci_registry}/demo/tiny@{image.digest}"
    assert image.location == f"docker://{oci_registry}/demo/tiny"
    repository = Repository(parse_reference(f"{oci_registry}/demo/tiny"))
    by_tag, content = repository.fetch_manifest("v1")
    by_digest, _ = repository.fetch_manifest(image.digest)
    assert by_tag == by_digest
    assert [x["digest"] for x in json.loads(content)["layers"]] == [x.digest for x in image.layers]
    for layer in image.layers:
        assert sum(map(len, repository.open_blob(layer.descriptor))) == layer.size


def test_a_layout_and_a_registry_get_the_same_image(
    bento: Bento, base: str, oci_registry: str, tmp_path: Path
) -> None:
    pushed = build_image(bento, f"{oci_registry}/same/tiny", ImageOptions(base=base))
    written = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert pushed.digest == written.digest


def test_skopeo_reads_what_was_pushed(bento: Bento, base: str, oci_registry: str) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    image = build_image(bento, f"{oci_registry}/demo/read:v9", ImageOptions(base=base))
    done = subprocess.run(
        [skopeo, "inspect", "--tls-verify=false", f"docker://{oci_registry}/demo/read:v9"],
        check=True,
        capture_output=True,
    )
    assert json.loads(done.stdout)["Digest"] == image.digest


def test_a_base_in_a_registry_gives_the_same_layers_as_the_layout_it_came_from(
    bento: Bento, oci_registry: str, tmp_path: Path
) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    layout = write_base(tmp_path / "base", docker_types=True)
    name = f"{oci_registry}/library/python:base"
    subprocess.run(
        [skopeo, "copy", "--all", "--dest-tls-verify=false", layout, f"docker://{name}"],
        check=True,
        capture_output=True,
    )
    there = build_image(
        bento, f"oci:{tmp_path}/a", ImageOptions(base=name, cache=tmp_path / "cache")
    )
    here = build_image(bento, f"oci:{tmp_path}/b", ImageOptions(base=layout))
    pushed = build_image(bento, f"{oci_registry}/demo/based", ImageOptions(base=name))
    assert there.layers[0].digest == here.layers[0].digest
    assert there.base.startswith(f"{name}@sha256:")
    assert there.digest == pushed.digest


def test_one_base_under_two_names_gives_one_image(
    bento: Bento, oci_registry: str, tmp_path: Path
) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    layout = write_base(tmp_path / "base")
    digests = set()
    for name in (f"{oci_registry}/library/python:one", f"{oci_registry}/mirror/python:two"):
        copy = [skopeo, "copy", "--dest-tls-verify=false", layout, f"docker://{name}"]
        subprocess.run(copy, check=True, capture_output=True)
        digests.add(
            build_image(bento, f"{oci_registry}/demo/named", ImageOptions(base=name)).digest
        )
    assert len(digests) == 1


def test_a_registry_that_is_read_only_refuses_in_a_clear_sentence(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    readonly = "  maintenance: {readonly: {enabled: true}}\n"
    with (
        registry(tmp_path / "registry", storage=readonly) as address,
        pytest.raises(RegistryError, match="HTTP 405") as failure,
    ):
        build_image(bento, f"{address}/demo/tiny", ImageOptions(base=base))
    assert "read-only" in failure.value.hint


def test_a_registry_that_is_not_there_is_named(bento: Bento, base: str) -> None:
    port = free_port()
    repository = Repository(parse_reference(f"127.0.0.1:{port}/a"), RetryPolicy(attempts=1))
    with pytest.raises(RegistryError, match=f"127.0.0.1:{port} cannot be reached"):
        repository.head_manifest("v1")


def test_an_unknown_base_is_named(bento: Bento, oci_registry: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"no/such:1: HTTP 404"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=f"{oci_registry}/no/such:1"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A registry that wants a user name and a password."""
    htpasswd = tmp_path / "htpasswd"
    # bcrypt of "open sesame"; the registry takes no other scheme.
    htpasswd.write_text("ali:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n")
    auth = f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}\n"
    with registry(tmp_path / "guarded", more=auth) as address:
        yield address


def test_a_login_of_docker_is_used(bento: Bento, base: str, guarded: str, tmp_path: Path) -> None:
    log_in(tmp_path / "docker", guarded, "open sesame")
    image = build_image(bento, f"{guarded}/demo/tiny", ImageOptions(base=base))
    assert Repository(parse_reference(f"{guarded}/demo/tiny")).head_manifest(image.digest)


def test_without_a_login_the_hint_says_how(bento: Bento, base: str, guarded: str) -> None:
    with pytest.raises(RegistryError, match="HTTP 401") as failure:
        build_image(bento, f"{guarded}/demo/tiny", ImageOptions(base=base))
    assert "without credentials" in failure.value.hint
    assert "the Secret that image_secret names holds the login" in failure.value.hint


def test_a_wrong_password_never_shows_in_the_error(
    bento: Bento, base: str, guarded: str, tmp_path: Path
) -> None:
    log_in(tmp_path / "docker", guarded, "guessed-secret")
    with pytest.raises(RegistryError, match="HTTP 401") as failure:
        build_image(bento, f"{guarded}/demo/tiny", ImageOptions(base=base))
    shown = f"{failure.value}{failure.value!r}{failure.value.__cause__!r}"
    assert "guessed-secret" not in shown
    assert base64.b64encode(b"ali:guessed-secret").decode() not in shown


MANIFEST = b'{"schemaVersion": 2, "layers": []}'


def test_what_passes_is_tried_again() -> None:
    answers = [(503, {}, b""), (429, {"Retry-After": "0"}, b""), (200, {}, MANIFEST)]
    with scripted(lambda request: answers.pop(0)) as host:
        found, _ = Repository(parse_reference(f"{host}/a"), QUICK).fetch_manifest("v1")
    assert found.digest == f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


def test_what_does_not_pass_is_given_up() -> None:
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.path)
        return 503, {}, b""

    with scripted(answer) as host, pytest.raises(RegistryError, match="HTTP 503"):
        Repository(parse_reference(f"{host}/a"), QUICK).fetch_manifest("v1")
    assert len(asked) == 3


def test_a_manifest_that_is_not_its_digest_is_refused() -> None:
    wanted = f"sha256:{'0' * 64}"
    with (
        scripted(lambda request: (200, {}, MANIFEST)) as host,
        pytest.raises(RegistryError, match="answered with"),
    ):
        Repository(parse_reference(f"{host}/a"), QUICK).fetch_manifest(wanted)


@pytest.mark.parametrize("content", [b"short", b"wrong content", b"much longer than it should be"])
def test_a_blob_that_is_not_its_digest_is_refused(content: bytes) -> None:
    right = b"right content"
    blob = Descriptor("x", f"sha256:{hashlib.sha256(right).hexdigest()}", len(right))
    with (
        scripted(lambda request: (200, {}, content)) as host,
        pytest.raises(RegistryError.__base__, match="gave bytes that are not"),
    ):
        list(Repository(parse_reference(f"{host}/a"), QUICK).open_blob(blob))


def test_an_upload_is_not_sent_to_another_host(tmp_path: Path) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.command == "HEAD":
            return 404, {}, b""
        return 202, {"Location": "http://elsewhere.example/upload"}, b""

    with scripted(answer) as host, pytest.raises(RegistryError, match=r"elsewhere\.example"):
        repository = Repository(parse_reference(f"{host}/a"), QUICK)
        repository.put_blob(Descriptor("x", f"sha256:{'0' * 64}", 1), repository)


def test_a_token_is_fetched_for_what_is_asked_and_used(
    tmp_path: Path, bento: Bento, base: str
) -> None:
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.path.startswith("/token"):
            asked.append(request.path)
            return 200, {}, b'{"token": "t0ken"}'
        if request.headers.get("Authorization") != "Bearer t0ken":
            realm = f'Bearer realm="http://{request.headers["Host"]}/token",service="s"'
            return 401, {"WWW-Authenticate": realm}, b""
        return 404 if request.command == "HEAD" else 201, {}, b""

    with scripted(answer) as host:
        repository = Repository(parse_reference(f"{host}/a/b"), QUICK)
        digest = hashlib.sha256(MANIFEST).hexdigest()
        manifest = Descriptor("m", f"sha256:{digest}", len(MANIFEST))
        repository.tag(manifest, MANIFEST, "v1")
    assert asked == [
        "/token?service=s&scope=repository%3Aa%2Fb%3Apull",
        "/token?service=s&scope=repository%3Aa%2Fb%3Apull%2Cpush",
    ]


def test_a_redirect_takes_no_authorisation_along(tmp_path: Path) -> None:
    seen: list[str | None] = []
    content = b"blob"
    blob = Descriptor("x", f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))

    def storage(request: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        seen.append(request.headers.get("Authorization"))
        return 200, {}, content

    with scripted(storage) as other:

        def front(request: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
            if not request.headers.get("Authorization"):
                return 401, {"WWW-Authenticate": "Basic realm=x"}, b""
            return 307, {"Location": f"http://{other}/blob"}, b""

        with scripted(front) as host:
            log_in(tmp_path / "docker", host, "secret")
            got = b"".join(Repository(parse_reference(f"{host}/a"), QUICK).open_blob(blob))
    assert got == content
    assert seen == [None]


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.8.9.1:5000", "[::1]:5000"])
def test_plain_http_is_used_for_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "quay.io", "127.0.0.1.evil.org", "localhost.evil.org"]
)
def test_plain_http_is_used_for_nobody_else(host: str) -> None:
    assert not is_loopback(host)


def test_choosing_a_base_prefers_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_BENTO_BASE_IMAGE", "quay.io/base")
    assert choose_base("3.11", wanted="host") == "host"
    assert choose_base("3.11") == "quay.io/base"


def test_without_a_network_the_base_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_BENTO_BASE_IMAGE", raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    assert choose_base("3.11", seconds=1) == "host"
    with pytest.raises(RegistryError.__base__, match="No base image"):
        choose_base("3.11", seconds=1, allow_host=False)


def test_the_registry_fixture_is_real(oci_registry: str) -> None:
    with urllib.request.urlopen(f"http://{oci_registry}/v2/") as answer:
        assert answer.status == 200


def test_a_second_push_of_the_same_image_says_that_nothing_changed(
    bento: Bento, base: str, oci_registry: str
) -> None:
    first = build_image(bento, f"{oci_registry}/demo/again", ImageOptions(base=base))
    second = build_image(bento, f"{oci_registry}/demo/again", ImageOptions(base=base))
    assert (first.reused, second.reused) == (False, True)
    other = build_image(bento, f"{oci_registry}/demo/again:other", ImageOptions(base=base))
    assert not other.reused
    assert first.digest == second.digest == other.digest


# --- without TLS, and with it --------------------------------------------------------------------


def repository(host: str, patience: RetryPolicy = QUICK) -> Repository:
    return Repository(parse_reference(f"{host}/a"), patience)


def test_a_registry_without_tls_needs_to_be_listed(
    oci_registry: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"{named}:{oci_registry.rpartition(':')[2]}"
    with pytest.raises(RegistryError, match="cannot be reached") as failure:
        repository(host).head_manifest("v1")
    assert f"add '{host}' to KFP_BENTO_INSECURE_REGISTRIES" in failure.value.hint
    monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", f"other.svc, {host}")
    assert repository(host).head_manifest("v1") is None


@pytest.mark.parametrize("listed", ["registry.images.svc", "images.svc:5000", "*", "5000"])
def test_a_registry_is_listed_by_its_whole_name(
    listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", listed)
    assert not is_plain("registry.images.svc:5000")


@pytest.mark.parametrize("form", ["http://{}", "{}/", " {} ", "https://{}/"])
def test_a_registry_may_be_listed_as_an_address(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", form.format("Registry.Images.svc:5000"))
    assert is_plain("registry.images.svc:5000")


def test_a_public_name_without_tls_is_told_of_the_list(
    oci_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    host = f"registry.corp.example:{oci_registry.rpartition(':')[2]}"
    with pytest.raises(RegistryError, match="cannot be reached") as failure:
        repository(host).head_manifest("v1")
    assert f"add '{host}' to KFP_BENTO_INSECURE_REGISTRIES" in failure.value.hint


@pytest.mark.parametrize("ask", [Repository.head_manifest, Repository.fetch_manifest])
def test_a_registry_with_tls_is_not_to_be_listed(
    ask: Any,
    tmp_path: Path,
    named: str,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = f", tls: {{certificate: {certificate[0]}, key: {certificate[1]}}}"
    with registry(tmp_path / "tls", tls=tls) as address:
        host = f"{named}:{address.rpartition(':')[2]}"
        monkeypatch.setenv("KFP_BENTO_INSECURE_REGISTRIES", host)
        with pytest.raises(
            RegistryError, match="seems to have TLS, and is asked without"
        ) as failure:
            ask(repository(host), "v1")
    assert f"Take '{host}' out of KFP_BENTO_INSECURE_REGISTRIES" in failure.value.hint


def test_a_certificate_of_ones_own_is_trusted_when_named(
    tmp_path: Path, named: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = f", tls: {{certificate: {certificate[0]}, key: {certificate[1]}}}"
    with registry(tmp_path / "tls", tls=tls) as address:
        host = f"{named}:{address.rpartition(':')[2]}"
        with pytest.raises(RegistryError, match="certificate verify failed") as failure:
            repository(host, RetryPolicy(attempts=3, backoff=60)).head_manifest("v1")
        assert "SSL_CERT_FILE" in failure.value.hint
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        stream = Stream(noise(3 << 20))
        repository(host).put_stream(stream)
        blob = Descriptor("x", stream.digest, stream.size)
        assert b"".join(repository(host).open_blob(blob)) == stream.content


@pytest.fixture
def encrypted(
    named: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext:
    """What a scripted server needs to be believed to be `NAMED`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_an_answer_that_ends_an_upload_early_is_heard_with_tls_too(
    encrypted: ssl.SSLContext,
) -> None:
    fake = FakeRegistry()

    def fault(request: Any) -> Any:
        if request.command == "PATCH" and not request.headers.get("Content-Range"):
            return 413, {}, b""
        return None

    fake.fault = fault
    with scripted(fake, tls=encrypted, unread={"PATCH"}) as address:
        target = repository(f"{NAMED}:{address.rpartition(':')[2]}")
        target.put_stream(stream := Stream(noise(9 << 20)))
    assert set(fake.blobs) == {stream.digest}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("http://elsewhere.example/blob", "without TLS"),
        ("https://127.0.0.1:1/blob", "this machine"),
        ("https://localhost:1/blob", "this machine"),
        ("file:///etc/passwd", "without TLS"),
    ],
)
def test_a_redirect_does_not_lead_to_where_a_registry_has_no_business(
    encrypted: ssl.SSLContext, place: str, words: str
) -> None:
    with scripted(lambda request: (307, {"Location": place}, b""), tls=encrypted) as address:
        target = repository(f"{NAMED}:{address.rpartition(':')[2]}")
        with pytest.raises(RegistryError, match=words):
            list(target.open_blob(describe(b"x")))


ADDRESSES = {"quay.io": "8.8.8.8", "cdn.example": "8.8.4.4", "inside.example": "10.1.2.3"}


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ADDRESSES[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.mark.parametrize(
    "place",
    ["10.0.0.1", "169.254.169.254", "[fd00::1]", "[fe80::1]", "192.168.1.1:8443", "inside.example"],
)
@pytest.mark.usefixtures("addresses")
def test_a_public_registry_does_not_lead_into_our_own_network(place: str) -> None:
    with pytest.raises(RegistryError, match="own network"):
        Transport("quay.io", "a", QUICK).check_address(f"https://{place}/blob", "redirects")


@pytest.mark.parametrize(
    ("listed", "place"),
    [
        ("10.1.2.3:5001", "10.1.2.3:5001"),
        ("s3.example, 10.1.2.3", "10.1.2.3:5001"),
        ("INSIDE.example/", "inside.example"),
        ("https://inside.example:443", "inside.example"),
        ("[fd00::1]:5001", "[fd00::1]:5001"),
    ],
)
@pytest.mark.usefixtures("addresses")
def test_content_may_be_kept_in_our_own_network_where_that_is_said(
    listed: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, address = Transport("quay.io", "a", QUICK), f"https://{place}/blob"
    with pytest.raises(RegistryError, match="own network") as failure:
        transport.check_address(address, "redirects", storage=True)
    assert f"KFP_BENTO_ALLOWED_STORAGE_HOSTS={place}" in failure.value.hint
    monkeypatch.setenv("KFP_BENTO_ALLOWED_STORAGE_HOSTS", listed)
    transport.check_address(address, "redirects", storage=True)
    with pytest.raises(RegistryError, match="own network"):
        transport.check_address(address, "asks for a login")


@pytest.mark.parametrize("listed", ["10.1.2.3:5002", "10.1.2.30", "*", "10.0.0.0/8", "5001", ","])
@pytest.mark.usefixtures("addresses")
def test_a_storage_host_is_listed_by_its_whole_name(
    listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_ALLOWED_STORAGE_HOSTS", listed)
    with pytest.raises(RegistryError, match="own network"):
        Transport("quay.io", "a", QUICK).check_address(
            "https://10.1.2.3:5001/blob", "redirects", storage=True
        )


@pytest.mark.parametrize(
    ("host", "place"),
    [("quay.io", "cdn.example"), ("inside.example", "10.9.9.9"), ("quay.io", "quay.io")],
)
@pytest.mark.usefixtures("addresses")
def test_other_redirects_are_followed(host: str, place: str) -> None:
    Transport(host, "a", QUICK).check_address(f"https://{place}/blob", "redirects")


# --- manifests and waiting -----------------------------------------------------------------------


def test_a_manifest_is_given_byte_for_byte(bento: Bento, base: str, oci_registry: str) -> None:
    image = build_image(bento, f"{oci_registry}/demo/bytes", ImageOptions(base=base))
    found = Repository(parse_reference(f"{oci_registry}/demo/bytes")).read_manifest_bytes("v1")
    assert found is not None
    assert found[0].digest == image.digest == describe(found[1]).digest


def test_a_manifest_that_is_not_there_is_none(oci_registry: str) -> None:
    assert repository(oci_registry).read_manifest_bytes("nothing") is None


def test_a_registry_that_says_no_digest_has_its_manifest_read() -> None:
    with scripted(lambda request: (200, {"Content-Type": "m; x=y"}, MANIFEST)) as host:
        assert repository(host).head_manifest("v1") == describe(MANIFEST, "m")


def test_a_manifest_that_is_too_large_is_refused_in_both_directions() -> None:
    large = b" " * ((4 << 20) + 1)
    with scripted(lambda request: (200, {}, large)) as host:
        with pytest.raises(RegistryError, match="larger than 4 MiB"):
            repository(host).read_manifest_bytes("v1")
        with pytest.raises(RegistryError, match="4 MiB at most"):
            repository(host).put_manifest(describe(large), large)


def test_a_manifest_that_breaks_off_is_read_again() -> None:
    broken = [True]

    def answer(request: Any) -> Any:
        if broken:
            broken.clear()
            request.close_connection = True
            return 200, {"Content-Length": str(len(MANIFEST))}, MANIFEST[:5]
        return 200, {}, MANIFEST

    with scripted(answer) as host:
        assert repository(host).read_manifest_bytes("v1") == (describe(MANIFEST, ""), MANIFEST)


@pytest.mark.parametrize(
    ("wish", "least", "most"),
    [
        ("7", 7, 7),
        ("3600", 60, 60),
        ("{date}", 18, 21),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0.05),
        ("soon", 0, 0.05),
    ],
)
def test_a_registry_says_how_long_to_wait(
    wish: str, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    asking, really_sleep = threading.get_ident(), time.sleep

    def sleep(seconds: float) -> None:
        if threading.get_ident() == asking:
            waits.append(seconds)
        else:
            really_sleep(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    answers = [(429, {"Retry-After": wish.format(date=date)}, b""), (200, {}, MANIFEST)]
    with scripted(lambda request: answers.pop(0)) as host:
        repository(host).fetch_manifest("v1")
    ours = [wait for wait in waits if wait != 0.02]
    assert len(ours) == 1
    assert least <= ours[0] <= most
