"""Deploy an image as a BentoDeployment."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def deploy_bento(
    image: str,
    bento: dsl.Input[dsl.Model],
    manifests: dsl.Output[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    image_location: str = "",
    mode: str = "auto",
    name: str = "",
    namespace: str = "default",
    resources: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
    autoscaling: dict = {},  # noqa: B006
    envs: list = [],  # noqa: B006
    image_pull_secrets: list = [],  # noqa: B006
) -> NamedTuple("Outputs", [("url", str)]):
    """Render Bento and BentoDeployment for an image by digest, and apply them.

    Switch caching off for this step: it acts outside the pipeline.

    Args:
        image: The image by digest, repository@sha256:...
        bento: The bento directory that the image was made of.
        manifests: Directory with the rendered YAML, whatever the mode.
        record: JSON record of the release: name, namespace, revision, URL.
        summary: The release as a table, with the manifests.
        image_location: Where the image's bytes are; needed for a local deployment only.
        mode: apply (server-side apply), render (write the YAML only), local (start it on this
            machine), or auto: local where a local run offers it, else apply where a cluster is
            configured, else render.
        name: Name of the BentoDeployment; empty takes the bento's name.
        namespace: Namespace for both resources.
        resources: Requests and limits, for example {"limits": {"cpu": "1", "memory": "1Gi"}}.
        autoscaling: For example {"minReplicas": 1, "maxReplicas": 3}.
        envs: Literal environment variables, [{"name": "LOG_LEVEL", "value": "info"}].
        image_pull_secrets: Names of image pull secrets in the namespace.

    Returns:
        url: Where the release answers; empty when it was only rendered.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, deployments, reports

    release = deployments.deploy_bento(
        image,
        bentos.load_bento(Path(bento.path)),
        Path(manifests.path),
        mode=mode,
        image_location=image_location,
        name=name,
        namespace=namespace,
        resources=resources,
        autoscaling=autoscaling,
        envs=envs,
        image_pull_secrets=image_pull_secrets,
    )
    reports.write_json(release.to_dict(), Path(record.path))
    reports.write_text(reports.release_summary(release, Path(manifests.path)), Path(summary.path))
    return (release.url,)
