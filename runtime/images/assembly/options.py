"""What can be said of every image that is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "KFP_BENTO_CACHE"
CACHE_REPOSITORY_VARIABLE = "KFP_BENTO_CACHE_REPOSITORY"


@dataclass(frozen=True)
class ImageOptions:
    """How an image is to be built, as a user says it.

    Attributes:
        base: `host`, `oci:DIR[:TAG]`, `docker-archive:FILE[:TAG]` or a registry reference. Empty:
            what `choose_base` says.
        repository: The repository the image is to be known by when it goes to a directory or file;
            `localhost/<name>` if empty.
        tag: The tag; the version if neither this nor the destination says one.
        platform: `linux/amd64` or `linux/arm64`, this machine's if empty; both with a comma between
            for one index of two images.
        cache: A directory where costly layers are kept between builds; `$KFP_BENTO_CACHE` if
            none is given, and none if that is not set.
        cache_repository: A repository of the destination's registry where layers are recorded, so
            that several repositories share them; `$KFP_BENTO_CACHE_REPOSITORY` if empty, and
            the destination itself if that is not set.
        system_packages: Debian packages besides those that the bento asks for, with or without
            `=version`.
        base_key: Public keys in PEM: a base that none of them signed is refused. Empty: any base
            is taken.
        compression: `zstd`, `gzip` or `none`; models are never compressed.
    """

    base: str = ""
    repository: str = ""
    tag: str = ""
    platform: str = ""
    cache: Path | None = None
    cache_repository: str = ""
    system_packages: tuple[str, ...] = ()
    base_key: str = ""
    compression: str = "zstd"


DEFAULTS = ImageOptions()
