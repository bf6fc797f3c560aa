"""Build a bento around a model."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def build_bento(
    model: dsl.Input[dsl.Model],
    bento: dsl.Output[dsl.Model],
    bento_name: str = "",
    service_source: str = "",
    extra_requirements: list = [],  # noqa: B006 - KFP wants the default in the signature
    show_example: bool = True,
    allow_sources: list = [],  # noqa: B006
    python_version: str = "",
) -> str:
    """Build a bento with locked dependencies and a version derived from its content.

    Without a service source a typed service is generated from the model's signature.

    Args:
        model: A model directory from pull_model.
        bento: The bento directory, models included; its metadata says tag and digest.
        bento_name: Name of the bento; empty takes the registered model's name.
        service_source: Directory or file with a BentoML service of your own; empty generates one.
        extra_requirements: Requirements to lock besides the model's own, one per item.
        show_example: Show the first row of the model's input example, which may be somebody's data,
            on the API page of a generated service.
        allow_sources: Beginnings of addresses (https://host/path/) of the indexes and wheels that
            the model's own requirements may name, and of repositories (git+https://host/path/),
            whose code is run to build wheels; empty allows names and versions only.
        python_version: Python of the bento, such as 3.11; empty takes the model's own.

    Returns:
        The bento's tag, name:version.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, models

    built = bentos.build_bento(
        [models.load_model(Path(model.path), record=model.metadata.get("record", ""))],
        Path(bento.path),
        name=bento_name,
        service=Path(service_source) if service_source else None,
        requirements=extra_requirements,
        show_example=show_example,
        allow_sources=allow_sources,
        python_version=python_version,
    )
    bento.metadata.update(
        tag=built.tag,
        digest=built.digest,
        python_version=built.python_version,
        record=bentos.bento_record(built),
    )
    return built.tag
