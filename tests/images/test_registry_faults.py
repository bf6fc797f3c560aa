"""A real registry behind a proxy that breaks things: a right image or a clear error, every time.

Whatever happens on the way, a tag never comes to point to something that cannot be pulled. What is
in the registry is read without our own client, straight from it.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import itertools
import json
import os
import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_proxy import (
    Answer,
    Exchange,
    FaultProxy,
    ForgetfulUploads,
    Guard,
    after,
    before,
    clip_answer,
    clip_request,
    cut_answer,
    cut_request,
    damage_answer,
    drip_answer,
    drip_request,
    edit_answer,
    fall_silent,
    limit_body,
    pass_on,
    refuse,
    refuse_early,
)
from handmade import write, write_base, write_bento
from servers import docker_registry_binary, oci_registry_in

from kfp_bento.runtime.errors import ImageError, RegistryError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import Descriptor, descriptor_from
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.places.layout import LayoutSource
from kfp_bento.runtime.images.registry.connections import RetryPolicy
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fault_proxy import Fault

PATIENT = RetryPolicy(attempts=4, connect=2, read=5, backoff=0.01)
# Requests of one push, in their order.
PUSHING = (
    "HEAD blob",
    "POST upload",
    "PATCH upload",
    "PUT upload",
    "PUT manifest",
    "HEAD tag",
    "PUT tag",
)
STATUSES = (429, 500, 502, 503)
ALWAYS = float("inf")
_numbers = itertools.count()


def sample(every: int, *values: Iterable[Any]) -> list[Any]:
    """All combinations; one in `every` is for the normal suite, the others are slow together."""
    marks = [() if number % every == 0 else pytest.mark.slow for number in range(1000)]
    cases = zip(itertools.product(*values), marks, strict=False)
    return [pytest.param(*case, marks=mark) for case, mark in cases]


@dataclass(frozen=True)
class Picture:
    """An image in a layout, ready to be pushed."""

    layout: Path
    manifest: Descriptor
    content: bytes
    blobs: tuple[Descriptor, ...]


@dataclass
class FileStream:
    """A blob that is made while it is read."""

    file: Path
    digest: str = ""
    size: int = 0

    def open(self) -> Iterator[bytes]:
        hashed = hashlib.sha256()
        self.size = 0
        with self.file.open("rb") as file:
            while data := file.read(100_000):
                hashed.update(data)
                self.size += len(data)
                yield data
        self.digest = f"sha256:{hashed.hexdigest()}"


def make_picture(folder: Path, seed: int, size: int) -> Picture:
    """The image of a bento whose model is `size` bytes of noise."""
    bento = write_bento(folder / "bento")
    noise = random.Random(seed).randbytes(size)
    write(bento.directory / "models/factor/0123456789abcdef/weights.bin", noise)
    image = build_image(bento, f"oci:{folder}/out", ImageOptions(base=write_base(folder / "base")))
    blobs = folder / "out/blobs/sha256"
    content = (blobs / image.digest.removeprefix("sha256:")).read_bytes()
    parsed = json.loads(content)
    items = [*parsed["layers"], parsed["config"]]
    return Picture(
        folder / "out",
        Descriptor(parsed["mediaType"], image.digest, len(content)),
        content,
        tuple(map(descriptor_from, items)),
    )


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return make_picture(tmp_path_factory.mktemp("old"), 1, 1000)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return make_picture(tmp_path_factory.mktemp("new"), 2, 3 << 20)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return make_picture(tmp_path_factory.mktemp("large"), 3, 9 << 20)


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def proxy(oci_registry: str) -> Iterator[FaultProxy]:
    with FaultProxy(oci_registry) as standing:
        yield standing
        assert standing.failures == []


@pytest.fixture
def name() -> str:
    """A repository that no other test uses."""
    return f"faults/number-{next(_numbers)}"


def repository(host: str, name: str, patience: RetryPolicy = PATIENT) -> Repository:
    return Repository(parse_reference(f"{host}/{name}"), patience)


def push(target: Repository, picture: Picture, tag: str = "v1", *, streamed: bool = False) -> bool:
    """What a builder does, in its order."""
    source = LayoutSource(picture.layout)
    for blob in picture.blobs:
        if streamed:
            target.put_stream(FileStream(BlobDirectory(picture.layout).path(blob.digest)))
        else:
            target.put_blob(blob, source)
    target.put_manifest(picture.manifest, picture.content)
    return target.tag(picture.manifest, picture.content, tag)


def push_as_builders_do(host: str, name: str, picture: Picture) -> bool:
    """Push again what the registry has lost: it does so where two send one blob at a time."""
    try:
        return push(repository(host, name), picture)
    except RegistryError as error:
        if not any("BLOB_UNKNOWN" in code for code in error.codes):
            raise
        return push(repository(host, name), picture)


def read(host: str, path: str) -> tuple[int, bytes]:
    """Asks a registry, without our own client."""
    connection = http.client.HTTPConnection(host, timeout=30)
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    connection.request("GET", f"/v2/{path}", headers=accept)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def pulled(host: str, name: str, tag: str = "v1") -> str | None:
    """The digest a tag points to, once every blob below it was read and hashed."""
    status, manifest = read(host, f"{name}/manifests/{tag}")
    if status == 404:
        return None
    assert status == 200
    parsed = json.loads(manifest)
    for blob in (parsed["config"], *parsed["layers"]):
        status, content = read(host, f"{name}/blobs/{blob['digest']}")
        assert (status, len(content)) == (200, blob["size"])
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == blob["digest"]
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def failure_of(action: Callable[[], Any]) -> ImageError:
    """The error of an action that must fail; one that people can act on."""
    with pytest.raises(ImageError) as failure:
        action()
    assert failure.value.message.endswith(".")
    assert failure.value.hint
    return failure.value


# --- Connections break --------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "streamed"), sample(3, range(6), (False, True)))
def test_an_upload_that_breaks_off_anywhere_is_begun_again(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, seed: int, streamed: bool
) -> None:
    chance = random.Random(seed)
    largest = max(blob.size for blob in new.blobs)
    for _ in range(2):
        proxy.on("PATCH upload", cut_request(chance.randrange(largest)), skip=chance.randrange(4))
    push(repository(proxy.host, name), new, streamed=streamed)
    assert pulled(oci_registry, name) == new.manifest.digest


@pytest.mark.parametrize(("seed", "kind"), sample(3, range(3), ("PUT manifest", "PUT tag")))
def test_a_manifest_that_breaks_off_anywhere_is_sent_again(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, seed: int, kind: str
) -> None:
    chance = random.Random(seed)
    proxy.on(kind, cut_request(chance.randrange(len(new.content))), times=2)
    push(repository(proxy.host, name), new)
    assert pulled(oci_registry, name) == new.manifest.digest
    assert proxy.count(kind) == 3


@pytest.mark.parametrize(("seed", "kind"), sample(2, range(3), PUSHING))
def test_an_answer_that_is_lost_anywhere_is_asked_for_again(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, seed: int, kind: str
) -> None:
    # The registry has done its work by then: what is repeated must not mind.
    position = (0, 20, random.Random(seed).randrange(100))[seed]
    rule = proxy.on(kind, cut_answer(position), times=2)
    push(repository(proxy.host, name), old)
    # An answer whose status came through is one already, unless more is needed from it.
    assert rule.hits >= 1
    assert pulled(oci_registry, name) == old.manifest.digest


@pytest.mark.parametrize("kind", sample(2, PUSHING))
def test_a_connection_that_always_breaks_is_given_up_and_the_tag_stays(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, new: Picture, kind: str
) -> None:
    push(repository(oci_registry, name), old)
    proxy.on(kind, cut_request(10), times=ALWAYS)
    error = failure_of(lambda: push(repository(proxy.host, name), new))
    assert isinstance(error, RegistryError)
    assert proxy.host in error.message
    assert pulled(oci_registry, name) == old.manifest.digest


# --- Answers that may pass ----------------------------------------------------------------------


@pytest.mark.parametrize(("status", "kind"), sample(4, STATUSES, PUSHING))
def test_what_passes_is_tried_again_and_what_stays_is_given_up(
    proxy: FaultProxy,
    oci_registry: str,
    name: str,
    old: Picture,
    new: Picture,
    status: int,
    kind: str,
) -> None:
    proxy.on(kind, refuse(status), times=2)
    push(repository(proxy.host, name), old)
    assert pulled(oci_registry, name) == old.manifest.digest

    rule = proxy.on(kind, refuse(status), times=ALWAYS)
    error = failure_of(lambda: push(repository(proxy.host, name), new))
    assert isinstance(error, RegistryError)
    assert f"HTTP {status}" in error.message
    assert rule.hits == PATIENT.attempts
    assert pulled(oci_registry, name) == old.manifest.digest


@pytest.mark.parametrize("status", [500, 503])
def test_a_refusal_in_the_middle_of_a_body_is_tried_again(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, status: int
) -> None:
    proxy.on("PATCH upload", refuse_early(status), times=2)
    push(repository(proxy.host, name), new)
    assert pulled(oci_registry, name) == new.manifest.digest


@pytest.mark.parametrize(
    ("kind", "form"), sample(3, ("POST upload", "PATCH upload", "PUT tag"), ("seconds", "date"))
)
def test_the_registry_says_when_to_come_again(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, form: str, kind: str
) -> None:
    # A date has whole seconds: two from now are more than one.
    wait = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
    proxy.on(kind, refuse(429, {"Retry-After": wait}))
    began = time.monotonic()
    push(repository(proxy.host, name), old)
    assert 0.9 <= time.monotonic() - began < 5
    assert pulled(oci_registry, name) == old.manifest.digest


# --- Tokens wear out ----------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "streamed"), sample(3, range(6), (False, True)))
def test_a_token_may_expire_between_any_two_requests(
    oci_registry: str, name: str, old: Picture, seed: int, streamed: bool
) -> None:
    chance = random.Random(seed)
    guard = Guard(uses=lambda: chance.randint(1, 6))
    with FaultProxy(oci_registry, guard) as proxy:
        push(repository(proxy.host, name), old, streamed=streamed)
    assert pulled(oci_registry, name) == old.manifest.digest
    assert {right.rpartition(":")[0] for rights in guard.granted for right in rights} == {name}


@pytest.mark.parametrize(
    ("streamed", "kind"),
    sample(3, (False, True), ("PATCH upload", "PUT upload", "PUT manifest", "PUT tag")),
)
def test_a_token_that_expires_during_an_upload_is_fetched_anew(
    oci_registry: str, name: str, new: Picture, kind: str, streamed: bool
) -> None:
    guard = Guard()
    previous = PUSHING[PUSHING.index(kind) - 1]
    # All blobs but the last are behind it when the manifest's turn comes.
    skip = {"PUT manifest": len(new.blobs) - 1, "PUT tag": 0}.get(kind, 1)
    with FaultProxy(oci_registry, guard) as proxy:
        proxy.on(previous, after(guard.revoke), skip=skip)
        push(repository(proxy.host, name), new, streamed=streamed)
        assert proxy.count(f"401 {kind}") >= 1
    assert pulled(oci_registry, name) == new.manifest.digest


def test_a_token_that_is_never_accepted_ends_in_an_error(
    oci_registry: str, name: str, old: Picture
) -> None:
    with FaultProxy(oci_registry, Guard(uses=lambda: 0)) as proxy:
        error = failure_of(lambda: push(repository(proxy.host, name), old))
        assert len(proxy.seen) < 50
    assert "HTTP 401" in error.message
    assert "token-" not in str(error)
    assert pulled(oci_registry, name) is None


def test_a_token_for_a_mount_is_for_both_repositories(
    oci_registry: str, name: str, old: Picture
) -> None:
    push(repository(oci_registry, f"{name}/from"), old)
    guard = Guard()
    with FaultProxy(oci_registry, guard) as proxy:
        source = repository(proxy.host, f"{name}/from")
        target = repository(proxy.host, f"{name}/to")
        assert [target.put_blob(blob, source) for blob in old.blobs] == ["mounted"] * len(old.blobs)
        assert proxy.count("PATCH upload") == 0
    assert frozenset({f"{name}/from:pull", f"{name}/to:pull", f"{name}/to:push"}) in guard.granted


# --- Mounts and places ----------------------------------------------------------------------------


def test_a_mount_that_is_not_granted_becomes_an_upload(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture
) -> None:
    def forget_the_mount(exchange: Exchange) -> None:
        exchange.path = exchange.path.partition("?")[0]
        pass_on(exchange)

    push(repository(oci_registry, f"{name}/from"), new)
    proxy.on("POST upload", forget_the_mount, times=ALWAYS)
    source = repository(proxy.host, f"{name}/from")
    target = repository(proxy.host, f"{name}/to")
    assert {target.put_blob(blob, source) for blob in new.blobs} == {"sent"}
    push(target, new)
    assert pulled(oci_registry, f"{name}/to") == new.manifest.digest


@pytest.mark.parametrize("status", sample(3, (403, 401, 404, 500, 405, 400)))
def test_a_mount_that_is_refused_becomes_an_upload_or_an_error(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, status: int
) -> None:
    def refuse_mounts(exchange: Exchange) -> None:
        (refuse(status) if "mount=" in exchange.path else pass_on)(exchange)

    push(repository(oci_registry, f"{name}/from"), old)
    proxy.on("POST upload", refuse_mounts, times=ALWAYS)
    source = repository(proxy.host, f"{name}/from")
    target = repository(proxy.host, f"{name}/to")
    try:
        placed = {target.put_blob(blob, source) for blob in old.blobs}
    except RegistryError as error:
        assert f"HTTP {status}" in error.message
    else:
        assert placed == {"sent"}
        push(target, old)
        assert pulled(oci_registry, f"{name}/to") == old.manifest.digest


def relative(location: str) -> str:
    return "/" + location.split("/", 3)[3]


def without_tls(location: str) -> str:
    return location.replace("http://", "https://", 1)


def another_port(location: str) -> str:
    return f"http://127.0.0.1:9{relative(location)}"


@pytest.mark.parametrize("change", [relative, without_tls, another_port])
def test_an_upload_goes_on_where_it_should_however_the_place_is_written(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, change: Callable[[str], str]
) -> None:
    def edit(answer: Answer) -> None:
        answer.headers["Location"] = change(answer.headers["Location"])

    rule = proxy.on("(POST|PATCH) upload", edit_answer(edit), times=ALWAYS)
    push(repository(proxy.host, name), new)
    assert rule.hits == 2 * len(new.blobs)
    assert pulled(oci_registry, name) == new.manifest.digest


def test_a_registry_that_gives_its_inner_name_gets_the_upload_itself_or_an_error(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture
) -> None:
    def edit(answer: Answer) -> None:
        location = answer.headers["Location"]
        answer.headers["Location"] = f"http://registry.inside:5000{relative(location)}"

    proxy.on("(POST|PATCH) upload", edit_answer(edit), times=ALWAYS)
    try:
        push(repository(proxy.host, name), old)
    except RegistryError as error:
        assert "registry.inside" in error.message
        assert pulled(oci_registry, name) is None
    else:
        assert pulled(oci_registry, name) == old.manifest.digest


def test_an_upload_without_a_place_is_an_error(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture
) -> None:
    proxy.on(
        "POST upload", edit_answer(lambda answer: answer.headers.pop("Location")), times=ALWAYS
    )
    error = failure_of(lambda: push(repository(proxy.host, name), old))
    assert "no Location" in error.message
    assert pulled(oci_registry, name) is None


# --- Limits of registries -------------------------------------------------------------------------


@pytest.mark.parametrize(("streamed", "status"), sample(3, (False, True), (413, 416)))
def test_a_limit_of_four_mebibytes_for_one_request_never_makes_a_wrong_image(
    proxy: FaultProxy, oci_registry: str, name: str, large: Picture, status: int, streamed: bool
) -> None:
    proxy.on("(PATCH|PUT) upload", limit_body(4 << 20, status), times=ALWAYS)
    try:
        push(repository(proxy.host, name), large, streamed=streamed)
    except RegistryError as error:
        assert f"HTTP {status}" in error.message
        assert pulled(oci_registry, name) is None
    else:
        assert pulled(oci_registry, name) == large.manifest.digest


@pytest.mark.parametrize("limit", [None, 4 << 20], ids=["no limit", "limit"])
def test_a_registry_that_forgets_all_but_the_first_piece_never_gets_a_wrong_image(
    proxy: FaultProxy, oci_registry: str, name: str, large: Picture, limit: int | None
) -> None:
    forgetful = ForgetfulUploads()

    def fault(exchange: Exchange) -> None:
        big = limit and exchange.method == "PATCH"
        if big and "Content-Length" not in exchange.headers:
            limit_body(limit or 0, 416)(exchange)
        else:
            forgetful(exchange)

    proxy.on("(PATCH|PUT) upload", fault, times=ALWAYS)
    try:
        push(repository(proxy.host, name), large)
    except RegistryError:
        assert pulled(oci_registry, name) is None
    else:
        assert pulled(oci_registry, name) == large.manifest.digest


# --- What arrives is not what was sent ------------------------------------------------------------


@pytest.mark.parametrize(
    ("streamed", "size", "times"), sample(5, (False, True), (0, 1, 200), (1, ALWAYS))
)
def test_an_upload_that_is_silently_cut_short_never_makes_a_wrong_image(
    proxy: FaultProxy,
    oci_registry: str,
    name: str,
    old: Picture,
    size: int,
    times: float,
    streamed: bool,
) -> None:
    proxy.on("PATCH upload", clip_request(size), times=times)
    try:
        push(repository(proxy.host, name), old, streamed=streamed)
    except RegistryError as error:
        assert error.hint
        assert pulled(oci_registry, name) is None
    else:
        assert times == 1
        assert pulled(oci_registry, name) == old.manifest.digest


@pytest.mark.parametrize("kind", ["PUT manifest", "PUT tag"])
def test_a_manifest_that_is_silently_cut_short_never_makes_a_wrong_image(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, new: Picture, kind: str
) -> None:
    push(repository(oci_registry, name), old)
    proxy.on(kind, clip_request(len(new.content) - 1), times=ALWAYS)
    failure_of(lambda: push(repository(proxy.host, name), new))
    assert pulled(oci_registry, name) == old.manifest.digest


def wrong_digest(answer: Answer) -> None:
    answer.headers["Docker-Content-Digest"] = f"sha256:{'0' * 64}"


@pytest.mark.parametrize("kind", ["PUT upload", "PUT manifest", "PUT tag"])
def test_a_registry_that_names_another_digest_than_ours_is_not_believed(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, new: Picture, kind: str
) -> None:
    push(repository(oci_registry, name), old)
    proxy.on(kind, edit_answer(wrong_digest), times=ALWAYS)
    error = failure_of(lambda: push(repository(proxy.host, name), new))
    assert "0" * 64 in error.message
    # The tag itself is set by then; what it points to is whole.
    expected = new if kind == "PUT tag" else old
    assert pulled(oci_registry, name) == expected.manifest.digest


@pytest.mark.parametrize(
    ("kind", "status"), sample(4, ("PUT upload", "PUT manifest"), (200, 202, 204))
)
def test_a_success_that_never_happened_is_not_built_upon(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, kind: str, status: int
) -> None:
    proxy.on(kind, refuse(status), times=ALWAYS)
    with contextlib.suppress(RegistryError):
        push(repository(proxy.host, name), old)
    assert pulled(oci_registry, name) in {None, old.manifest.digest}


# --- Base images over a bad line ------------------------------------------------------------------


def fetch(source: Repository, picture: Picture, folder: Path) -> None:
    for blob in picture.blobs:
        BlobDirectory(folder).put_blob(blob, source)


def held(picture: Picture, folder: Path) -> list[str]:
    """What is in the folder; all of it must be right."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert {path.name for path in found} <= {blob.digest[7:] for blob in picture.blobs}
    return [path.name for path in found]


