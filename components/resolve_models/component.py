"""Look model URIs up in a registry once, for a whole run."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def resolve_models(
    model_uris: list,
    tracking_uri: str = "",
    service: str = "",
    requests: list = [],  # noqa: B006 - KFP wants the default in the signature
) -> NamedTuple(
    "Outputs", [("uris", list), ("identities", list), ("aliases", dict), ("looked_at", str)]
):
    """Say which exact versions model URIs mean now, without fetching them.

    What follows is keyed by that, so that Kubeflow's cache knows a step that was run for the same
    versions before. Switch caching off for this step: an alias may have moved.

    Args:
        model_uris: MLflow model URIs, as pull_model takes them.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        service: A service of your own, as build_bento takes it.
        requests: What the bento is to be asked, as build_bento takes it.

    Returns:
        uris: The same without aliases, NAME=models:/credit/7, for pull_model.
        identities: For each what no other version of that name has: source, run and model id; for
            pull_model, which refuses another one.
        aliases: For each registered model its aliases with their versions, for promote_model, which
            moves none that moved meanwhile.
        looked_at: For build_bento: empty, or the time where the service or the requests lie at an
            address, where they may have changed, so that they are fetched anew.
    """
    import time

    from kfp_bento.runtime import bentos
    from kfp_bento.runtime.models import resolve_models

    found = resolve_models(model_uris, tracking_uri=tracking_uri)
    return (
        [one.entry for one in found],
        [one.identity for one in found],
        {one.name: one.aliases for one in found if one.name},
        "" if bentos.is_fixed(service, requests) else str(time.time_ns()),
    )
