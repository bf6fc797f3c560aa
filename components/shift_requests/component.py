"""Send a new image more and more of the requests, and check it at each step."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def shift_requests(
    bento: dsl.Input[dsl.Artifact],
    golden: dsl.Input[dsl.Artifact],
    image: str,
    manifests: dsl.Output[dsl.Artifact],
    reports: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    steps: list = [10, 50],  # noqa: B006 - KFP wants the defaults in the signature
    soak_seconds: int = 60,
    gates: dict = {},  # noqa: B006
    target: str = "workload",
    mode: str = "auto",
    name: str = "",
    namespace: str = "",
    resources: dict = {},  # noqa: B006
    autoscaling: dict = {},  # noqa: B006
    envs: list = [],  # noqa: B006
    image_pull_secrets: list = [],  # noqa: B006
    options: dict = {},  # noqa: B006
    ready_seconds: int = 120,
    wait_seconds: int = 600,
    run: str = "",
) -> NamedTuple("Outputs", [("passed", bool)]):
    """Run an image beside the last good release, and shift requests to it in steps.

    At each step it is checked at an address of its own, where the target gives it one, left alone
    for a while, and looked at once more. What does not pass is left for the last good release at
    once, and this step ends well all the same, so that Kubeflow keeps its reports: deploy_bento,
    given them as `after`, refuses to go on. Switch caching off for this step.

    Args:
        bento: The facts of the bento that the image was made of, or the bento.
        golden: The golden answers of build_bento.
        image: The image by digest, repository@sha256:...
        steps: Percent of the requests that the new image gets, step by step, from 1 to 99.
        soak_seconds: How long each step goes on before it is looked at once more.
        gates: Further checks at each step by name, each with its options; see check_release.
        target: workload with a route in its options, or inference-service in mode Serverless;
            others cannot split requests.
        mode: See deploy_bento; where no cluster is deployed to, nothing is shifted.
        name: Name of the release; empty takes the bento's name.
        namespace: Namespace of all its resources; empty takes that of the run.
        resources: Requests and limits, for example {"limits": {"cpu": "1", "memory": "1Gi"}}.
        autoscaling: For example {"minReplicas": 1, "maxReplicas": 3}.
        envs: Environment variables, [{"name": "LOG_LEVEL", "value": "info"}].
        image_pull_secrets: Names of image pull secrets in the namespace.
        options: All other options of the target, by name; for a workload its route.
        ready_seconds: How long the new pods may take to answer.
        wait_seconds: How long a step may take to serve, and as long again the last good release.
        run: The pipeline run, by which settle_run finds what it has left on trial:
            dsl.PIPELINE_JOB_ID_PLACEHOLDER.

    Returns:
        manifests: Directory with the rendered YAML of each step.
        reports: The reports of all steps as one JSON document, for deploy_bento's `after`.
        page: The reports for people, as a page.
        metrics: The measures of the last step, and whether all passed.
        summary: The reports as Markdown.
        passed: Whether all steps passed.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, deployments, promotion, proof
    from kfp_bento.runtime import reports as written

    shifting = promotion.Shifting(
        steps=tuple(map(int, steps)),
        soak_seconds=soak_seconds,
        gates=gates,
        ready_seconds=ready_seconds,
        mode=mode,
        run=run,
        waiting=deployments.Waiting(wait_seconds, progress=written.tell),
    )
    render = deployments.renderer_for_task(
        target,
        image,
        bentos.load_given_bento(bento, facts=True),
        {
            "name": name,
            "namespace": deployments.own_namespace(namespace),
            "resources": resources,
            "autoscaling": autoscaling,
            "envs": envs,
            "image_pull_secrets": image_pull_secrets,
        },
        more=options,
    )
    found = promotion.shift_requests(
        render, proof.load_given_golden(golden), Path(manifests.path), shifting
    )
    written.write_checks(
        found, reports, page=page.path, summary=summary.path, metrics=metrics.metadata
    )
    return (found.passed,)
