"""Train a scikit-learn estimator on a table, and register it."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def train_sklearn(
    data: str,
    label: str,
    model_name: str,
    metrics: dsl.Output[dsl.Metrics],
    task: str = "auto",
    estimator: str = "",
    params: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
    features: list = [],  # noqa: B006
    probabilities: bool = False,
    test_share: float = 0.2,
    seed: int = 0,
    input_format: str = "",
    tracking_uri: str = "",
) -> str:
    """Train a scikit-learn estimator on CSV, Parquet or JSONL, and register the version.

    Texts are coded one-hot. Other estimators than HistGradientBoosting also get missing numbers
    filled and all numbers scaled. The same data,
    parameters, seed and packages give the same model. The run in MLflow holds parameters, metrics,
    and the statistics of the features as statistics.json, which detect_drift finds; the model has
    its signature and an input example.

    The image needs the extra training: pip install 'kfp-bento[training]'. Credentials of the
    storage come from the environment, from a Secret mounted at /etc/kfp-bento/storage, or from the
    pod's identity.

    Args:
        data: A file, or a folder of files: s3://bucket/key, minio://bucket/key, file:///path, or an
            https:// address of one file. It has to fit into memory.
        label: The column to predict; a row without one is refused.
        model_name: Registered model that receives a new version.
        task: classification, regression, or auto: texts, booleans and up to 50 different whole
            numbers are classes.
        estimator: Class of scikit-learn, such as RandomForestClassifier; empty takes
            HistGradientBoosting of the task.
        params: Parameters of the estimator by the names of scikit-learn's interface.
        features: Columns that the model gets; empty gives it all but the label.
        probabilities: Whether the model answers a list of probabilities, in the order of the sorted
            classes, instead of the class; check_metrics then has roc_auc and log_loss.
        test_share: Share of the rows that are kept for the metrics.
        seed: Of the split and of the estimator.
        input_format: csv, parquet or jsonl; empty takes what the names of the files say.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.

    Returns:
        metrics: What the model is worth on the rows that it did not see.
        Output: The URI of the registered version, models:/<name>/<version>.
    """
    from kfp_bento.runtime import training

    options = training.TrainOptions(
        label=label,
        model_name=model_name,
        task=task,
        estimator=estimator,
        params=params,
        features=tuple(features),
        probabilities=probabilities,
        test_share=test_share,
        seed=seed,
        input_format=input_format,
    )
    trained = training.train_model("scikit-learn", data, options, tracking_uri=tracking_uri)
    metrics.metadata.update(trained.metrics)
    return trained.uri