@pytest.mark.parametrize("seed", sample(2, range(6)))
def test_a_download_that_breaks_off_anywhere_gives_the_blob_or_an_error(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, seed: int, tmp_path: Path
) -> None:
    push(repository(oci_registry, name), new)
    chance = random.Random(seed)
    largest = max(blob.size for blob in new.blobs)
    rule = proxy.on("GET blob", cut_answer(chance.randrange(largest)), times=2)
    fetch(repository(proxy.host, name), new, tmp_path)
    assert rule.hits == 2
    assert len(held(new, tmp_path)) == len(new.blobs)


@pytest.mark.parametrize(
    "fault", [cut_answer(5000), clip_answer(5000), damage_answer(500), refuse(503)]
)
def test_a_download_that_never_gets_whole_is_an_error_and_leaves_nothing(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, fault: Fault, tmp_path: Path
) -> None:
    push(repository(oci_registry, name), new)
    proxy.on("GET blob", fault, times=ALWAYS)
    failure_of(lambda: fetch(repository(proxy.host, name), new, tmp_path))
    held(new, tmp_path)


@pytest.mark.parametrize(
    ("kind", "fault"),
    sample(
        4,
        ("GET tag", "GET manifest", "GET blob"),
        (cut_answer(300), refuse(502), clip_answer(100)),
    ),
)
def test_a_base_over_a_bad_line_gives_the_right_image_or_an_error(
    proxy: FaultProxy, oci_registry: str, name: str, tmp_path: Path, fault: Fault, kind: str
) -> None:
    copy_base(oci_registry, name, tmp_path)
    bento = write_bento(tmp_path / "bento")
    rule = proxy.on(kind, fault)
    base = f"{proxy.host}/{name}:base"
    cache = tmp_path / "cache"
    with contextlib.suppress(ImageError):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, cache=cache))
    assert rule.hits == 1
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, cache=cache))
    clean = build_image(bento, f"oci:{tmp_path}/clean", ImageOptions(base=f"oci:{tmp_path}/base"))
    assert image.digest == clean.digest


