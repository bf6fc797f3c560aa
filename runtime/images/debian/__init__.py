"""Debian packages of an image, added without running their scripts.

What a base lacks is chosen by apt (`resolve_packages`) against what the base is made of
(`probe_base`), and unpacked into one layer (`package_entries`).
"""

from kfp_bento.runtime.images.debian.contents import package_named_after, packages_with
from kfp_bento.runtime.images.debian.layer import package_entries
from kfp_bento.runtime.images.debian.packages import (
    DebianPackage,
    SystemPackages,
    resolve_packages,
)
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem, probe_base, release_of
from kfp_bento.runtime.images.debian.userland import PROGRAMS, Userland, version_of

__all__ = [
    "PROGRAMS",
    "DebianPackage",
    "RootFilesystem",
    "SystemPackages",
    "Userland",
    "package_entries",
    "package_named_after",
    "packages_with",
    "probe_base",
    "release_of",
    "resolve_packages",
    "version_of",
]
