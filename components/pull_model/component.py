"""Pull one exact model version out of an MLflow registry."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def pull_model(model_uri: str, model: dsl.Output[dsl.Model], tracking_uri: str = "") -> str:
    """Resolve a model URI once and download that version with its real file names.

    An alias is looked up here and never again: every later step works on this exact version,
    known by its digest. Switch caching off for this step when the URI holds an alias.

    Args:
        model_uri: MLflow model URI, for example models:/credit@prod, models:/credit/3,
            models:/m-<id> or runs:/<run id>/model.
        model: The model directory; its metadata says name, version, run, signature and digest, and
            which record in the directory the later steps may believe.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.

    Returns:
        The registered version, or an empty text for a model that is not registered.
    """
    from pathlib import Path

    from kfp_bento.runtime import models

    pulled = models.pull_model(model_uri, Path(model.path), tracking_uri=tracking_uri)
    model.metadata.update(pulled.to_dict(), record=pulled.record)
    return pulled.version
