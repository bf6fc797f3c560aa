"""How blobs get into a registry and out of it, whatever happens on the way."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from registries import (
    QUICK,
    FakeRegistry,
    Held,
    Stream,
    Tokens,
    describe,
    digest_of,
    error,
    no_login,
    noise,
    registry,
    scripted,
)

from kfp_bento.runtime.errors import ImageError, RegistryError
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.registry.connections import RetryPolicy
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kfp_bento.runtime.images.oci.image import Descriptor

__all__ = ["no_login"]

CONTENT = noise(9 << 20)
BLOB = describe(CONTENT)
SMALL = noise(100_000)


def repository(host: str, patience: RetryPolicy = QUICK, name: str = "a") -> Repository:
    return Repository(parse_reference(f"{host}/{name}"), patience)


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def read(where: Repository, blob: Descriptor) -> bytes:
    return b"".join(where.open_blob(blob))


# --- a real registry -----------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["stream", "whole", "pieces"])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "a byte", "9 MiB"])
def test_a_registry_gets_what_was_sent_whichever_way(
    oci_registry: str, route: Any, content: bytes
) -> None:
    target = repository(oci_registry, name=f"ways/{route}{len(content)}")
    target._uploads._route = route
    stream = Stream(content)
    target.put_stream(stream)
    assert (stream.digest, stream.size) == (digest_of(content), len(content))
    assert read(target, describe(content)) == content
    assert target._uploads._route == route


def test_a_blob_that_is_there_is_not_sent_again(oci_registry: str) -> None:
    target = repository(oci_registry, name="twice")
    blob = describe(SMALL)
    assert target.put_blob(blob, Held(SMALL)) == "sent"
    assert target.put_blob(blob, Held(SMALL)) == "present"


def test_a_blob_of_a_neighbour_is_mounted(oci_registry: str) -> None:
    source = repository(oci_registry, name="neighbour/source")
    blob = describe(SMALL)
    source.put_blob(blob, Held(SMALL))
    target = repository(oci_registry, name="neighbour/target")
    assert target.put_blob(blob, source) == "mounted"
    assert read(target, blob) == SMALL


def test_a_blob_goes_from_one_registry_to_another(oci_registry: str) -> None:
    fake = FakeRegistry()
    fake.blobs[BLOB.digest] = CONTENT
    with scripted(fake) as host:
        target = repository(oci_registry, name="copied")
        assert target.put_blob(BLOB, repository(host)) == "sent"
    assert read(target, BLOB) == CONTENT


def test_many_threads_push_through_one_repository(oci_registry: str) -> None:
    target = repository(oci_registry, name="parallel")
    contents = [bytes([number]) * 300_000 for number in range(24)]

    def push(content: bytes) -> None:
        target.put_blob(describe(content), Held(content))
        assert read(target, describe(content)) == content

    threads = [threading.Thread(target=push, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(target.has_blob(describe(content)) for content in contents)


@pytest.mark.parametrize("route", ["stream", "whole", "pieces"])
def test_a_source_that_fails_leaves_no_upload_behind(tmp_path: Path, route: Any) -> None:
    def broken() -> Iterator[bytes]:
        yield CONTENT[: 8 << 20]
        raise ImageError("the file changed")

    stream = Stream(CONTENT)
    with registry(tmp_path) as host:
        target = repository(host)
        target._uploads._route = route
        whole, stream.open = stream.open, broken  # type: ignore[method-assign]
        with pytest.raises(ImageError, match="the file changed"):
            target.put_stream(stream)
        assert list(tmp_path.rglob("_uploads/*/data")) == []
        stream.open = whole  # type: ignore[method-assign]
        target.put_stream(stream)
        assert read(target, BLOB) == CONTENT


# --- mounts --------------------------------------------------------------------------------------


def neighbours(host: str) -> tuple[Repository, Repository]:
    return repository(host, name="from"), repository(host, name="a")


def test_a_mount_that_is_not_granted_goes_on_as_an_upload() -> None:
    fake = FakeRegistry()
    fake.blobs[BLOB.digest] = CONTENT

    def fault(request: Any) -> Any:
        if request.command == "HEAD":
            return 404, {}, b""
        return None

    fake.fault = fault
    with scripted(fake) as host:
        source, target = neighbours(host)
        assert target.put_blob(BLOB, source) == "sent"
    assert fake.count("POST") == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_registry_without_mounts_is_asked_for_them_once(status: int) -> None:
    fake = FakeRegistry()

    def fault(request: Any) -> Any:
        if "mount=" in request.path:
            return status, {}, error("UNSUPPORTED")
        return None

    fake.fault = fault
    contents = (b"one", b"two")
    with scripted(fake) as host:
        source, target = neighbours(host)
        for content in contents:
            fake.blobs = {digest_of(content): content}
            blob = describe(content)
            assert source.has_blob(blob)
            target.has_blob = lambda blob: False  # type: ignore[method-assign]
            target.put_blob(blob, source)
    assert sum("mount=" in request.path for request in fake.requests) == 1


def test_the_token_of_a_mount_is_good_for_both_repositories() -> None:
    fake = FakeRegistry()
    guard = Tokens(fake)

    def fault(request: Any) -> Any:
        return (201, {}, b"") if "mount=" in request.path else None

    fake.fault = fault
    with scripted(guard) as host:
        source, target = neighbours(host)
        assert target.put_blob(BLOB, source) == "mounted"
    assert guard.asked[-1]["scope"] == ["repository:a:pull,push", "repository:from:pull"]


# --- ways that registries do not take ------------------------------------------------------------


def unstreamed(status: int) -> Callable[[Any], Any]:
    def fault(request: Any) -> Any:
        streamed = request.headers.get("Transfer-Encoding") == "chunked"
        return (status, {}, b"") if request.command == "PATCH" and streamed else None

    return fault


@pytest.mark.parametrize("status", [400, 405, 411, 413, 416, 501])
def test_a_registry_that_takes_no_streams_gets_the_blob_another_way(status: int) -> None:
    fake = FakeRegistry()
    fake.fault = unstreamed(status)
    with scripted(fake) as host:
        target = repository(host)
        assert target.put_blob(BLOB, Held(CONTENT)) == "sent"
        other = Stream(SMALL)
        target.put_stream(other)
    assert fake.blobs == {BLOB.digest: CONTENT, other.digest: SMALL}
    streamed = [x for x in fake.requests if x.headers.get("Transfer-Encoding")]
    assert len(streamed) == 1  # and the second blob goes the right way at once
    assert fake.uploads == {}


def test_a_stream_refused_for_its_form_is_sent_with_its_length() -> None:
    fake = FakeRegistry()
    fake.fault = unstreamed(411)
    stream = Stream(CONTENT)
    with scripted(fake) as host:
        repository(host).put_stream(stream)
    assert fake.count("PATCH") == 1
    assert fake.requests[-1].headers["Content-Length"] == str(len(CONTENT))


def test_a_registry_that_caps_the_size_of_a_request_gets_pieces() -> None:
    fake = FakeRegistry()
    fake.limit = 4 << 20
    with scripted(fake) as host:
        repository(host).put_stream(Stream(CONTENT))
    assert fake.blobs == {BLOB.digest: CONTENT}
    ranges = [x.headers.get("Content-Range") for x in fake.requests if x.command == "PATCH"]
    assert ranges == [None, "0-4194303", "4194304-8388607", "8388608-9437183"]


def test_pieces_are_as_large_as_the_registry_wants() -> None:
    fake = FakeRegistry()
    fake.limit, fake.least = 6 << 20, 6 << 20
    with scripted(fake) as host:
        repository(host).put_stream(Stream(CONTENT))
    ranges = [x.headers.get("Content-Range") for x in fake.requests if x.command == "PATCH"]
    assert ranges == [None, "0-6291455", "6291456-9437183"]


@pytest.mark.parametrize("told", [True, False])
def test_pieces_that_are_dropped_in_silence_are_noticed(told: bool) -> None:
    fake = FakeRegistry()
    fake.swallow = True

    def fault(request: Any) -> Any:
        if request.command == "PATCH" and not told:
            status, headers, body = fake._answer(
                request, request.path.partition("?")[0], {"_state": "x="}
            )
            return status, {"Location": headers["Location"]}, body
        return None

    fake.fault = fault
    with scripted(fake) as host:
        target = repository(host)
        target._uploads._route = "pieces"
        target.put_stream(Stream(CONTENT))
    assert fake.blobs == {BLOB.digest: CONTENT}
    assert fake.requests[-1].command == "PUT"
    assert fake.requests[-1].headers["Content-Length"] == str(len(CONTENT))


def test_a_registry_that_takes_no_way_at_all_is_given_up() -> None:
    fake = FakeRegistry()
    fake.limit = 1000
    with scripted(fake) as host, pytest.raises(RegistryError, match="HTTP 416"):
        repository(host).put_stream(Stream(CONTENT))
    assert fake.uploads == {}


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "DENIED", "Ask for the right"),
        (400, "DENIED", "Ask for the right"),
        (500, "UNKNOWN: no space left on device", "storage is full"),
        (507, "", "storage is full"),
        (412, "PRECONDITION: Quota exceeded", "quota is used up"),
    ],
)
def test_what_cannot_pass_is_not_tried_again(status: int, code: str, hint: str) -> None:
    fake = FakeRegistry()
    name, _, words = code.partition(": ")

    def fault(request: Any) -> Any:
        return (status, {}, error(name, words)) if request.command == "PATCH" else None

    fake.fault = fault
    with scripted(fake) as host, pytest.raises(RegistryError, match=str(status)) as failure:
        repository(host).put_stream(Stream(SMALL))
    assert hint in failure.value.hint
    assert fake.count("PATCH") == 1


def test_an_answer_that_comes_early_is_heard_before_all_is_sent() -> None:
    """The server says no after the headers, and never reads the body."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            for answer in (
                b"HTTP/1.1 202 Accepted\r\nLocation: /v2/a/blobs/uploads/1\r\n"
                b"Connection: close\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            ):
                connection, _ = server.accept()
                reader = connection.makefile("rb")
                while reader.readline().strip():
                    pass
                connection.sendall(answer)
                if b"403" in answer:
                    done.wait(30)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        stream = Stream(noise(64 << 20), 1 << 20)
        target = repository(address(server), RetryPolicy(attempts=1, read=5))
        target._http.abandon = lambda url: None  # type: ignore[method-assign]
        with pytest.raises(RegistryError, match="HTTP 403"):
            target.put_stream(stream)
        done.set()
        thread.join(10)


