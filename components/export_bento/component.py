"""Put a bento into object storage."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def export_bento(
    bento: dsl.Input[dsl.Model],
    uri: str,
    archive_format: str = "",
) -> NamedTuple("Outputs", [("location", str), ("sha256", str)]):
    """Put a bento, models included, into one archive in a bucket or on a mounted disk.

    The archive is there only once it is whole, with its SHA-256 recorded in its metadata and beside
    it. The same bento gives the same archive. Credentials come from the environment, from a Secret
    mounted at /etc/kfp-bento/storage, or from the pod's identity.

    Args:
        bento: A bento directory from build_bento or import_bento.
        uri: Where it goes: s3://bucket/key, minio://bucket/key or file:///path; with a slash at its
            end a folder, in which the archive is called name-version.
        archive_format: bento (as BentoML's own export writes it), tar, tar.gz, tar.xz, tar.bz2, zip
            or directory; empty takes what the name says, else bento.

    Returns:
        location: The archive's address.
        sha256: SHA-256 of the archive, hexadecimal.
    """
    from kfp_bento.runtime import bentos

    exported = bentos.export_bento(bentos.load_given_bento(bento), uri, archive_format)
    return (exported.uri, exported.sha256)
