"""A bento out of the image that was made of it, for where the image itself cannot be run."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import ChunkReader
from kfp_bento.runtime.images.oci.config import BENTO_PATH
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.image import BlobSource, Layer, one_line
from kfp_bento.runtime.images.places.open import open_image

_KINDS = ("model", "source")
_INSIDE = f"{BENTO_PATH.lstrip('/')}/"
_CHUNK = 1 << 20


def unpack_bento(
    image: str, directory: Path, *, progress: Callable[[str], None] = lambda sentence: None
) -> None:
    """Write the files of a bento, its models among them, as the image of it has them.

    Each layer is compared with its digest while it is read. Nothing is written outside the
    directory, whatever the image holds.

    Args:
        image: A registry reference, `oci:DIR[:TAG]` or `docker-archive:FILE[:TAG]`.
        directory: Where they go; it is made.
        progress: Called with a short sentence for each layer.

    Raises:
        ImageError: It was not built by kfp-bento, cannot be read, or holds what no bento does.
        RegistryError: A registry refused or failed.
    """
    opened = open_image(image)
    layers = [layer for layer in opened.layers if layer.kind in _KINDS]
    if not layers:
        raise ImageError(
            f"{opened.title} holds no bento of ours: no layer of it says so.",
            hint="Name an image that `kfp-bento image build` made of a bento.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        progress(f"unpacking {layer.title}")
        _unpack(layer, opened.blobs, directory)


def _unpack(layer: Layer, blobs: BlobSource, directory: Path) -> None:
    what = f"The layer {layer.title}"
    plain = ChunkReader(decompressed(blobs.open_blob(layer.descriptor), what))
    packed = io.BufferedReader(plain, _CHUNK)
    try:
        with tarfile.open(fileobj=packed, mode="r|") as archive:
            for member in archive:
                if member.name.startswith(_INSIDE):
                    inside = member.replace(
                        name=member.name.removeprefix(_INSIDE),
                        linkname=member.linkname.removeprefix(_INSIDE),
                        deep=False,
                    )
                    archive.extract(inside, directory, filter="data")
        while packed.read(_CHUNK):  # a tar ends before its file, whose digest is known at the end
            pass
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ImageError(
            f"{what} ({layer.digest}) cannot be unpacked: {one_line(error)}.",
            hint="Build the image again from its bento.",
        ) from error
