"""Names that Kubernetes accepts, and names made to fit."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import SplitResult, urlsplit

from kfp_bento.runtime.errors import InvalidInput

# What a release's name may be made of at most: a Service has the same name, and a label has it.
_LONGEST_NAME = 63
# Names that are made are as short on every target, and stay as they were.
_LONGEST_MADE = 50

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")
_KEY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_IMAGE = re.compile(
    r"[a-z0-9]+([._:-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?@sha256:[0-9a-f]{64}"
)

_TAGGED = re.compile(
    r"[a-z0-9]+([._:-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
    r":[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
)


def deployment_name_problem(name: str, longest: int = _LONGEST_NAME) -> str:
    """Say why a release cannot have this name; empty when it can."""
    if len(name) > longest:
        return (
            f"has {len(name)} characters; at most {longest} leave room for the names that are "
            "derived from it"
        )
    if not _DNS_1035.fullmatch(name):
        return (
            "is no DNS-1035 label (lower-case letters, digits and '-', a letter first); "
            "it becomes the name of the Service"
        )
    return ""


def resource_name_problem(name: str) -> str:
    """Say why a resource such as a Bento or a Secret cannot have this name."""
    if len(name) > 253:
        return f"has {len(name)} characters; Kubernetes allows 253"
    if not _DNS_SUBDOMAIN.fullmatch(name):
        return "is no DNS-1123 name (lower-case letters, digits, '-' and '.')"
    return ""


def label_name_problem(name: str) -> str:
    """Say why a namespace, a container or a volume cannot have this name; empty when it can."""
    if len(name) > 63 or not _DNS_LABEL.fullmatch(name):
        return (
            "is no DNS-1123 label (lower-case letters, digits and '-', no dots, at most 63 "
            "characters)"
        )
    return ""


def host_problem(host: str) -> str:
    """Say why a route cannot serve this host name; empty when it can."""
    name = host.removeprefix("*.")
    if len(host) > 253 or not _DNS_SUBDOMAIN.fullmatch(name):
        return "is no host name (lower-case, perhaps with a leading '*.', no port and no path)"
    return ""


def destination_problem(image: str) -> str:
    """Say why an image cannot be pushed to this reference; empty when it can."""
    if "@" in image:
        return "names a digest, and the image is not built yet"
    if not _TAGGED.fullmatch(image):
        return "is no image reference of the form registry/repository:tag"
    if image.endswith(":latest"):
        return "has the tag latest, which the builder takes for built already the next time"
    return ""


def label_value_problem(value: str) -> str:
    """Say why a label cannot have this value; empty when it can."""
    if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
        return (
            "is no label value (at most 63 letters, digits, '-', '_' and '.', "
            "with a letter or digit at both ends)"
        )
    return ""


def metadata_key_problem(key: str) -> str:
    """Say why a label or annotation cannot have this key; empty when it can."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return f"has a prefix {prefix!r} that is no DNS name"
    if len(name) > 63 or not _KEY_NAME.fullmatch(name):
        return "is no valid key ([prefix/]name, the name at most 63 letters, digits, '-', '_', '.')"
    return ""


def image_problem(image: str) -> str:
    """Say why this is no image reference by digest; empty when it is one."""
    if "@sha256:" not in image:
        return "names no digest: what a tag points to can change after the checks"
    if not _IMAGE.fullmatch(image):
        return "is no image reference of the form registry/repository@sha256:<64 hex digits>"
    return ""


def kebab(text: str) -> str:
    """Give `text` in lower case with '-' where Kubernetes allows nothing else.

    >>> kebab("Demo_Svc 2")
    'demo-svc-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def deployment_name(bento_name: str, wanted: str = "", longest: int = _LONGEST_NAME) -> str:
    """Give a release's name: the wanted one if it is valid, else one made to fit.

    Args:
        bento_name: Name of the bento, of which one is made.
        wanted: What the user chose; "" for none.
        longest: Most characters that a wanted name may have.

    Raises:
        InvalidInput: `wanted` cannot be a name; it is never changed silently.
    """
    if wanted:
        if problem := deployment_name_problem(wanted, longest):
            raise InvalidInput(
                f"name: {wanted!r} {problem}.",
                hint=f"Choose a name like {deployment_name(wanted)!r}.",
            )
        return wanted
    made = kebab(bento_name)
    if not made[:1].isalpha():
        made = f"bento-{made}".strip("-")
    if len(made) > _LONGEST_MADE:
        tail = hashlib.sha256(bento_name.encode()).hexdigest()[:8]
        made = f"{made[: _LONGEST_MADE - 9].rstrip('-')}-{tail}"
    return made


def split_url(field: str, url: str) -> SplitResult:
    """Give the parts of a URL.

    Raises:
        InvalidInput: It has a host or a port that is none.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read to be checked
    except ValueError as error:
        raise InvalidInput(f"{field}: it is no URL: {error}.", hint="Correct it.") from None
    return parts
