"""Starting an image once where it was built, to see that it does."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.images import Image, own_platform, parse_layout
from kfp_bento.runtime.local.layouts import read_layout
from kfp_bento.runtime.local.request import CheckedRelease
from kfp_bento.runtime.local.services import Services, chosen_network, taken

READY = "/readyz"


@dataclass(frozen=True)
class Trial:
    """Whether an image was started.

    Attributes:
        engine: What ran it, podman or docker; empty where nothing did.
        seconds: How long it took to be ready.
        why_not: Why it was not started; empty if it was.
    """

    engine: str = ""
    seconds: float = 0.0
    why_not: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the trial as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """For people."""
        if self.why_not:
            return f"not started: {self.why_not}"
        return f"started by {self.engine}, ready after {self.seconds:.1f} s"


def try_image(
    image: Image, bento: Bento, *, progress: Callable[[str], None] = lambda sentence: None
) -> Trial:
    """Start an image as a pod would, until its service says that it is ready, and end it.

    Args:
        image: What `build_image` gave.
        bento: What it was made of.
        progress: Called with a short sentence at each step.

    Returns:
        What was seen, or why nothing here could have a try.

    Raises:
        ImageError: The image is another by now.
        LocalRunError: The engine does not take it, it does not start, or does not become ready.
    """
    if (here := own_platform()) not in image.platform.split(","):
        return Trial(why_not=f"the image is for {image.platform}, and this machine is {here}")
    kind = image.location.partition(":")[0]
    if kind == "docker-archive":
        return Trial(why_not="an image in an archive has to be loaded first")
    layout = (
        read_layout(parse_layout(f"{image.location}:{image.tags[0]}")) if kind == "oci" else None
    )
    release = CheckedRelease(image.reference, layout, bento)
    with (
        tempfile.TemporaryDirectory(prefix="kfp-bento-try-", ignore_cleanup_errors=True) as folder,
        Services.at(Path(folder), threading.Event(), chosen_network()) as services,
    ):
        engine = services.engine
        if engine is None:
            return Trial(why_not=services.note)
        progress(f"handing the image to {engine.name}")
        try:
            name = taken(engine, release)
        except LocalRunError as error:
            raise LocalRunError(
                f"The image was built as {image.reference}, and {engine.name} does not take it. "
                f"{error.message}",
                hint=f"A cluster may not take it either. If only {engine.name} here lacks a login, "
                "a certificate or a proxy, give it these, or build without --try.",
            ) from error
        progress("starting the image")
        began = time.monotonic()
        try:
            with replace(services, path=READY).run(engine, name):
                return Trial(engine.name, time.monotonic() - began)
        except LocalRunError as error:
            raise LocalRunError(
                f"The image was built as {image.reference}, and does not start. {error.message}"
            ) from error
