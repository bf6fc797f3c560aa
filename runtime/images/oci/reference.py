"""Names of images: where they can be read from and written to.

The three kinds of reference answer the same questions, so that nobody need ask which one it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.images.oci.image import is_digest
from kfp_bento.runtime.programs import cleaned

DOCKER_HUB = "docker.io"

_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)


class _Place:
    """What the three kinds have in common.

    Attributes:
        keeps_manifests: Whether manifests, indexes and what refers to them stay as they are there.
        only_oci: Whether nothing but OCI media types can be written there.
        registry: The host whose repositories share blobs; empty for a directory or file.
        pinned: Whether a digest alone says which image is meant.
    """

    keeps_manifests: ClassVar[bool] = True
    only_oci: ClassVar[bool] = False

    @property
    def registry(self) -> str:
        """See above."""
        return ""

    @property
    def pinned(self) -> bool:
        """See above."""
        return False

    def known_as(self, name: str) -> str:
        """Give the repository that an image there is known by, where it can choose: this name."""
        return name


@dataclass(frozen=True)
class Reference(_Place):
    """An image in a registry.

    Attributes:
        host: The registry as the user wrote it, with its port; `docker.io` when left out.
        repository: The path below the host, for example `library/python`.
        tag: The tag, or an empty string.
        digest: `sha256:…`, or an empty string. A digest wins over the tag.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Host and repository, without tag or digest."""
        return f"{self.host}/{self.repository}"

    @property
    def identifier(self) -> str:
        """What to ask the registry for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @property
    def location(self) -> str:
        """Where to read it, for skopeo, podman and ourselves, without its tag."""
        return f"docker://{self.name}"

    @property
    def place(self) -> str:
        """What two references to one place have in common; a digest says no place."""
        return self.location + (f"@{self.digest}" if self.digest else "")

    @property
    def registry(self) -> str:
        """The host."""
        return self.host

    @property
    def pinned(self) -> bool:
        """Whether it has a digest and no tag."""
        return bool(self.digest and not self.tag)

    def known_as(self, name: str) -> str:
        """Give its own repository, whatever the name."""
        return self.name

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


@dataclass(frozen=True)
class LayoutReference(_Place):
    """An OCI layout directory, with the tag inside it (`org.opencontainers.image.ref.name`)."""

    only_oci: ClassVar[bool] = True

    directory: Path
    tag: str = ""

    @property
    def location(self) -> str:
        """Where to read it, without its tag."""
        return f"oci:{self.directory}"

    @property
    def place(self) -> str:
        """The same with links followed."""
        return f"oci:{self.directory.resolve()}"

    def __str__(self) -> str:
        return self.location + (f":{self.tag}" if self.tag else "")


@dataclass(frozen=True)
class ArchiveReference(_Place):
    """A file as `docker save` writes it, with the name of an image inside it.

    Attributes:
        file: The archive.
        repository: `host/path` of the image, written out, or an empty string.
        tag: Its tag, or an empty string.
    """

    keeps_manifests: ClassVar[bool] = False

    file: Path
    repository: str = ""
    tag: str = ""

    @property
    def location(self) -> str:
        """Where to read it, without its name inside."""
        return f"docker-archive:{self.file}"

    @property
    def place(self) -> str:
        """The same with links followed."""
        return f"docker-archive:{self.file.resolve()}"

    def known_as(self, name: str) -> str:
        """Give the repository that it names, or else the name."""
        return self.repository or name

    def __str__(self) -> str:
        name = ":".join(part for part in (self.repository, self.tag) if part)
        return self.location + (f":{name}" if name else "")


# Where an image can be read from or written to.
ImageReference = Reference | LayoutReference | ArchiveReference


