"""References and destinations."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.images.oci.reference import (
    LayoutReference,
    Reference,
    parse_destination,
    parse_reference,
    parse_source,
)

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python:3.11-slim", Reference("docker.io", "library/python", "3.11-slim")),
        ("bitnami/redis", Reference("docker.io", "bitnami/redis")),
        ("docker.io/python", Reference("docker.io", "library/python")),
        ("ghcr.io/a/b/c:1", Reference("ghcr.io", "a/b/c", "1")),
        ("localhost/a", Reference("localhost", "a")),
        ("127.0.0.1:5000/a:v1", Reference("127.0.0.1:5000", "a", "v1")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a")),
        (f"quay.io/a/b:t@{DIGEST}", Reference("quay.io", "a/b", "t", DIGEST)),
        ("docker://quay.io/a/b", Reference("quay.io", "a/b")),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "quay.io/",
        "quay.io/A",
        "quay.io/a:",
        "quay.io/a b",
        "a@sha256:12",
        "quay.io/a/../b",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no image reference"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "directory", "tag"),
    [
        ("oci:build/image", "build/image", ""),
        ("oci:/a/b:v1", "/a/b", "v1"),
        ("oci:/a:b/c", "/a:b/c", ""),
    ],
)
def test_a_layout_destination_is_a_directory_and_maybe_a_tag(
    text: str, directory: str, tag: str
) -> None:
    assert parse_destination(text) == LayoutReference(Path(directory), tag)


@pytest.mark.parametrize("text", ["tiny", "demo/tiny:v1", f"quay.io/a@{DIGEST}", "oci:"])
def test_a_destination_without_host_or_with_a_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_destination(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("quay.io/a:", "tag"),
        ("quay.io/a@", "digest"),
        ("quay.io/a:v1@", "digest"),
        (f"quay.io/a:@{DIGEST}", "tag"),
        ("oci:build/image:", "tag"),
        ("docker-archive:image.tar:", "tag"),
        ("docker-archive:image.tar:quay.io/a:", "tag"),
    ],
)
def test_a_tag_that_is_begun_is_not_empty(text: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=f"the {what} after the last"):
        parse_source(text)
