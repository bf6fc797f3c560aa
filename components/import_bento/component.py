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
    golden: dsl.Output[dsl.Artifact],
    sha256: str = "",
    lock: bool = True,
    without: list = [],  # noqa: B006 - KFP wants the default in the signature
    requirements: list = [],  # noqa: B006
    allow_sources: list = [],  # noqa: B006
    verify: bool = True,
    requests: list = [],  # noqa: B006
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 1e-9,
) -> str:
    """Take in a bento that export_bento or BentoML's own export wrote, whoever built it.

    What the archive holds is checked before it is believed: sums where they were recorded, names,
    links, sizes. A bento whose requirements are not locked with hashes is locked; nothing of it is
    run before that. Then it is started in its locked environment, confined. Credentials come from
    the environment, from a Secret mounted at /etc/kfp-bento/storage, or from the pod's identity.

    Args:
        uri: Where it is: s3://bucket/key, minio://bucket/key, an https:// address such as a
            presigned URL, or file:///path.
        sha256: What the archive's SHA-256 has to be; empty takes what was recorded with it.
        lock: Lock the requirements with hashes, and refuse what no image made of files has; false
            leaves the bento as it is, for the cluster's own image builder.
        without: What is left out: base_image, commands, conda, cuda_version, distro,
            dockerfile_template, index, setup_script, system_packages.
        requirements: Requirements in place of the bento's own for the same packages, or
            besides them, one per item.
        allow_sources: Beginnings of addresses (https://host/path/) of the indexes and wheels that
            the bento's requirements may name, and of repositories (git+https://host/path/), whose
            code is run to build wheels; empty allows names and versions only.
        verify: Start the bento, and ask it the requests; false takes it in unproven.
        requests: What to ask: objects with path, and body (JSON), text or base64 with media_type;
            method, headers and label. What is answered is right from then on. Empty only starts it.
        relative_tolerance: Difference of floats that checks allow later, relative to the expected
            value.
        absolute_tolerance: Difference that they allow in the value's own unit.

    Returns:
        bento: The bento directory, models included; its metadata says tag and digest, and what was
            changed.
        golden: The requests and what was answered, for smoke_test and compare_predictions.
        Output: The bento's tag, name:version.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, proof

    taken = bentos.import_bento(
        uri,
        Path(bento.path),
        bentos.ImportOptions(lock, without, requirements, allow_sources),
        sha256=sha256,
    )
    bento.metadata.update(
        tag=taken.tag,
        digest=taken.digest,
        python_version=taken.python_version,
        note=taken.note,
    )
    answers = proof.golden_answers(
        taken,
        (),
        verify=verify and lock,
        requests=requests,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
    )
    golden.metadata.update(
        record=answers.save(Path(golden.path)), verified=answers.verified, reason=answers.told
    )
    return taken.tag