# --- failures that pass --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "HEAD"])
@pytest.mark.parametrize("fault", [408, 429, 499, 500, 502, 503, 504, 522, "hang up"])
def test_an_upload_survives_what_passes(method: str, fault: Any) -> None:
    fake = FakeRegistry()
    faults = [fault]

    def once(request: Any) -> Any:
        if request.command != method or not faults:
            return None
        given = faults.pop()
        return given if isinstance(given, str) else (given, {}, b"")

    fake.fault = once
    with scripted(fake) as host:
        assert repository(host).put_blob(describe(SMALL), Held(SMALL)) == "sent"
    assert fake.blobs == {digest_of(SMALL): SMALL}
    assert fake.uploads == {}
    assert not faults


def test_bytes_lost_on_the_way_are_sent_again() -> None:
    fake = FakeRegistry()

    def lossy(request: Any) -> Any:
        if request.command == "PATCH" and fake.count("PATCH") == 1:
            request.body = request.body[:-1]
        return None

    fake.fault = lossy
    stream = Stream(SMALL)
    with scripted(fake) as host:
        repository(host).put_stream(stream)
    assert fake.blobs == {stream.digest: SMALL}
    assert stream.opened == 2


def test_an_upload_whose_answer_was_lost_is_not_sent_twice() -> None:
    fake = FakeRegistry()

    def stored_but_silent(request: Any) -> Any:
        if request.command == "PUT":
            fake.blobs[digest_of(SMALL)] = SMALL
            return "hang up"
        return None

    fake.fault = stored_but_silent
    stream = Stream(SMALL)
    with scripted(fake) as host:
        repository(host).put_stream(stream)
    assert stream.opened == 1