def copy_base(host: str, name: str, folder: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    layout = write_base(folder / "base")
    command = [skopeo, "copy", "--all", "--dest-tls-verify=false", layout]
    command += [f"docker://{host}/{name}:base"]
    subprocess.run(command, check=True, capture_output=True)


# --- Slow and silent ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_slow_upload_is_waited_for(
    proxy: FaultProxy, oci_registry: str, name: str, large: Picture
) -> None:
    # Longer than any time limit, but it always moves; megabytes of it are in buffers.
    hurried = RetryPolicy(attempts=1, connect=0.5, read=4)
    proxy.on("PATCH upload", drip_request(64 << 10, 0.05), times=ALWAYS)
    began = time.monotonic()
    push(repository(proxy.host, name, hurried), large)
    assert time.monotonic() - began > 5
    assert pulled(oci_registry, name) == large.manifest.digest


def test_a_slow_download_is_waited_for(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, tmp_path: Path
) -> None:
    push(repository(oci_registry, name), new)
    hurried = RetryPolicy(attempts=1, connect=0.5, read=0.5)
    proxy.on("GET blob", drip_answer(64 << 10, 0.02), times=ALWAYS)
    began = time.monotonic()
    fetch(repository(proxy.host, name, hurried), new, tmp_path)
    assert time.monotonic() - began > 0.6
    assert len(held(new, tmp_path)) == len(new.blobs)


