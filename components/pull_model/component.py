"""Pull exact model versions out of an MLflow registry."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def pull_model(
    model_uris: list,
    models: dsl.Output[dsl.Model],
    facts: dsl.Output[dsl.Artifact],
    tracking_uri: str = "",
    identities: list = [],  # noqa: B006 - KFP wants the default in the signature
) -> NamedTuple("Outputs", [("versions", dict)]):
    """Resolve model URIs once and download these versions with their real file names.

    Aliases are looked up here, all before the first download, and never again: every later step
    works on these exact versions, known by their digests. Switch caching off for this step when a
    URI holds an alias; resolve_models takes it out.

    Args:
        model_uris: MLflow model URIs, one or more, for example models:/credit@prod,
            models:/credit/3, models:/m-<id> or runs:/<run id>/model; each also as NAME=URI, where
            the service is to find the model as "NAME:latest". By default that is the registered
            name.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.
        identities: What resolve_models said of these URIs; other models under the same names are
            refused. With them, and URIs without aliases, the step may be cached.

    Returns:
        models: The models, each in a folder of its name; the metadata say name, version, run,
            signature and digest of each, and which records the later steps may believe.
        facts: What is known of the models without their files, for steps that need no weights.
        versions: The registered version of each model by its name; an empty text for one that is
            not registered.
    """
    from pathlib import Path

    from kfp_bento.runtime.models import models_record, pull_models, save_facts

    pulled = pull_models(
        model_uris, Path(models.path), tracking_uri=tracking_uri, identities=identities
    )
    models.metadata.update(
        models=[model.to_dict() for model in pulled], record=models_record(pulled)
    )
    facts.metadata["record"] = save_facts(pulled, Path(facts.path))
    return ({model.name_in_bento: model.version for model in pulled},)
