"""SBOMs and signatures: manifests that refer to an image, found from there."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from registries import QUICK, Held, describe, digest_of, error, no_login, scripted

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.oci.image import OCI_INDEX, OCI_MANIFEST, Descriptor
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["no_login"]

EMPTY = describe(b"{}", "application/vnd.oci.empty.v1+json")


def repository(host: str, name: str) -> Repository:
    return Repository(parse_reference(f"{host}/{name}"), QUICK)


def manifest(**more: Any) -> tuple[Descriptor, bytes]:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": EMPTY.to_dict(),
        "layers": [EMPTY.to_dict()],
        **more,
    }
    content = json.dumps(document).encode()
    return describe(content, OCI_MANIFEST), content


def referrer(subject: Descriptor, kind: str, **more: Any) -> tuple[Descriptor, bytes]:
    return manifest(subject=subject.to_dict(), artifactType=kind, **more)


def push_subject(target: Repository) -> Descriptor:
    target.put_blob(EMPTY, Held(b"{}"))
    subject, content = manifest()
    target.put_manifest(subject, content)
    return subject


def fallback(target: Repository, subject: Descriptor) -> tuple[Descriptor, dict[str, Any]]:
    found, content = target.fetch_manifest(subject.digest.replace(":", "-"))
    return found, json.loads(content)


def test_what_refers_to_an_image_is_found_in_a_registry_without_a_list(oci_registry: str) -> None:
    target = repository(oci_registry, "refer/found")
    subject = push_subject(target)
    assert target.referrers(subject.digest) == []
    sbom, content = referrer(subject, "application/spdx+json", annotations={"made": "by hand"})
    target.put_referrers([(sbom, content)], subject)
    assert target.referrers(subject.digest) == [
        {
            **sbom.to_dict(),
            "artifactType": "application/spdx+json",
            "annotations": {"made": "by hand"},
        }
    ]
    assert fallback(target, subject)[0].media_type == OCI_INDEX


def test_without_an_artifact_type_that_of_the_configuration_counts(oci_registry: str) -> None:
    target = repository(oci_registry, "refer/config")
    subject = push_subject(target)
    other, content = manifest(subject=subject.to_dict())
    target.put_referrers([(other, content)], subject)
    assert target.referrers(subject.digest)[0]["artifactType"] == EMPTY.media_type


def test_the_list_does_not_depend_on_the_order_of_writing(oci_registry: str) -> None:
    digests = []
    for name, kinds in (("refer/ab", "ab"), ("refer/ba", "ba")):
        target = repository(oci_registry, name)
        subject = push_subject(target)
        for kind in kinds:
            target.put_referrers([referrer(subject, kind)], subject)
            target.put_referrers([referrer(subject, kind)], subject)
        digests.append(fallback(target, subject)[0].digest)
        assert len(target.referrers(subject.digest)) == 2
    assert digests[0] == digests[1]


def test_what_others_wrote_into_the_list_stays(oci_registry: str) -> None:
    target = repository(oci_registry, "refer/others")
    subject = push_subject(target)
    theirs, content = referrer(subject, "theirs")
    target.put_manifest(theirs, content)
    entry = {**theirs.to_dict(), "artifactType": "theirs", "data": "e30=", "unknown": [1, {}]}
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry],
        "annotations": {"k": "v"},
    }
    text = json.dumps(index).encode()
    target.tag(describe(text, OCI_INDEX), text, subject.digest.replace(":", "-"))
    target.put_referrers([referrer(subject, "ours")], subject)
    _, found = fallback(target, subject)
    assert found["annotations"] == {"k": "v"}
    assert entry in found["manifests"]
    assert len(found["manifests"]) == 2


def test_threads_lose_none_of_each_others_entries(oci_registry: str) -> None:
    target = repository(oci_registry, "refer/threads")
    subject = push_subject(target)
    threads = [
        threading.Thread(
            target=target.put_referrers, args=([referrer(subject, f"kind{n}")], subject)
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    kinds = {item["artifactType"] for item in target.referrers(subject.digest)}
    assert kinds == {f"kind{n}" for n in range(6)}


def test_an_entry_that_another_writer_overwrote_is_put_back(oci_registry: str) -> None:
    target, other = (repository(oci_registry, "refer/race") for _ in range(2))
    subject = push_subject(target)
    theirs, content = referrer(subject, "theirs")
    target.put_manifest(theirs, content)
    put = target.store_manifest
    races = []

    def raced(described: Descriptor, text: bytes, identifier: str) -> Any:
        answer = put(described, text, identifier)
        if identifier.startswith("sha256-") and not races:
            races.append(identifier)
            entry = {**theirs.to_dict(), "artifactType": "theirs"}
            alone = json.dumps(
                {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
            ).encode()
            other.tag(describe(alone, OCI_INDEX), alone, identifier)
        return answer

    target.store_manifest = raced  # type: ignore[method-assign]
    target.put_referrers([referrer(subject, "ours")], subject)
    kinds = {item["artifactType"] for item in target.referrers(subject.digest)}
    assert kinds == {"theirs", "ours"}


def test_a_tag_that_holds_no_list_is_left_alone(oci_registry: str) -> None:
    target = repository(oci_registry, "refer/taken")
    subject = push_subject(target)
    image, content = manifest(annotations={"an": "image"})
    target.put_manifest(image, content)
    target.tag(image, content, subject.digest.replace(":", "-"))
    with pytest.raises(RegistryError, match="is no index"):
        target.put_referrers([referrer(subject, "ours")], subject)
    assert fallback(target, subject)[0] == image


class Listing:
    """A registry that keeps the lists itself, two entries to a page."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.entries = [
            {"digest": digest_of(bytes([n])), "artifactType": f"k{n}"} for n in range(5)
        ]

    def __call__(self, request: Any) -> Any:
        self.asked.append(f"{request.command} {request.path}")
        if request.command == "PUT":
            return 201, {"OCI-Subject": digest_of(b"subject")}, b""
        if "/referrers/" not in request.path:
            return 404, {}, error("MANIFEST_UNKNOWN")
        start = int(request.path.partition("?from=")[2] or 0)
        page = {"schemaVersion": 2, "manifests": self.entries[start : start + 2]}
        path = request.path.partition("?")[0]
        more = {"Link": f'<{path}?from={start + 2}>; rel="next"'} if start < 4 else {}
        return 200, more, json.dumps(page).encode()


def test_a_registry_that_keeps_the_list_is_left_to_it() -> None:
    server = Listing()
    subject = describe(b"subject")
    with scripted(server) as host:
        target = repository(host, "a")
        target.put_referrers([referrer(subject, "kind")], subject)
        found = target.referrers(subject.digest)
    assert found == server.entries
    assert sum(line.startswith("PUT") for line in server.asked) == 1


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_a_registry_without_the_api_is_asked_for_the_tag(status: int) -> None:
    listed = [{"digest": digest_of(b"x")}]
    answers: Callable[[Any], Any] = lambda request: (  # noqa: E731
        (status, {}, b"")
        if "/referrers/" in request.path
        else (200, {}, json.dumps({"manifests": listed}).encode())
    )
    with scripted(answers) as host:
        assert repository(host, "a").referrers(digest_of(b"subject")) == listed
