"""Images: from a bento directory to an OCI image, without Docker, root or a daemon.

`build_image` puts base, dependencies, models and source together as layers whose bytes depend on
content only, and writes them to an OCI layout directory, a docker archive or a registry.
`copy_image` moves whole images between these, and `rebase_image` exchanges what lies below one.
"""

from kfp_bento.runtime.images.assembly.documents import (
    read_provenance,
    read_sboms,
    write_attestations,
)
from kfp_bento.runtime.images.assembly.options import ImageOptions
from kfp_bento.runtime.images.assembly.plan import ImagePlan, PlannedLayer
from kfp_bento.runtime.images.assembly.qualify import qualify
from kfp_bento.runtime.images.base.base_image import choose_base
from kfp_bento.runtime.images.build import build_image, plan_image
from kfp_bento.runtime.images.copy import CopiedImage, copy_image
from kfp_bento.runtime.images.oci.image import Image, Layer
from kfp_bento.runtime.images.oci.reference import parse_destination, parse_reference
from kfp_bento.runtime.images.oci.transfer import Transfer, placed_bytes
from kfp_bento.runtime.images.pack import pack_image
from kfp_bento.runtime.images.rebase import RebasedImage, rebase_image

__all__ = [
    "CopiedImage",
    "Image",
    "ImageOptions",
    "ImagePlan",
    "Layer",
    "PlannedLayer",
    "RebasedImage",
    "Transfer",
    "build_image",
    "choose_base",
    "copy_image",
    "pack_image",
    "parse_destination",
    "parse_reference",
    "placed_bytes",
    "plan_image",
    "qualify",
    "read_provenance",
    "read_sboms",
    "rebase_image",
    "write_attestations",
]
