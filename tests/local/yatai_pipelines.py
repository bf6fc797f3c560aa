"""The road by Yatai's builder, with a step that deploys to a cluster of stand-ins."""

from kfp import dsl

from kfp_bento.pipelines import serve_with_builder


@dsl.component(base_image="python", install_kfp_package=False)
def deploy_and_find(
    bento: dsl.Input[dsl.Model],
    manifests: dsl.Output[dsl.Artifact],
    target: str,
    image: str,
    archive: str,
    mode: str,
    name: str,
    namespace: str,
    resources: dict,
    autoscaling: dict,
    envs: list,
    options: dict,
    wait_seconds: int,
    roll_back_on_failure: bool,
    run: str,
    fail_at_once: bool,
    release: dsl.Output[dsl.Artifact],
):
    """Deploys as deploy_bento does; a file says where the pods are, as no name leads there."""
    import os
    import time
    from dataclasses import replace
    from pathlib import Path

    from kfp_bento.runtime import bentos, deployments

    chosen = {"archive": archive, "namespace": namespace, "resources": resources}
    found = bentos.load_given_bento(bento)
    rendered = deployments.render_for_task(target, image, found, chosen, more=options)
    folder = Path(manifests.path)
    waiting = deployments.Waiting(0)
    deployed = deployments.deploy(rendered, folder, mode=mode, waiting=waiting, run=run)
    told = Path(os.environ["PLAYED_PODS"])
    while not told.is_file():
        time.sleep(0.1)
    facts = replace(deployed.facts, url=told.read_text())
    release.metadata["record"] = facts.save(Path(release.path))


by_builder = serve_with_builder(deploy_and_find, name="by-builder")
