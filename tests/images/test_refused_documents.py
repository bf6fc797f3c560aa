"""A registry that takes an image, but not what there is to say of it, gets the image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fault_proxy import Exchange, Fault, FaultProxy, pass_on, refuse
from handmade import MINOR, write_base, write_bento
from keys import openssl_pair
from moving import make_base
from registries import no_login, registry

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images import (
    ImageOptions,
    build_image,
    load_signing_key,
    rebase_image,
    sign_image,
    write_attestations,
)
from kfp_bento.runtime.images.assembly.documents import read_provenance, read_sboms
from kfp_bento.runtime.images.copy import copy_image
from kfp_bento.runtime.images.places.open import open_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfp_bento.runtime.bentos import Bento

__all__ = ["no_login"]

ALWAYS = float("inf")


def said(code: str, message: str, detail: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[FaultProxy]:
    with registry(tmp_path / "registry") as address, FaultProxy(address) as between:
        yield between


def immutable() -> Fault:
    """Tags that are written once and then never again, as in Harbor, Quay and ECR."""
    written = set()

    def fault(exchange: Exchange) -> None:
        if exchange.path in written:
            refuse(400, content=said("TAG_INVALID", "tag is immutable"))(exchange)
            return
        written.add(exchange.path)
        pass_on(exchange)

    return fault


def no_artifacts(status: int) -> Fault:
    """No manifest by digest but that of the image, which has a model in it."""

    def fault(exchange: Exchange) -> None:
        body = b"".join(exchange.body())
        if b'"subject"' in body:
            content = said("MANIFEST_INVALID", "manifest invalid", "unknown media type")
            exchange.reply(status, content=content)
        else:
            exchange.relay(exchange.forward([body]))

    return fault


def test_tags_that_are_immutable_hold_both_documents(
    proxy: FaultProxy, bento: Bento, base: str
) -> None:
    proxy.on("PUT tag", immutable(), times=ALWAYS)
    image = build_image(bento, f"{proxy.host}/a/tiny", ImageOptions(base=base))
    assert image.notes == ()
    assert len(read_sboms(image.reference)) == len(read_provenance(image.reference)) == 1


def test_a_copy_into_immutable_tags_brings_both_documents(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    proxy.on("PUT tag", immutable(), times=ALWAYS)
    copied = copy_image(f"oci:{tmp_path}/out:v1", f"{proxy.host}/a/tiny:v1")
    assert len(copied.referrers) == 2
    assert read_sboms(f"{proxy.host}/a/tiny:v1") and read_provenance(f"{proxy.host}/a/tiny:v1")


@pytest.mark.parametrize("status", [400, 415, 500])
def test_a_registry_without_artifacts_gets_the_image_and_says_what_it_lacks(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path, status: int
) -> None:
    proxy.on("PUT manifest", no_artifacts(status), times=ALWAYS)
    image = build_image(bento, f"{proxy.host}/a/tiny", ImageOptions(base=base))
    assert open_image(f"{proxy.host}/a/tiny:v1").descriptor.digest == image.digest
    (note,) = image.to_dict()["notes"]
    assert "bill of materials and the provenance are not attached" in note
    assert "manifest invalid: unknown media type" in note
    # Who builds has them all the same.
    write_attestations(image, tmp_path / "sbom.json", tmp_path / "provenance.jsonl")
    assert json.loads((tmp_path / "sbom.json").read_bytes())["bomFormat"] == "CycloneDX"
    assert (tmp_path / "provenance.jsonl").read_text().count("\n") == 1


def test_a_copy_says_what_did_not_come_along(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    proxy.on("PUT manifest", no_artifacts(400), times=ALWAYS)
    copied = copy_image(f"oci:{tmp_path}/out:v1", f"{proxy.host}/a/tiny:v1")
    assert (copied.digest, copied.referrers) == (image.digest, ())
    assert open_image(f"{proxy.host}/a/tiny:v1").descriptor.digest == image.digest
    assert "manifest invalid: unknown media type" in copied.left_behind


def test_a_signature_that_is_not_taken_stays_behind_in_a_copy_and_fails_a_signing(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    def no_signatures(exchange: Exchange) -> None:
        if exchange.path.endswith(".sig"):
            refuse(400, content=said("TAG_INVALID", "no such tags here"))(exchange)
        else:
            pass_on(exchange)

    key = load_signing_key(openssl_pair(tmp_path / "keys")[0])
    copy_image(make_base(tmp_path / "made"), f"oci:{tmp_path}/out:v1")
    sign_image(f"oci:{tmp_path}/out:v1", key)
    proxy.on("PUT tag", no_signatures, times=ALWAYS)
    copied = copy_image(f"oci:{tmp_path}/out:v1", f"{proxy.host}/a/tiny:v1")
    assert "no such tags here" in copied.left_behind
    assert open_image(f"{proxy.host}/a/tiny:v1").descriptor.digest == copied.digest
    with pytest.raises(RegistryError, match="no such tags here"):
        sign_image(f"{proxy.host}/a/tiny:v1", key)


def test_a_second_signature_under_an_immutable_tag_is_told_what_to_exempt(
    proxy: FaultProxy, base: str, tmp_path: Path
) -> None:
    proxy.on("PUT tag", immutable(), times=ALWAYS)
    target = f"{proxy.host}/a/tiny:v1"
    copy_image(base, target)
    sign_image(target, load_signing_key(openssl_pair(tmp_path / "first")[0]))
    with pytest.raises(RegistryError, match="immutable") as caught:
        sign_image(target, load_signing_key(openssl_pair(tmp_path / "second")[0]))
    assert "begin with sha256- exempted" in (caught.value.hint or "")


def test_a_rebase_says_what_was_not_attached(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    proxy.on("PUT manifest", no_artifacts(400), times=ALWAYS)
    new = write_base(tmp_path / "new", python=f"{MINOR}.2")
    rebased = rebase_image(f"oci:{tmp_path}/out:v1", new, destination=f"{proxy.host}/a/tiny:v1")
    assert "not attached" in rebased.missing
    assert open_image(f"{proxy.host}/a/tiny:v1").descriptor.digest == rebased.digest


def test_documents_that_fail_for_the_moment_keep_the_tag_where_it_was(
    proxy: FaultProxy, bento: Bento, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.on("PUT manifest", refuse(401), times=ALWAYS)
    with pytest.raises(RegistryError):
        build_image(bento, f"{proxy.host}/a/tiny", ImageOptions(base=base))
    with pytest.raises(RegistryError, match="404"):
        open_image(f"{proxy.host}/a/tiny:v1")


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (412, said("PRECONDITION", "Failed to process: 'a:v1' configured as immutable.")),
        (400, said("TAG_INVALID", "The image tag 'v1' already exists and is immutable.")),
        (400, said("DENIED", "manifest tag v1 already exists and the repo is immutable")),
        (405, said("OPERATION_DISABLED", "The operation is disallowed on this image.")),
        (409, b"conflict"),
    ],
    ids=["harbor", "ecr", "artifact-registry", "acr", "wordless"],
)
def test_a_tag_that_cannot_be_written_twice_is_told_with_what_can(
    proxy: FaultProxy, bento: Bento, base: str, status: int, content: bytes
) -> None:
    target = f"{proxy.host}/a/tiny"
    first = build_image(bento, target, ImageOptions(base=base))
    proxy.on("PUT tag", refuse(status, content=content), times=ALWAYS)
    source = bento.directory / "src/service.py"
    source.write_text(f"{source.read_text()}\n# changed\n")
    for action in (
        lambda: build_image(bento, target, ImageOptions(base=base)),
        lambda: copy_image(base, f"{target}:v1"),
    ):
        with pytest.raises(RegistryError) as caught:
            action()
        assert "cannot be written twice" in (caught.value.hint or "")
    assert open_image(f"{target}:v1").descriptor.digest == first.digest


@pytest.mark.parametrize(
    "answer",
    [
        refuse(200, {"Content-Type": "text/html"}, b"<html>the registry's pages</html>"),
        refuse(401, content=said("UNAUTHORIZED", "not this path")),
        refuse(403, content=said("DENIED", "no such path for you")),
    ],
    ids=["pages", "unauthorized", "forbidden"],
)
def test_a_registry_without_a_list_of_referrers_gets_one_whatever_it_answers(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path, answer: Fault
) -> None:
    proxy.on("GET referrers", answer, times=ALWAYS)
    image = build_image(bento, f"{proxy.host}/a/tiny", ImageOptions(base=base))
    assert image.notes == ()
    assert len(read_sboms(image.reference)) == 1
    copied = copy_image(f"{proxy.host}/a/tiny:v1", f"oci:{tmp_path}/copy")
    assert len(copied.referrers) == 2


def test_an_image_whose_documents_may_not_be_read_is_copied_without_them(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(bento, f"{proxy.host}/a/tiny", ImageOptions(base=base))

    def hidden(exchange: Exchange) -> None:
        if "sha256-" in exchange.path or "/referrers/" in exchange.path:
            refuse(403, content=said("DENIED", "not for you"))(exchange)
        else:
            pass_on(exchange)

    proxy.on("GET (tag|referrers)", hidden, times=ALWAYS)
    copied = copy_image(f"{proxy.host}/a/tiny:v1", f"oci:{tmp_path}/copy")
    assert (copied.digest, copied.referrers) == (image.digest, ())
    assert "not for you" in copied.left_behind


@pytest.mark.parametrize(
    "content",
    [
        said("MANIFEST_INVALID", "manifest invalid", "unknown media type"),
        b'{"errors": [{"code": "X", "message": "y", "detail": {"reason": "unknown media type"}}]}',
        b'{"errors": [{"code": "X", "detail": [{"Reason": "unknown media type", "n": null}]}]}',
        b'{"message": "unknown media type"}',
        b'{"error": "unknown media type"}',
        b"unknown media type\n",
    ],
    ids=["text", "object", "list", "message", "error", "plain"],
)
def test_the_registrys_reason_is_shown_wherever_it_stands(
    proxy: FaultProxy, bento: Bento, base: str, content: bytes
) -> None:
    proxy.on("PUT (manifest|tag)", refuse(400, content=content), times=ALWAYS)
    with pytest.raises(RegistryError, match="unknown media type") as caught:
        build_image(bento, f"{proxy.host}/a/tiny", ImageOptions(base=base))
    assert "--compression gzip" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("status", "code", "compression", "way_out"),
    [
        (400, "MANIFEST_INVALID", "zstd", "--compression gzip"),
        (415, "UNSUPPORTED", "zstd", "image_compression=gzip"),
        (415, "", "gzip", "takes no OCI images"),
    ],
)
def test_a_manifest_that_is_refused_for_its_kind_names_what_older_registries_take(
    proxy: FaultProxy,
    tmp_path: Path,
    base: str,
    status: int,
    code: str,
    compression: str,
    way_out: str,
) -> None:
    content = said(code, "layer media type is not supported") if code else b""
    proxy.on("PUT (manifest|tag)", refuse(status, content=content), times=ALWAYS)
    options = ImageOptions(base=base, compression=compression)
    with pytest.raises(RegistryError) as caught:
        build_image(write_bento(tmp_path / "bento"), f"{proxy.host}/a/tiny", options)
    assert way_out in (caught.value.hint or "")


@pytest.mark.parametrize("verb", ["copy", "rebase"])
def test_an_image_that_is_moved_to_an_older_registry_names_what_that_takes(
    proxy: FaultProxy, bento: Bento, base: str, tmp_path: Path, verb: str
) -> None:
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    content = said("MANIFEST_INVALID", "layer media type is not supported")
    proxy.on("PUT (manifest|tag)", refuse(400, content=content), times=ALWAYS)
    target = f"{proxy.host}/a/tiny:v1"
    with pytest.raises(RegistryError) as caught:
        if verb == "copy":
            copy_image(f"oci:{tmp_path}/out:v1", target)
        else:
            new = write_base(tmp_path / "new", python=f"{MINOR}.2")
            rebase_image(f"oci:{tmp_path}/out:v1", new, destination=target)
    assert "--compression gzip" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_base_of_this_machine_is_of_layers_that_its_registry_takes(proxy: FaultProxy) -> None:
    def no_zstd(exchange: Exchange) -> None:
        body = b"".join(exchange.body())
        if b"+zstd" in body:
            exchange.reply(400, content=said("MANIFEST_INVALID", "unknown layers"))
        else:
            exchange.relay(exchange.forward([body]))

    proxy.on("PUT (manifest|tag)", no_zstd, times=ALWAYS)
    copied = copy_image("host", f"{proxy.host}/bases/python:{MINOR}")
    opened = open_image(f"{proxy.host}/bases/python:{MINOR}")
    assert opened.descriptor.digest == copied.digest
    assert {layer.media_type.rpartition("+")[2] for layer in opened.layers} == {"gzip"}
