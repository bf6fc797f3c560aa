"""What refers to an image, as registries list it, or as clients do where a registry does not.

The list of clients is an index under the tag `sha256-<hex of the subject>` (distribution
specification 1.1). Entries of others stay in it. Registries offer no check-and-set, so the list is
read again after writing and mended if need be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.config import descriptor_of
from kfp_bento.runtime.images.oci.image import OCI_INDEX, Descriptor, referrer_type

if TYPE_CHECKING:
    from kfp_bento.runtime.images.registry.repository import Repository
    from kfp_bento.runtime.images.registry.transport import Transport

_ROUNDS = 8
_PAGES = 1000
# How registries refuse, or what stands before them, whatever path they do not know.
_NO_REFERRERS = {400, 401, 403, 404, 405, 406, 501}


def find_referrers(http: Transport, repository: Repository, digest: str) -> list[dict[str, Any]]:
    """Find the descriptors of the manifests whose subject is the digest.

    Raises:
        RegistryError: The registry fails, or what it gives is no index.
    """
    found: list[dict[str, Any]] = []
    action = f"list what refers to {http.name}@{digest}"
    url = f"referrers/{digest}"
    for _ in range(_PAGES):
        good = {200} if found else {200, *_NO_REFERRERS}
        answer = http.request("GET", url, good, action, headers={"Accept": OCI_INDEX})
        # Some give the pages of their own site for it.
        if answer.status != 200 or (not found and answer.media_type == "text/html"):
            return entries_of(_own_list(repository, digest), http.name)
        found += entries_of(parsed(answer.content, http.name), http.name)
        link = re.match(r'<([^>]+)>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
        if link is None:
            break
        url = http.location(answer, default=link[1])
    return found


def list_referrers(repository: Repository, entries: Sequence[dict[str, Any]], subject: str) -> None:
    """Add entries to the list of clients, and what somebody else's writing made vanish.

    They are written at once: where tags are immutable, a list can be written only once.

    Raises:
        RegistryError: The registry fails, or others keep writing the list.
    """
    name = repository.reference.name
    wanted = list(entries)
    for _ in range(_ROUNDS):
        index = _own_list(repository, subject)
        listed = entries_of(index, name)
        present = {item.get("digest") for item in listed}
        missing = [item for item in wanted if item.get("digest") not in present]
        if not missing:
            return
        # Sorted, so that the order of writing does not show.
        wanted = sorted([*listed, *missing], key=lambda item: str(item.get("digest")))
        content = json.dumps({**index, "manifests": wanted}, separators=(",", ":")).encode()
        described = descriptor_of(content, str(index.get("mediaType") or OCI_INDEX))
        repository.store_manifest(described, content, _own_tag(subject))
    raise RegistryError(
        f"{', '.join(str(entry['digest']) for entry in entries)} could not be listed as referring "
        f"to {name}@{subject}: others keep writing the list.",
        hint="Run this again.",
    )


def referrer_entry(manifest: Descriptor, content: bytes) -> dict[str, Any]:
    """Describe a manifest as the list does (distribution specification)."""
    document = parse_json(content)
    more = {"artifactType": referrer_type(document), "annotations": document.get("annotations")}
    return {**manifest.to_dict(), **{name: value for name, value in more.items() if value}}


def entries_of(index: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Read the entries of an index.

    Raises:
        RegistryError: It is none.
    """
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise RegistryError(
            f"What {name} gives as a list of referrers is no index.",
            hint="Remove the tag sha256-… that holds it, if it was made for something else.",
        )
    return entries


def parsed(content: bytes, name: str) -> dict[str, Any]:
    """Parse a manifest or index.

    Raises:
        RegistryError: It is no JSON object.
    """
    try:
        return parse_json(content)
    except ValueError as error:
        raise RegistryError(f"The manifest of {name} cannot be read: {error}.") from error


def _own_list(repository: Repository, subject: str) -> dict[str, Any]:
    """Give the index that lists referrers where the registry does not; empty if there is none."""
    found = repository.read_manifest_bytes(_own_tag(subject))
    if found is None:
        return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    return parsed(found[1], repository.reference.name)


def _own_tag(subject: str) -> str:
    return subject.replace(":", "-", 1)