def parse_reference(text: str) -> Reference:
    """Parse `[host[:port]/]path[:tag][@digest]`, with Docker's rules for a missing host.

    Raises:
        InvalidInput: The text is no image reference; the message says which part is wrong.
    """
    rest = text.removeprefix("docker://")
    _check_end(text)
    rest, _, digest = rest.partition("@")
    if digest and not is_digest(digest):
        raise _invalid(text, f"'{digest}' is not of the form sha256:<64 hex digits>")
    head, _, last = rest.rpartition("/")
    _check_end(rest, text)
    last, _, tag = last.partition(":")
    if tag and not _TAG.fullmatch(tag):
        raise _invalid(text, f"'{tag}' is no valid tag")
    host, _, path = f"{head}/{last}".lstrip("/").partition("/")
    if not path or not ("." in host or ":" in host or host == "localhost"):
        host, path = DOCKER_HUB, f"{head}/{last}".lstrip("/")
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if not _HOST.fullmatch(host):
        raise _invalid(text, f"'{host}' is no host name")
    if len(path) > 255 or not _REPOSITORY.fullmatch(path):
        raise _invalid(
            text, f"'{path}' is no repository path (lower case letters, digits, . _ - /)"
        )
    return Reference(host=host, repository=path, tag=tag, digest=digest)


def parse_layout(text: str) -> LayoutReference:
    """Parse `oci:DIR` and `oci:DIR:TAG`.

    Raises:
        InvalidInput: There is no directory, or the tag is invalid.
    """
    rest = text.removeprefix("oci:")
    if rest:
        _check_end(text)
    directory, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        directory, tag = rest, ""
    if not directory:
        raise _invalid(text, "a directory must follow 'oci:'")
    if tag and not _TAG.fullmatch(tag):
        raise _invalid(text, f"'{tag}' is no valid tag")
    return LayoutReference(directory=Path(directory), tag=tag)


def parse_archive(text: str) -> ArchiveReference:
    """Parse `docker-archive:FILE`, `…:FILE:TAG` and `…:FILE:[host/]path[:tag]`.

    The file ends at the first colon, as it does for skopeo.

    Raises:
        InvalidInput: There is no file, or what follows it is neither tag nor image name.
    """
    file, _, name = text.removeprefix("docker-archive:").partition(":")
    if not file:
        raise _invalid(text, "a file must follow 'docker-archive:'")
    _check_end(text)
    if not name or _TAG.fullmatch(name):
        return ArchiveReference(Path(file), tag=name)
    named = parse_reference(name)
    if named.digest:
        raise _invalid(text, "an archive knows images by tag, not by digest")
    return ArchiveReference(Path(file), named.name, named.tag)


def parse_source(text: str) -> ImageReference:
    """Parse where an image is: `oci:DIR[:TAG]`, `docker-archive:FILE[:TAG]` or a reference.

    Raises:
        InvalidInput: No form fits.
    """
    if text.startswith("oci:"):
        return parse_layout(text)
    if text.startswith("docker-archive:"):
        return parse_archive(text)
    return parse_reference(text)


def parse_destination(text: str) -> ImageReference:
    """Parse where an image is to be written.

    That is `oci:DIR[:TAG]`, `docker-archive:FILE[:TAG]` or `host[:port]/path[:tag]`.

    Raises:
        InvalidInput: No form fits, or a registry destination names no registry host or asks for
            a digest (a digest follows from the content).
    """
    if text.startswith(("oci:", "docker-archive:")):
        return parse_source(text)
    reference = parse_reference(text)
    if reference.digest:
        raise _invalid(text, "a destination cannot name a digest")
    if not text.removeprefix("docker://").startswith(f"{reference.host}/"):
        raise InvalidInput(
            f"The image destination '{text}' names no registry host.",
            hint=f"Write the host out, for example docker.io/{text}, or use oci:DIR for a "
            "directory or docker-archive:FILE for a file.",
        )
    return reference


def is_tag(text: str) -> bool:
    """Say whether a registry would take it as a tag."""
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str) -> str:
    """Return the tag if a registry would take it.

    Raises:
        InvalidInput: It would not.
    """
    if not is_tag(tag):
        raise InvalidInput(
            f"'{tag}' is no valid image tag.",
            hint="A tag has at most 128 letters, digits and . _ - and starts with no . or -.",
        )
    return tag


def _check_end(part: str, text: str = "") -> None:
    """See that a tag or digest follows where one is begun: a script's variable may be empty.

    Raises:
        InvalidInput: None does.
    """
    if part.endswith((":", "@")):
        what = "tag" if part.endswith(":") else "digest"
        raise _invalid(text or part, f"the {what} after the last '{part[-1]}' is empty")


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"'{cleaned(text)}' is no image reference: {cleaned(why)}.",
        hint="Use host[:port]/path[:tag][@sha256:…], oci:DIR for an OCI layout directory, or "
        "docker-archive:FILE for a file as `docker save` writes it.",
    )
