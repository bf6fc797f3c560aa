"""Answers of a registry, and what they say: errors in its own words, hints, times to wait."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator
from typing import Any

import urllib3

from kfp_bento.runtime.errors import RegistryError, in_a_pipeline
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.tar import CHUNK
from kfp_bento.runtime.programs import cleaned

BYTE_RANGE = re.compile(r"(?:bytes[= ])?\s*(\d{1,19})-(\d{1,19})(?:/(\d{1,19}|\*))?", re.ASCII)
"""A part of something: its first and last byte, and how many there are in all."""

_LONGEST_DETAIL = 1000
_LONGEST_LINE = 300
# Pages for people, and what gives back what was sent.
_NO_REASON = re.compile(r"<|\b(?:basic|bearer|authorization)\b", re.IGNORECASE)
# How registries say that a tag, or all of them, cannot be written again.
_WRITTEN_ONCE = re.compile(r"immutab|cannot be overwritten|OPERATION_DISABLED", re.IGNORECASE)
# How they refuse a manifest of a kind that they do not know.
_UNFIT = {"MANIFEST_INVALID", "UNSUPPORTED"}
_KIND = re.compile(r"media ?type|mediatype|zstd|compression", re.IGNORECASE)


class TransientError(Exception):
    """A failure that may pass.

    Attributes:
        error: What to say if it does not.
        wait: Seconds that the registry asked us to wait.
        at_once: Whether waiting would not help, as with a token that has just been renewed.
    """

    def __init__(self, error: RegistryError, wait: float = 0.0, *, at_once: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait = wait
        self.at_once = at_once


class Answer:
    """An answer; its content is at hand unless a stream was asked for.

    Attributes:
        stranger: Whether somebody gave it whom the registry had sent us to.
    """

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, content: bytes) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self.content = content
        self.stranger = False
        self._raw = raw

    def chunks(self) -> Iterator[bytes]:
        """Give the content of a streamed answer; may raise urllib3's HTTPError."""
        return self._raw.stream(CHUNK, decode_content=False)

    def close(self) -> None:
        """Give up what was not read."""
        self._raw.close()

    @property
    def length(self) -> int | None:
        """The length that the registry gives, where it gives one."""
        return whole_number(self.headers.get("Content-Length", ""))

    @property
    def codes(self) -> set[str]:
        """The error codes of the distribution specification in it."""
        return {str(item.get("code", "")) for item in self._errors()}

    @property
    def detail(self) -> str:
        """The registry's own words, without control characters; they never hold what we sent."""
        said = [_said(item) for item in self._errors()] or [self._otherwise()]
        text = " ".join(cleaned("; ".join(text.strip() for text in said)).split())
        return text[:_LONGEST_DETAIL]

    @property
    def media_type(self) -> str:
        """What it says that its content is."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip()

    @property
    def retry_after(self) -> float:
        """The seconds that it asks to wait for, given as such or as a date."""
        text = self.headers.get("Retry-After", "")
        if text.isdecimal():
            return float(text)
        try:
            return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0

    @property
    def is_full(self) -> bool:
        """Whether it says that the registry's disk is full."""
        # docker-registry gives the error of the system call as its number.
        text = self.content[:CHUNK].lower()
        return self.status >= 500 and (
            b"no space" in text or re.search(rb'"err":28\b', text) is not None
        )

    def hint(self, login: str) -> str:
        """Give what to do about it, if it is no good one.

        Args:
            login: Where the login is from that the request had; "" if it had none.
        """
        if self.is_full or self.status == 507:
            return "The registry's storage is full: its administrator has to make room."
        if "quota" in self.detail.lower():
            return "The registry's quota is used up: remove images, or ask for more."
        made = f"with the login of {login}" if login else "without credentials"
        if "DENIED" in self.codes:
            return f"The request was made {made}. Ask for the right to do this."
        return {
            401: f"The request was made {made}. Log in, for example with "
            "`podman login`, or point DOCKER_CONFIG or REGISTRY_AUTH_FILE to a login file. "
            + in_a_pipeline(
                "image_secret", "the login, as `kubectl create secret docker-registry` writes it"
            ),
            403: f"The request was made {made}. Ask for the right to do this.",
            404: "Check the repository's name and tag; some registries want it created first.",
            405: "The registry does not take uploads: it is read-only or a mere mirror.",
            413: "A proxy before the registry limits the size of requests: have the limit lifted.",
            429: "The registry limits requests: wait, or log in to get a higher limit.",
        }.get(self.status, "Try again later, or look at the registry's own log.")

    def _otherwise(self) -> str:
        """Give the reason of an answer that has none where the specification wants it."""
        try:
            parsed = parse_json(self.content)
        except ValueError:
            line = self.content[:_LONGEST_LINE].decode(errors="replace").strip()
            return "" if _NO_REASON.search(line) else line
        return _words({key: parsed[key] for key in ("message", "error", "detail") if key in parsed})

    def _errors(self) -> list[dict[str, Any]]:
        try:
            errors = parse_json(self.content).get("errors")
        except ValueError:
            return []
        listed = errors if isinstance(errors, list) else []
        return [item for item in listed if isinstance(item, dict)]


def refuses_kind(error: RegistryError) -> bool:
    """Tell whether a manifest was refused for what it is, or for the kind of its layers."""
    unfit = error.status == 415 or _UNFIT & set(error.codes) or _KIND.search(error.message)
    return bool(unfit)


def hint_for_manifest(error: RegistryError, content: bytes, identifier: str) -> str:
    """Give what to do about a manifest that was refused; "" for what is said of any request.

    Args:
        error: How it was refused.
        content: The manifest.
        identifier: Under which digest or tag.
    """
    if error.status in {409, 412} or _WRITTEN_ONCE.search(error.message):
        if identifier.startswith("sha256-"):
            return (
                "What belongs to an image is listed under such a tag, which cannot be written "
                "twice there: have tags that begin with sha256- exempted."
            )
        return (
            "Tags cannot be written twice there. Give another one (REPOSITORY:TAG), or none: an "
            "image without one gets the version of its bento, which follows from its content."
        )
    if not refuses_kind(error) or b'"subject"' in content:
        return ""
    if b"+zstd" in content:
        return (
            "Older registries know no layers of zstd: build with --compression gzip (in a "
            "pipeline, image_compression=gzip), on a base that has none either."
        )
    return "The registry takes no OCI images; a newer version of it, or another one, does."


def _said(error: dict[str, Any]) -> str:
    """Give one error of an answer; some registries say the reason in `detail` alone."""
    detail = _words(error.get("detail"))
    more = f": {detail}" if detail else ""
    return f"{error.get('code', '')} {error.get('message', '')}{more}"


def _words(value: Any, depth: int = 3) -> str:
    """Give the texts in a value of any shape."""
    if isinstance(value, dict | list):
        inside = [*(value.values() if isinstance(value, dict) else value)] if depth else []
        return ", ".join(filter(None, (_words(one, depth - 1) for one in inside)))
    return value.strip() if isinstance(value, str) else ""


def whole_number(text: str) -> int | None:
    """Give what a header counts; None for what is no number, or none that can be."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None
