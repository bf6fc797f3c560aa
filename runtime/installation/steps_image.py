"""The images that the steps of pipelines run in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from kfp_bento.runtime.images import Image, ImageOptions, pack_image
from kfp_bento.runtime.installation.own_wheel import DISTRIBUTION, own_wheel

# The only one in the locks of which an index has no wheel.
_BUILT_HERE = ("kfp-server-api",)


def python_version() -> str:
    """Give the minor version of Python that the images of steps have: the one that runs here."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class StepsImage:
    """An image of steps.

    Attributes:
        name: What it is called, also as the last part of its repository.
        variable: What names it to `kfp_bento.components` when pipelines are compiled.
        lock: What it holds besides kfp-bento, with hashes.
    """

    name: str
    variable: str
    lock: Path

    def destination(self, registry: str) -> str:
        """Give its place in a registry, `HOST[:PORT][/PATH]`, or below a folder, `oci:DIR`."""
        return f"{registry.rstrip('/')}/{self.name}:{version(DISTRIBUTION)}"


STEPS_IMAGES = {
    extra: StepsImage(
        f"{extra}-python", variable, Path(__file__).with_name(f"requirements-{extra}.txt")
    )
    for extra, variable in (
        ("runtime", "KFP_BENTO_IMAGE"),
        ("training", "KFP_BENTO_TRAINING_IMAGE"),
    )
}
"""The image of all steps, and that of the trainers, by the extra that each holds."""


def pack_steps_image(
    image: StepsImage,
    destination: str,
    options: ImageOptions,
    *,
    progress: Callable[[str], None] = lambda sentence: None,
) -> Image:
    """Build an image of steps out of its lock and the kfp-bento that is running.

    Args:
        image: One of `STEPS_IMAGES`.
        destination: As `pack_image` takes it.
        options: As `pack_image` takes them.
        progress: Called with a short sentence at each step.

    Raises:
        InvalidInput: The wheel of kfp-bento cannot be made, or a parameter cannot be used.
        ImageError: The image cannot be assembled or written.
    """
    with TemporaryDirectory(prefix="kfp-bento-install-") as scratch:
        return pack_image(
            image.lock,
            destination,
            options,
            name=image.name,
            version=version(DISTRIBUTION),
            python=python_version(),
            wheels=[own_wheel(Path(scratch))],
            built_here=_BUILT_HERE,
            progress=progress,
        )
