"""Data are looked at; where they have drifted, a model is trained anew and taken to a service."""

from types import SimpleNamespace

from kfp import dsl

from kfp_bento.components import deploy_bento, detect_drift, train_sklearn
from kfp_bento.pipelines.credentials import (
    with_mlflow_credentials,
    with_record_key,
    with_storage_credentials,
)
from kfp_bento.pipelines.serve_model import serve_model, serving_steps
from kfp_bento.pipelines.signatures import in_order, own_inputs, pipeline_named, with_signature
from kfp_bento.pipelines.steps import (
    settled_at_the_end,
)
from kfp_bento.pipelines.tasks import is_our_trainer
from kfp_bento.pipelines.train_to_serve import DATA, MODEL_URIS, model_uri_output

DRIFT = {
    "drift_data": "data",
    "drift_model_uri": "model_uri",
    "drift_columns": "columns",
    "drift_psi": "psi",
    "drift_share": "share",
}


def retrain_with(train, *, name: str = "retrain-on-drift"):
    """Make a pipeline that trains and serves a model anew where data have drifted.

    Its parameters are those of the training component, those of serve_model less the model URIs,
    and what the data are held against. Where they have not drifted, nothing else runs.

    Args:
        train: A KFP component as train_to_serve takes it.
        name: Name of the pipeline.

    Returns:
        A KFP pipeline, to be compiled, submitted, scheduled or run with kfp.local.

    Raises:
        TypeError: As for train_to_serve.
    """
    uri, kind = model_uri_output(train)
    train_inputs = dict(train.component_spec.inputs or {})
    serve_inputs = {k: v for k, v in own_inputs(serve_model).items() if k != MODEL_URIS}
    looked_at = {key: detect_drift.component_spec.inputs[inner] for key, inner in DRIFT.items()}
    inputs = in_order({**serve_inputs, **train_inputs, **looked_at})

    def pipeline(**given):
        served = SimpleNamespace(**{key: given[key] for key in serve_inputs})
        with settled_at_the_end(served):
            drift = detect_drift(
                **{inner: given[key] for key, inner in DRIFT.items()},
                tracking_uri=served.tracking_uri,
            )
            drift.set_caching_options(False)  # what is at an address may have become other data
            with_mlflow_credentials(drift, served.mlflow_secret)
            with_storage_credentials(drift, served.storage_secret)
            with_record_key(drift, served.record_secret)
            with dsl.If(drift.outputs["Output"] == True, name="Data have drifted"):  # noqa: E712 - KFP reads the operator
                trained = train(**{key: given[key] for key in train_inputs})
                trained.set_caching_options(False)
                with_mlflow_credentials(trained, served.mlflow_secret)
                if DATA in train_inputs:
                    with_storage_credentials(trained, served.storage_secret)
                uris = trained.outputs[uri] if kind == "List" else [trained.outputs[uri]]
                serving_steps(deploy_bento, SimpleNamespace(**vars(served), model_uris=uris))

    summary = f"Where data have drifted, run {train.name}, then serve its model."
    shaped = with_signature(pipeline, inputs, name=name, summary=summary)
    return pipeline_named(name, trains=is_our_trainer(train))(shaped)


retrain_on_drift = retrain_with(train_sklearn)