def test_an_upload_that_the_registry_forgot_is_begun_again() -> None:
    fake = FakeRegistry()

    def forgetful(request: Any) -> Any:
        if request.command == "PUT" and fake.count("PUT") == 1:
            fake.uploads.clear()
        return None

    fake.fault = forgetful
    with scripted(fake) as host:
        repository(host).put_stream(Stream(SMALL))
    assert fake.blobs == {digest_of(SMALL): SMALL}


def test_a_token_that_expires_within_an_upload_is_renewed() -> None:
    fake = FakeRegistry()
    guard = Tokens(fake)

    def expire(request: Any) -> Any:
        if request.command == "POST" and fake.count("POST") == 1:
            guard.valid.clear()
        return None

    fake.fault = expire
    stream = Stream(SMALL)
    with scripted(guard) as host:
        repository(host, RetryPolicy(attempts=2, backoff=30)).put_stream(stream)
    assert fake.blobs == {stream.digest: SMALL}
    assert stream.opened == 2


# --- what was stored -----------------------------------------------------------------------------


def test_a_blob_stored_under_another_digest_is_an_error() -> None:
    fake = FakeRegistry()

    def wrong(request: Any) -> Any:
        wrong = {"Docker-Content-Digest": digest_of(b"other")}
        return (201, wrong, b"") if request.command == "PUT" else None

    fake.fault = wrong
    with scripted(fake) as host, pytest.raises(RegistryError, match="stored the blob as"):
        repository(host).put_stream(Stream(SMALL))


