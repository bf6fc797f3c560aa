"""Blobs put into a sink side by side, and what became of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from kfp_bento.runtime.concurrency import run_all
from kfp_bento.runtime.images.oci.image import BlobSink, BlobSource, Descriptor, Placement

AT_ONCE = 4


@dataclass(frozen=True)
class BlobUpload:
    """A blob that is to be put.

    Attributes:
        title: What it is, for people.
        blob: Its descriptor.
        source: Where its bytes come from.
    """

    title: str
    blob: Descriptor
    source: BlobSource


@dataclass(frozen=True)
class Transfer:
    """A blob that has been put.

    Attributes:
        title: What it is, for people.
        digest: Its digest.
        size: Its size in bytes.
        placement: `sent`, `mounted` from a neighbour, or `present` before.
    """

    title: str
    digest: str
    size: int
    placement: Placement


def placed_bytes(transfers: Iterable[Transfer]) -> dict[str, int]:
    """Bytes that were sent, mounted and present."""
    total = {"sent": 0, "mounted": 0, "present": 0}
    for transfer in transfers:
        total[transfer.placement] += transfer.size
    return total


def transfers_to_dict(transfers: Iterable[Transfer]) -> dict[str, Any]:
    """Transfers as plain JSON values, with the bytes of each placement."""
    listed = list(transfers)
    return {"bytes": placed_bytes(listed), "blobs": [asdict(item) for item in listed]}


def put_blobs(
    sink: BlobSink, loads: Iterable[BlobUpload], progress: Callable[[str], None]
) -> tuple[Transfer, ...]:
    """Put blobs into a sink, four at a time and each digest once.

    Args:
        sink: Takes them.
        loads: The blobs; started in this order.
        progress: Told what is going on, from several threads.

    Returns:
        What became of each, in the same order.

    Raises:
        ImageError: One could not be read or stored. No other is started then, and those under
            way are waited for; only an interrupt does not wait.
    """
    wanted = list({load.blob.digest: load for load in reversed(list(loads))}.values())

    def put(load: BlobUpload) -> Transfer:
        progress(f"storing {load.title} ({load.blob.size / 1e6:.1f} MB)")
        placement = sink.put_blob(load.blob, load.source)
        return Transfer(load.title, load.blob.digest, load.blob.size, placement)

    return tuple(run_all([functools.partial(put, load) for load in reversed(wanted)], AT_ONCE))