@pytest.mark.parametrize("kind", sample(2, ("PATCH upload", "HEAD blob", "PUT tag", "POST upload")))
def test_a_registry_that_falls_silent_is_given_up_in_time(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, kind: str
) -> None:
    hurried = RetryPolicy(attempts=2, connect=0.3, read=0.3, backoff=0.01)
    proxy.on(kind, fall_silent(1.5), times=ALWAYS)
    began = time.monotonic()
    failure_of(lambda: push(repository(proxy.host, name, hurried), old))
    assert time.monotonic() - began < 3
    assert pulled(oci_registry, name) is None


@pytest.mark.parametrize("kind", ["PATCH upload", "GET blob"])
def test_a_line_that_hardly_moves_is_given_up(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, kind: str, tmp_path: Path
) -> None:
    push(repository(oci_registry, f"{name}/there"), new)
    hurried = RetryPolicy(attempts=1, connect=1, read=1, floor=1 << 20, window=0.5)
    drip = drip_request if kind == "PATCH upload" else drip_answer
    proxy.on(kind, drip(1 << 10, 0.1), times=ALWAYS)
    began = time.monotonic()
    if kind == "PATCH upload":
        failure_of(lambda: push(repository(proxy.host, name, hurried), new))
    else:
        failure_of(lambda: fetch(repository(proxy.host, f"{name}/there", hurried), new, tmp_path))
    assert time.monotonic() - began < 8
    assert pulled(oci_registry, name) is None