def test_a_registry_that_says_nothing_is_checked() -> None:
    fake = FakeRegistry()
    fake.echo = False
    with scripted(fake) as host:
        repository(host).put_stream(Stream(SMALL))
    assert fake.asked[-1].startswith("HEAD ")


def test_a_blob_that_was_cut_short_is_an_error() -> None:
    fake = FakeRegistry()
    fake.echo = False
    fake.stored = lambda content: content[:-1]
    with scripted(fake) as host, pytest.raises(RegistryError, match="holds a damaged blob"):
        repository(host).put_stream(Stream(SMALL))


def test_a_location_is_followed_as_it_was_given(oci_registry: str) -> None:
    """The fake wants its `_state` back; a real one gives absolute addresses."""
    fake = FakeRegistry()
    with scripted(fake) as host:
        repository(host).put_stream(Stream(SMALL))
    patch = next(item for item in fake.requests if item.command == "PATCH")
    assert patch.path.endswith("?_state=x%3D")


@pytest.mark.parametrize(
    "place", ["http://10.0.0.1/x", "//169.254.169.254/x", "https://elsewhere.example/x", ""]
)
def test_an_upload_stays_with_its_registry(place: str) -> None:
    fake = FakeRegistry()
    fake.fault = lambda request: (
        (202, {"Location": place} if place else {}, b"") if request.command == "POST" else None
    )
    with scripted(fake) as host, pytest.raises(RegistryError, match="wanted to send the upload"):
        repository(host).put_stream(Stream(SMALL))
    assert fake.count("PATCH") == 0


# --- downloads -----------------------------------------------------------------------------------


class Dropping:
    """Gives a blob, but hangs up `drops` times after `after` bytes each."""

    def __init__(self, content: bytes, drops: int, *, after: int, ranges: bool = True) -> None:
        self.content, self.drops, self.after, self.ranges = content, drops, after, ranges
        self.asked: list[str | None] = []

    def __call__(self, request: Any) -> Any:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        part = self.content[start:]
        whole = len(self.content)
        headers = {"Content-Length": str(len(part))}
        if wanted and self.ranges:
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        if self.drops:
            self.drops -= 1
            part = part[: self.after + (0 if self.ranges else self.after * len(self.asked))]
            headers["Connection"] = "close"
            request.close_connection = True
        return 206 if "Content-Range" in headers else 200, headers, part


def test_a_broken_download_is_taken_up_where_it_stopped() -> None:
    server = Dropping(CONTENT, 2, after=3 << 20)
    with scripted(server) as host:
        assert read(repository(host), BLOB) == CONTENT
    assert server.asked == [None, f"bytes={3 << 20}-", f"bytes={6 << 20}-"]


def test_a_server_without_ranges_has_its_bytes_skipped() -> None:
    server = Dropping(CONTENT, 2, after=1 << 20, ranges=False)
    with scripted(server) as host:
        assert read(repository(host), BLOB) == CONTENT


