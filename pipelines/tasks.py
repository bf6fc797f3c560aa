"""What all tasks of the shipped pipelines have: a name in words, an image, settings, retries."""

import ast
from dataclasses import replace

from kfp import kubernetes
from kfp.dsl import pipeline_context

from kfp_bento.components import pull_model

DISPLAY_NAMES = {
    "await-approval": "Wait for an approval",
    "build-bento": "Build the bento and prove it",
    "build-image": "Build and push the image",
    "check-and-promote": "Check what is served, move the alias",
    "check-release": "Check what is served",
    "collect-batch": "Write the manifest of the batch",
    "confirm-release": "Keep the release as the good one",
    "deploy-bento": "Deploy on trial",
    "detect-drift": "Look whether the data have drifted",
    "export-bento": "Put the bento into the bucket",
    "import-bento": "Take the bento in",
    "move-release": "Deploy on trial where it goes",
    "package-model": "Take the models to a proven image",
    "plan-batch": "Plan the batch",
    "predict-shard": "Predict one shard",
    "promote-model": "Keep the release, move the alias",
    "pull-model": "Pull the models",
    "require-passed": "Say why it was refused",
    "resolve-models": "Look the models up",
    "roll-back": "Bring the last good release back",
    "scan-model": "Scan the models",
    "settle-run": "Settle what is left on trial",
    "shift-requests": "Shift requests in steps",
    "train-lightgbm": "Train with LightGBM",
    "train-sklearn": "Train with scikit-learn",
    "train-wine-model": "Train the wine classifier",
    "train-xgboost": "Train with XGBoost",
}
"""Names of the steps in Kubeflow's UI, by those of their components."""

RETRIES = {
    # They fetch, send, look or apply, and end alike however often they run. A mistake of the user
    # shows in them within seconds, so that a second and third look costs two pods and 45 s.
    **dict.fromkeys(
        ("resolve-models", "pull-model", "build-image", "export-bento", "import-bento"), 2
    ),
    **dict.fromkeys(("deploy-bento", "move-release", "shift-requests", "check-release"), 2),
    "check-and-promote": 2,
    **dict.fromkeys(("await-approval", "detect-drift", "settle-run"), 2),
    **dict.fromkeys(("plan-batch", "predict-shard", "collect-batch"), 2),
    # Its own mistakes, a model that does not load, take minutes to show: once more, no more.
    **dict.fromkeys(("build-bento", "package-model"), 1),
    # Not these: scan-model and require-passed ask no network; each attempt of a training
    # registers one more version; promote-model and confirm-release fail where a check said no,
    # and settle-run completes what they had begun; roll-back without `leaving_image` would go one
    # release further.
}
"""How often a step is tried again, by the name of its component."""

BACKOFF = {"backoff_duration": "15s", "backoff_factor": 2.0, "backoff_max_duration": "120s"}
TRAINER = "train-"
SETTINGS_DIRECTORY = "/etc/kfp-bento/cluster"
OURS = pull_model.component_spec.implementation.container.image


def finish_tasks(runtime_image, runtime_settings, training_image=None) -> None:
    """Give the tasks of the pipeline that is being made what all of ours have.

    Tasks of components of one's own keep their image and their name.

    Args:
        runtime_image: The parameter of the pipeline that says in which image our steps run; the
            driver puts it into the pod (KFP's backend/src/v2/driver/driver.go, `containerImage`).
        runtime_settings: The parameter that names the ConfigMap of the cluster's settings.
        training_image: The parameter that says in which image our trainers run.
    """
    for task in pipeline_context.Pipeline.get_default_pipeline().tasks.values():
        if task.container_spec is None or task.container_spec.image != OURS:
            continue
        name = task.component_spec.name
        # Looked at above. KFP reads the source of all its callers for a message, which would be
        # nine tenths of the time that our pipelines take to be imported.
        task._ensure_container_spec_exists = lambda: None
        task.set_container_image(training_image if name.startswith(TRAINER) else runtime_image)
        kubernetes.use_config_map_as_volume(
            task, runtime_settings, mount_path=SETTINGS_DIRECTORY, optional=True
        )
        task.container_spec.command[-1] = without_docstring(task.container_spec.command[-1])
        task.component_spec = without_descriptions(task.component_spec)
        if name in DISPLAY_NAMES:
            task.set_display_name(DISPLAY_NAMES[name])
        if name in RETRIES:
            task.set_retry(RETRIES[name], **BACKOFF)


def is_our_trainer(component) -> bool:
    """Say whether a component is one of our trainers."""
    implementation = component.component_spec.implementation
    container = getattr(implementation, "container", None)
    ours = container is not None and container.image == OURS
    return ours and component.component_spec.name.startswith(TRAINER)


def without_descriptions(specification):
    """Take the descriptions of its inputs out of a component's specification.

    Kubeflow shows them nowhere, and a Workflow has them in each node of a step. Those of outputs,
    and of the pipeline's own parameters, stay.
    """
    inputs = {
        key: replace(one, description=None) for key, one in (specification.inputs or {}).items()
    }
    return replace(specification, inputs=inputs or None)


def without_docstring(source: str) -> str:
    """Take the docstring out of a component's source as KFP embeds it.

    Nobody reads it there, and a Workflow, which holds the source, has to stay below etcd's limit.
    """
    function = ast.parse(source).body[-1]
    first = function.body[0]
    lines = source.splitlines(keepends=True)
    return "".join([*lines[: first.lineno - 1], *lines[first.end_lineno :]])
