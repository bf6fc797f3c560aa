"""The benchmark counts what goes to a registry, exactly."""

from __future__ import annotations

import hashlib
import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.counting_proxy import CountingProxy, RequestMeter
from bench.registry import Registry, registry_binary

PIECES = [b"x" * 100_000, b"y", b"z" * 31]
BODY = b"".join(PIECES)

REQUESTS = (
    b"HEAD /v2/a HTTP/1.1\r\nHost: r\r\n\r\n"
    b"POST /v2/b HTTP/1.1\r\nHost: r\r\ncontent-length: 0\r\n\r\n"
    b"PATCH /v2/c HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5;name=value\r\nabcde\r\n0A\r\n\r\n\r\n456789\r\n0\r\nTrailer: GET / HTTP/1.1\r\n\r\n"
    b"PUT /v2/d HTTP/1.1\r\nContent-Length: 30\r\n\r\nPUT /not/a/request HTTP/1.1\r\n\r"
    b"GET /v2/e HTTP/1.1\r\nHost: r\r\n\r\n"
)


@pytest.fixture
def registry(tmp_path: Path):
    if registry_binary() is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    with Registry(tmp_path / "registry") as registry:
        yield registry


def upload(address: str) -> str:
    """Streams PIECES into a registry; gives the blob's digest."""
    connection = http.client.HTTPConnection(address, timeout=30)
    digest = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    place = ask(connection, "POST", "/v2/a/blobs/uploads/", None)
    place = ask(connection, "PATCH", place, iter(PIECES))
    ask(connection, "PUT", f"{place}&digest={digest}", None)
    connection.close()
    return digest


def ask(connection: http.client.HTTPConnection, method: str, path: str, body) -> str:
    connection.request(method, path, body=body, encode_chunked=body is not None)
    answer = connection.getresponse()
    answer.read()
    assert answer.status < 300, (method, answer.status)
    parts = urlsplit(answer.getheader("Location", ""))
    return f"{parts.path}?{parts.query}"


def blob_status(address: str, digest: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("HEAD", f"/v2/a/blobs/{digest}")
    return connection.getresponse().status


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(REQUESTS)])
def test_requests_and_bodies_are_counted_wherever_the_bytes_are_cut(size: int) -> None:
    meter = RequestMeter()
    for start in range(0, len(REQUESTS), size):
        meter.feed(memoryview(REQUESTS)[start : start + size])
    assert meter.methods == {"HEAD": 1, "POST": 1, "PATCH": 1, "PUT": 1, "GET": 1}
    assert meter.bytes_sent == 5 + 10 + 30


def test_what_is_not_http_is_not_counted_as_if_it_were() -> None:
    meter = RequestMeter()
    with pytest.raises(ValueError, match="not HTTP"):
        for _ in range(2000):
            meter.feed(memoryview(bytes(1000)))


def test_a_streamed_upload_is_counted_to_the_byte_and_arrives(registry: Registry) -> None:
    with CountingProxy(int(registry.address.partition(":")[2])) as proxy:
        digest = upload(f"127.0.0.1:{proxy.port}")
        count = proxy.count()
    assert (count.bytes_sent, count.requests) == (len(BODY), 3)
    assert blob_status(registry.address, digest) == 200


def test_a_registry_that_is_counted_keeps_its_address(registry: Registry) -> None:
    with registry.counted() as counts:
        digest = upload(registry.address)
    assert counts[0].methods == {"PATCH": 1, "POST": 1, "PUT": 1}
    assert counts[0].bytes_sent == len(BODY)
    assert blob_status(registry.address, digest) == 200
    assert counts[0].requests == 3


def test_a_state_that_is_brought_back_holds_nothing_newer(registry: Registry) -> None:
    upload(registry.address)
    registry.keep("one blob")
    connection = http.client.HTTPConnection(registry.address, timeout=30)
    later = f"sha256:{hashlib.sha256(b'later').hexdigest()}"
    place = ask(connection, "POST", "/v2/a/blobs/uploads/", None)
    ask(connection, "PUT", f"{place}&digest={later}", iter([b"later"]))
    connection.close()
    assert blob_status(registry.address, later) == 200
    registry.bring_back("one blob")
    assert blob_status(registry.address, later) == 404
    assert blob_status(registry.address, f"sha256:{hashlib.sha256(BODY).hexdigest()}") == 200
