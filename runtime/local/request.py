"""What deploy_bento asks the local target for: read once, with limits, into typed values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos import Bento, load_bento
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import JSON_LIMIT, parse_json, read_small_file
from kfp_bento.runtime.images import LayoutReference, parse_layout, parse_reference
from kfp_bento.runtime.local.layouts import LayoutImage, check_image, read_layout
from kfp_bento.runtime.local.private import exposed_at
from kfp_bento.runtime.models import RECORD_NAME

LONGEST_TEXT = 4096
# Outputs of build_bento.
FACTS, WHOLE = "facts", "bento"
FIELDS = frozenset({"manifests", "image", "image_location", "bento_directory"})


@dataclass(frozen=True)
class ReleaseRequest:
    """A release that deploy_bento asks for; nothing in it was looked at yet.

    Attributes:
        image: The image by digest, `repository@sha256:…`.
        layout: The OCI layout that holds it; None where it is in a registry.
        bento_directory: The bento that the image was made of.
    """

    image: str
    layout: LayoutReference | None
    bento_directory: Path

    @property
    def digest(self) -> str:
        """The image's digest."""
        return self.image.rpartition("@")[2]


@dataclass(frozen=True)
class CheckedRelease:
    """A release that was found to be what it says, and ours.

    Attributes:
        image: The image by digest.
        layout: The OCI layout that holds just this image of this bento; None for a registry.
        bento: The bento.
    """

    image: str
    layout: LayoutImage | None
    bento: Bento


def parse_request(body: bytes) -> ReleaseRequest:
    """Read a request.

    Raises:
        InvalidInput: It is none; the field is named.
    """
    try:
        given = parse_json(body)
    except ValueError as error:
        raise InvalidInput(f"The request is no JSON object: {error}.") from None
    if unknown := given.keys() - FIELDS:
        raise InvalidInput(f"The request has {len(unknown)} fields that no release has.")
    manifests = given.get("manifests", [])
    if not isinstance(manifests, list) or not all(isinstance(one, dict) for one in manifests):
        raise InvalidInput("manifests: it is no list of objects.")
    image, location = _text(given, "image"), _text(given, "image_location")
    if not image or image.startswith("docker://") or not parse_reference(image).digest:
        raise InvalidInput("image: it is no image by digest.")
    layout = None
    if location.startswith("oci:"):
        layout = parse_layout(location)
        _require_absolute("image_location", layout.directory)
    bento = Path(_text(given, "bento_directory"))
    _require_absolute("bento_directory", bento)
    return ReleaseRequest(image=image, layout=layout, bento_directory=bento)


@dataclass(frozen=True)
class SettlementRequest:
    """What is to become of a release on trial.

    Attributes:
        url: Its URL.
        confirm: Whether it is kept.
    """

    url: str
    confirm: bool


def parse_settlement(body: bytes) -> SettlementRequest:
    """Read a request to settle a release.

    Raises:
        InvalidInput: It is none; the field is named.
    """
    try:
        given = parse_json(body)
    except ValueError as error:
        raise InvalidInput(f"The request is no JSON object: {error}.") from None
    if given.keys() != {"url", "confirm"}:
        raise InvalidInput("The request has other fields than url and confirm.")
    if not isinstance(given["confirm"], bool):
        raise InvalidInput("confirm: it is neither true nor false.")
    return SettlementRequest(_text(given, "url"), given["confirm"])


def check_request(request: ReleaseRequest, run: Path) -> CheckedRelease:
    """Make sure that what a request names was made by this run, and fits together.

    Args:
        request: What was asked for.
        run: The directory of the run, which its steps write to.

    Raises:
        InvalidInput: The bento lies elsewhere or others can change it, or the image is another.
        KfpBentoError: The bento or the image cannot be read.
    """
    top = run.resolve()
    directory = _resolved("bento_directory", _with_models(request.bento_directory))
    if not directory.is_relative_to(top):
        raise InvalidInput(
            "bento_directory: it does not lie in the directory of this run.",
            hint="A local run serves what its own steps have built.",
        )
    _require_ours("bento_directory", directory, top)
    bento = load_bento(directory)
    if request.layout is None:
        return CheckedRelease(request.image, None, bento)
    place = _resolved("image_location", request.layout.directory)
    _require_ours("image_location", place, top if place.is_relative_to(top) else place)
    image = read_layout(LayoutReference(place, request.layout.tag))
    check_image(image, request.digest, bento.tag)
    return CheckedRelease(request.image, image, bento)


def _with_models(directory: Path) -> Path:
    """Give where a bento lies whole: beside its facts, among the outputs of the step that built it.

    Raises:
        InvalidInput: It is not there, or another one is.
    """
    whole = directory.with_name(WHOLE)
    if directory.name != FACTS:
        return directory
    texts = [_record_of(directory), _record_of(whole)]
    if not texts[0] or texts[0] != texts[1]:
        raise InvalidInput(
            f"bento_directory: the bento of {directory} does not lie beside it.",
            hint="A local run serves what its own steps have built.",
        )
    return whole


def _record_of(directory: Path) -> bytes:
    try:
        return read_small_file(directory / RECORD_NAME, JSON_LIMIT)
    except (OSError, ValueError):
        return b""


def _text(given: Mapping[str, Any], field: str) -> str:
    value = given.get(field, "")
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or "\0" in value:
        raise InvalidInput(f"{field}: it is no text of up to {LONGEST_TEXT} characters.")
    return value


def _require_absolute(field: str, path: Path) -> None:
    if not path.is_absolute():
        raise InvalidInput(f"{field}: it is no absolute path.")


def _resolved(field: str, path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it leads in a circle"
        raise InvalidInput(f"{field}: it cannot be found ({reason}).") from None


def _require_ours(field: str, path: Path, top: Path) -> None:
    try:
        exposed = exposed_at(path, top)
        readable = os.access(path, os.R_OK | os.X_OK)
    except OSError as error:
        raise InvalidInput(f"{field}: it cannot be read ({error.strerror}).") from None
    if exposed is not None:
        raise InvalidInput(
            f"{field}: {exposed} can be changed by other users of this machine.",
            hint=f"Use a directory of your own: chmod go-w {exposed}",
        )
    if not readable or not path.is_dir():
        raise InvalidInput(f"{field}: it is no directory that can be read.")