def test_a_download_that_falls_silent_is_given_up_in_time(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, tmp_path: Path
) -> None:
    push(repository(oci_registry, name), old)
    hurried = RetryPolicy(attempts=2, connect=0.3, read=0.3, backoff=0.01)
    proxy.on("GET blob", drip_answer(100, 1.5), times=ALWAYS)
    began = time.monotonic()
    failure_of(lambda: fetch(repository(proxy.host, name, hurried), old, tmp_path))
    assert time.monotonic() - began < 3


# --- The registry's own trouble -------------------------------------------------------------------


@pytest.fixture
def tiny_registry(tmp_path: Path) -> Iterator[str]:
    """A registry whose disk has eight megabytes."""
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    folder = tmp_path / "disk"
    (folder / "blobs").mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder / "blobs"]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small tmpfs")
    try:
        with oci_registry_in(folder, binary) as address:
            yield address
    finally:
        subprocess.run(["umount", "-l", folder / "blobs"], check=True)


@pytest.mark.parametrize("streamed", sample(2, (False, True)))
def test_a_registry_whose_disk_is_full_says_so_and_the_old_image_stays(
    tiny_registry: str, old: Picture, large: Picture, streamed: bool
) -> None:
    push(repository(tiny_registry, "faults/full"), old)
    error = failure_of(
        lambda: push(repository(tiny_registry, "faults/full"), large, streamed=streamed)
    )
    assert "full" in str(error)
    assert pulled(tiny_registry, "faults/full") == old.manifest.digest


