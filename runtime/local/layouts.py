"""The image in an OCI layout directory, told by its digests before anything runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import JSON_LIMIT, parse_json
from kfp_bento.runtime.images import (
    BENTO,
    Descriptor,
    LayoutReference,
    LayoutSource,
    descriptor_from,
    open_image,
)


@dataclass(frozen=True)
class LayoutImage:
    """An image in an OCI layout.

    Attributes:
        directory: The layout.
        tag: What the layout calls it.
        digest: Digest of its manifest, or of the index that lists it.
        config_digest: Digest of its configuration, which engines know images by; of an index that
            of the image for this machine.
        labels: What the image says about itself.
    """

    directory: Path
    tag: str
    digest: str
    config_digest: str
    labels: Mapping[str, str] = field(default_factory=dict)


def read_layout(layout: LayoutReference) -> LayoutImage:
    """Read which image a layout holds.

    Raises:
        ImageError: It is no layout, holds none or several images, none for this machine, or
            another thing.
    """
    source = LayoutSource(layout.directory)
    found, tag = source.find_named(layout.tag)
    manifest = _document(source, found)
    if "manifests" in manifest:
        manifest = _document(source, open_image(str(layout)).descriptor)
    config = descriptor_from(manifest.get("config"))
    settings = _document(source, config).get("config")
    labels = settings.get("Labels") if isinstance(settings, dict) else None
    texts = labels.items() if isinstance(labels, dict) else ()
    return LayoutImage(
        directory=layout.directory,
        tag=tag,
        digest=found.digest,
        config_digest=config.digest,
        labels={key: value for key, value in texts if isinstance(value, str)},
    )


def check_image(image: LayoutImage, digest: str, bento_tag: str) -> None:
    """Make sure that a layout holds the image that was asked for, made of this bento.

    Raises:
        ImageError: It is another, or says that it was made of another bento.
    """
    if image.digest != digest:
        raise ImageError(
            f"The OCI layout {image.directory} holds the image {image.digest}, not {digest}.",
            hint="Build the image again; something else was written there since.",
        )
    # An image that another builder made of a bento does not say of which one.
    if image.labels.get(BENTO, bento_tag) != bento_tag:
        raise ImageError(f"The image {digest} was not made of the bento {bento_tag}.")


def _document(source: LayoutSource, blob: Descriptor) -> dict[str, Any]:
    if blob.size > JSON_LIMIT:
        raise ImageError(f"{blob.digest} is too large for a manifest or configuration.")
    try:
        return parse_json(b"".join(source.open_blob(blob)))
    except ValueError as error:
        raise ImageError(f"{blob.digest} is no manifest or configuration: {error}.") from None
