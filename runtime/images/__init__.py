"""Images: from a bento directory to an OCI image, without Docker, root or a daemon.

`build_image` puts base, dependencies, models and source together as layers whose bytes depend on
content only, and writes them to an OCI layout directory, a docker archive or a registry.
`copy_image` moves whole images between these, `rebase_image` exchanges what lies below one, and
`sign_image` and `verify_image` say who stands for one.
"""

from kfp_bento.runtime.images.assembly.context import shared_records
from kfp_bento.runtime.images.assembly.documents import (
    read_provenance,
    read_sboms,
    write_attestations,
)
from kfp_bento.runtime.images.assembly.options import ImageOptions
from kfp_bento.runtime.images.assembly.plan import ImagePlan, PlannedLayer
from kfp_bento.runtime.images.base.base_image import choose_base
from kfp_bento.runtime.images.build import build_image, check_destination, plan_image
from kfp_bento.runtime.images.copy import copy_image
from kfp_bento.runtime.images.model_only import build_model_image
from kfp_bento.runtime.images.oci.config import BENTO, USER_ID
from kfp_bento.runtime.images.oci.image import (
    Descriptor,
    Image,
    Layer,
    descriptor_from,
    own_platform,
)
from kfp_bento.runtime.images.oci.reference import LayoutReference, parse_layout, parse_reference
from kfp_bento.runtime.images.oci.transfer import Transfer, placed_bytes
from kfp_bento.runtime.images.pack import pack_image
from kfp_bento.runtime.images.places.layout import LayoutSource
from kfp_bento.runtime.images.places.open import open_image
from kfp_bento.runtime.images.rebase import rebase_image
from kfp_bento.runtime.images.sign import SignedImage, sign_image, verify_image
from kfp_bento.runtime.images.signatures.keys import (
    load_public_keys,
    load_signing_key,
    own_signing_key,
    read_public_keys,
)
from kfp_bento.runtime.images.unpack import unpack_bento

__all__ = [
    "BENTO",
    "USER_ID",
    "Descriptor",
    "Image",
    "ImageOptions",
    "ImagePlan",
    "Layer",
    "LayoutReference",
    "LayoutSource",
    "PlannedLayer",
    "SignedImage",
    "Transfer",
    "build_image",
    "build_model_image",
    "check_destination",
    "choose_base",
    "copy_image",
    "descriptor_from",
    "load_public_keys",
    "load_signing_key",
    "open_image",
    "own_platform",
    "own_signing_key",
    "pack_image",
    "parse_layout",
    "parse_reference",
    "placed_bytes",
    "plan_image",
    "read_provenance",
    "read_public_keys",
    "read_sboms",
    "rebase_image",
    "shared_records",
    "sign_image",
    "unpack_bento",
    "verify_image",
    "write_attestations",
]
