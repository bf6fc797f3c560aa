"""Train a small classifier and register it: the example that the demo runs."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def train_wine_model(
    metrics: dsl.Output[dsl.Metrics],
    model_name: str = "wine",
    regularization: float = 1.0,
    tracking_uri: str = "",
) -> str:
    """Train a classifier of Italian wines on scikit-learn's own copy of the data; register it.

    An example to replace by a training component of your own. Whatever registers a model version
    and returns its URI can stand here.

    Args:
        model_name: Registered model that receives a new version.
        regularization: Inverse strength of the penalty, as scikit-learn's parameter C.
        tracking_uri: MLflow tracking server; empty takes MLFLOW_TRACKING_URI.

    Returns:
        metrics: Accuracy on the held-out third of the data.
        Output: The URI of the registered version, models:/<name>/<version>.
    """
    from importlib.metadata import version

    import mlflow
    from mlflow.models import infer_signature
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    import kfp_bento.runtime  # noqa: F401 - the cluster's certificates and proxies, from here on

    features, cultivar = load_wine(return_X_y=True, as_frame=True)
    train, test, train_cultivar, test_cultivar = train_test_split(
        features, cultivar, test_size=1 / 3, random_state=0, stratify=cultivar
    )
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=regularization, max_iter=1000)
    ).fit(train, train_cultivar)
    accuracy = float(classifier.score(test, test_cultivar))
    metrics.log_metric("accuracy", accuracy)

    used = ("scikit-learn", "numpy", "pandas", "cloudpickle")
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    with mlflow.start_run():
        mlflow.log_param("regularization", regularization)
        mlflow.log_metric("accuracy", accuracy)
        logged = mlflow.sklearn.log_model(
            classifier,
            name="model",
            registered_model_name=model_name,
            signature=infer_signature(test, classifier.predict(test)),
            input_example=test.head(5),
            # Equal trainings give equal bytes in this format, and no id of the run is in them.
            serialization_format="cloudpickle",
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",  # also where only mlflow-skinny is installed
                *(f"{name}=={version(name)}" for name in used),
            ],
        )
    return f"models:/{model_name}/{logged.registered_model_version}"