@pytest.mark.parametrize("kind", ["PUT manifest", "PUT tag"])
def test_blobs_that_vanish_before_the_manifest_never_make_a_wrong_image(
    tmp_path: Path, old: Picture, new: Picture, kind: str
) -> None:
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    victim = max(new.blobs, key=lambda blob: blob.size).digest.removeprefix("sha256:")

    def lose() -> None:
        blobs = tmp_path / "registry/blobs/docker/registry/v2/blobs/sha256"
        (blobs / victim[:2] / victim / "data").unlink(missing_ok=True)

    with (
        oci_registry_in(tmp_path / "registry", binary) as address,
        FaultProxy(address) as proxy,
    ):
        push(repository(address, "faults/lost"), old)
        rule = proxy.on(kind, before(lose), times=ALWAYS)
        error = failure_of(lambda: push(repository(proxy.host, "faults/lost"), new))
        assert rule.hits >= 1
        assert victim in error.message or "MANIFEST_BLOB_UNKNOWN" in error.message
        assert pulled(address, "faults/lost") == old.manifest.digest
        # Nothing needs to be cleaned up by hand.
        push(repository(address, "faults/lost"), new)
        assert pulled(address, "faults/lost") == new.manifest.digest


# --- Several at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", sample(3, range(3)))
def test_builders_that_push_to_one_tag_at_once_leave_the_image_of_one_of_them(
    proxy: FaultProxy, oci_registry: str, name: str, old: Picture, new: Picture, seed: int
) -> None:
    chance = random.Random(seed)
    pauses = [chance.uniform(0, 0.05) for _ in range(20)]

    def hesitate(exchange: Exchange) -> None:
        time.sleep(pauses[len(proxy.seen) % len(pauses)])
        pass_on(exchange)

    proxy.on(".*", hesitate, times=ALWAYS)
    pictures = [old, new, old, new]
    with ThreadPoolExecutor(len(pictures)) as pool:
        done = [pool.submit(push_as_builders_do, proxy.host, name, picture) for picture in pictures]
        assert [future.exception() for future in done] == [None] * len(pictures)
    assert pulled(oci_registry, name) in {old.manifest.digest, new.manifest.digest}


