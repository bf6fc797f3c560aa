"""A training component, joined to everything that comes after it."""

from kfp_bento.components import deploy_bento
from kfp_bento.pipelines.credentials import with_mlflow_credentials, with_storage_credentials
from kfp_bento.pipelines.serve_model import serve_model, serve_steps
from kfp_bento.pipelines.signatures import (
    in_order,
    own_inputs,
    parameter_kind,
    pipeline_named,
    with_signature,
)
from kfp_bento.pipelines.tasks import is_our_trainer

MODEL_URIS = "model_uris"
DATA = "data"


def train_to_serve(train, *, name: str = "train-to-serve", description: str = ""):
    """Make a pipeline of a training component: train, then serve what was registered.

    The pipeline's parameters are those of the training component and those of serve_model, less
    the model URIs, which training produces. A name that both have is one parameter, given to both.

    Args:
        train: A KFP component that returns one text, the URI of the model version it registered,
            for example models:/credit/3, or a list of such texts where it registers several. It
            may have output artifacts besides. Where it has an input `data`, which may lie in a
            bucket, it gets the storage's Secret as well as MLflow's.
        name: Name of the pipeline.
        description: Description of the pipeline; empty gives one that names the component.

    Returns:
        A KFP pipeline, to be compiled, submitted or run with kfp.local.

    Raises:
        TypeError: If the component takes an artifact, or returns neither one text nor one list.
    """
    uri, kind = model_uri_output(train)
    train_inputs = dict(train.component_spec.inputs or {})
    serve_inputs = {k: v for k, v in own_inputs(serve_model).items() if k != MODEL_URIS}
    inputs = in_order({**serve_inputs, **train_inputs})

    def pipeline(**given):
        trained = train(**{key: given[key] for key in train_inputs})
        trained.set_caching_options(False)  # it registers a version: an act outside the pipeline
        with_mlflow_credentials(trained, given["mlflow_secret"])
        if DATA in train_inputs:
            with_storage_credentials(trained, given["storage_secret"])
        served = {key: given[key] for key in serve_inputs}
        uris = trained.outputs[uri] if kind == "List" else [trained.outputs[uri]]
        # Its steps stand in this pipeline: neither backend nor local runner resolves an output
        # inside a list that is handed to a nested pipeline.
        serve_steps(deploy_bento)(**{MODEL_URIS: uris}, **served)

    summary = description or f"Run {train.name}, then serve its model."
    shaped = with_signature(pipeline, inputs, name=name, summary=summary)
    return pipeline_named(name, trains=is_our_trainer(train))(shaped)


def model_uri_output(train) -> tuple[str, str]:
    """Give the name and the kind of the output of a training component that names its models."""
    outputs = train.component_spec.outputs or {}
    kinds = {key: parameter_kind(spec.type) for key, spec in outputs.items()}
    values = {key: kind for key, kind in kinds.items() if kind}
    if list(values.values()) not in (["String"], ["List"]):
        raise TypeError(
            f"{train.name} must return one text, the URI of the model version it registered, or "
            f"one list of such texts; what it returns is: {', '.join(values) or 'nothing'}."
        )
    return next(iter(values.items()))
