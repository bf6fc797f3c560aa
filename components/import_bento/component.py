"""Take a bento in from object storage or the web."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def import_bento(
    uri: str,
    bento: dsl.Output[dsl.Model],
    sha256: str = "",
) -> str:
    """Take in a bento that export_bento or BentoML's own export wrote, without running any of it.

    What the archive holds is checked before it is believed: sums where they were recorded, names,
    links, sizes. Credentials come from the environment, from a Secret mounted at
    /etc/kfp-bento/storage, or from the pod's identity.

    Args:
        uri: Where it is: s3://bucket/key, minio://bucket/key, an https:// address such as a
            presigned URL, or file:///path.
        bento: The bento directory, models included; its metadata says tag and digest.
        sha256: What the archive's SHA-256 has to be; empty takes what was recorded with it.

    Returns:
        The bento's tag, name:version.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos

    taken = bentos.import_bento(uri, Path(bento.path), sha256=sha256)
    bento.metadata.update(
        tag=taken.tag,
        digest=taken.digest,
        python_version=taken.python_version,
    )
    return taken.tag