@pytest.mark.parametrize("uses", [ALWAYS, 20])
def test_one_client_uploads_from_several_threads(
    oci_registry: str, name: str, new: Picture, uses: float
) -> None:
    with FaultProxy(oci_registry, Guard(uses=lambda: uses)) as proxy:
        target = repository(proxy.host, name)
        source = LayoutSource(new.layout)
        start = threading.Barrier(len(new.blobs))

        def upload(blob: Descriptor) -> None:
            start.wait(10)
            target.put_blob(blob, source)

        with ThreadPoolExecutor(len(new.blobs)) as pool:
            list(pool.map(upload, new.blobs))
        push(target, new)
    assert pulled(oci_registry, name) == new.manifest.digest


def test_what_was_pushed_over_a_bad_line_is_what_skopeo_pulls(
    proxy: FaultProxy, oci_registry: str, name: str, new: Picture, tmp_path: Path
) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    proxy.on("PATCH upload", cut_request(500_000), skip=1)
    proxy.on("PUT upload", cut_answer(0))
    proxy.on("PUT manifest", refuse(503))
    proxy.on("PUT tag", cut_answer(10))
    push(repository(proxy.host, name), new)
    copy = [skopeo, "copy", "--src-tls-verify=false", f"docker://{oci_registry}/{name}:v1"]
    subprocess.run([*copy, f"dir:{tmp_path}/out"], check=True, capture_output=True)
    assert (tmp_path / "out/manifest.json").read_bytes() == new.content
    kept = {path.name for path in (tmp_path / "out").iterdir()} - {"manifest.json", "version"}
    assert kept == {blob.digest[7:] for blob in new.blobs}