@pytest.mark.parametrize("sent", [1 << 20, len(CONTENT)], ids=["in the middle", "at the end"])
def test_a_download_of_untold_length_is_taken_up_as_well(sent: int) -> None:
    asked: list[str] = []

    def answer(request: Any) -> Any:
        if wanted := request.headers.get("Range"):
            asked.append(wanted)
            start = int(wanted[6:-1])
            more = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/*"}
            return 206, more, CONTENT[start:]
        request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        request.wfile.write(b"%x\r\n%b\r\n" % (sent, CONTENT[:sent]))
        return None

    with scripted(answer) as host:
        assert read(repository(host), BLOB) == CONTENT
    assert asked == ([] if sent == len(CONTENT) else [f"bytes={sent}-"])


def test_a_download_that_keeps_breaking_is_given_up() -> None:
    server = Dropping(CONTENT, 9, after=1000)
    with scripted(server) as host, pytest.raises(RegistryError, match="broke off after 3000 of"):
        read(repository(host), BLOB)
    assert len(server.asked) == 3


def test_a_part_that_was_not_asked_for_is_not_taken() -> None:
    server = Dropping(CONTENT, 1, after=1 << 20)

    def shifted(request: Any) -> Any:
        status, headers, part = server(request)
        if status == 206:
            headers["Content-Range"] = f"bytes {2 << 20}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return status, headers, part

    with scripted(shifted) as host, pytest.raises(RegistryError, match="broke off"):
        read(repository(host), BLOB)


def test_an_upload_does_not_see_the_drops_of_its_source(oci_registry: str) -> None:
    server = Dropping(CONTENT, 2, after=2 << 20)
    with scripted(server) as host:
        target = repository(oci_registry, name="drops")
        target.put_blob(BLOB, repository(host))
    assert read(target, BLOB) == CONTENT


# --- peers that hold us up -----------------------------------------------------------------------

IMPATIENT = RetryPolicy(attempts=1, read=10, floor=1000, window=0.5)


def test_a_download_that_trickles_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                for _ in range(200):
                    connection.sendall(b"x")
                    time.sleep(0.05)
            except OSError:
                pass
            connection.close()

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(RegistryError, match="broke off"):
            read(repository(address(server), IMPATIENT), describe(b"x" * 1000))
        assert time.monotonic() - began < 5
        thread.join(20)


def test_an_answer_whose_headers_trickle_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            try:
                for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                pass
            connection.close()

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(RegistryError, match="bytes moved in"):
            repository(address(server), IMPATIENT).head_manifest("v1")
        assert time.monotonic() - began < 5
        thread.join(20)


def test_an_upload_that_is_read_in_sips_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        done = threading.Event()

        def sip() -> None:
            answered = b"HTTP/1.1 202 Accepted\r\nLocation: /v2/a/blobs/uploads/1\r\n"
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(answered + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
            connection.close()
            connection, _ = server.accept()
            while not done.wait(0.05):
                connection.recv(20)
            connection.close()

        thread = threading.Thread(target=sip, daemon=True)
        thread.start()
        began = time.monotonic()
        patience = RetryPolicy(attempts=1, read=2, floor=1 << 30, window=0.5)
        target = repository(address(server), patience)
        target._http.abandon = lambda url: None  # type: ignore[method-assign]
        with pytest.raises(RegistryError, match="cannot be reached"):
            target.put_stream(Stream(noise(64 << 20), 1 << 20))
        assert time.monotonic() - began < 15
        done.set()
        thread.join(10)


def test_memory_stays_flat(oci_registry: str) -> None:
    piece = noise(1 << 20)

    class Large(Stream):
        def open(self) -> Iterator[bytes]:
            digest = hashlib.sha256()
            for number in range(96):
                chunk = number.to_bytes(8, "big") + piece[8:]
                digest.update(chunk)
                yield chunk
            self.digest, self.size = f"sha256:{digest.hexdigest()}", 96 << 20

    target = repository(oci_registry, name="large")
    tracemalloc.start()
    try:
        target.put_stream(Large(b""))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_registry_that_refuses_to_say_what_it_has_is_asked_for_it(status: int) -> None:
    registry = FakeRegistry()
    registry.fault = lambda request: (status, {}, b"") if request.command == "HEAD" else None
    blob, content = describe(b"content"), b"content"
    with scripted(registry) as host:
        target = Repository(parse_reference(f"{host}/a"), QUICK)
        assert target.put_blob(blob, Held(content)) == "sent"
        assert target.put_blob(blob, Held(content)) == "present"
        assert target.head_manifest("v1") is None


def test_what_may_not_be_read_at_all_is_refused() -> None:
    registry = FakeRegistry()
    registry.fault = lambda request: (403, {}, b"")
    with scripted(registry) as host, pytest.raises(RegistryError, match="HTTP 403"):
        Repository(parse_reference(f"{host}/a"), QUICK).has_blob(describe(b"content"))
