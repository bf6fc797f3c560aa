"""Small pipelines around the deploying component, for the local runner and the compiler."""

from kfp import dsl, kubernetes

from kfp_bento.components import deploy_bento


@dsl.component(base_image="python", install_kfp_package=False)
def tell(settings: dict) -> str:
    return repr(settings)


@dsl.pipeline
def telling(settings: dict) -> str:
    return tell(settings=settings).output


@dsl.pipeline
def workload(bento_directory: str, image: str, autoscaling: dict = {}, options: dict = {}):
    bento = dsl.importer(artifact_uri=bento_directory, artifact_class=dsl.Model)
    task = deploy_bento(
        target="workload",
        image=image,
        bento=bento.output,
        mode="render",
        autoscaling=autoscaling,
        options=options,
    )
    task.set_cpu_limit("2")


@dsl.pipeline
def request(bento_directory: str, archive_url: str):
    bento = dsl.importer(artifact_uri=bento_directory, artifact_class=dsl.Model)
    deploy_bento(
        target="bento-request",
        bento=bento.output,
        mode="render",
        options={"archive_url": archive_url},
    )


@dsl.pipeline
def stored_model(storage_uri: str):
    deploy_bento(
        target="inference-service",
        name="iris",
        mode="render",
        options={"storage_uri": storage_uri, "model_format": "mlflow"},
    )


@dsl.pipeline
def placed_workload(bento_directory: str, image: str):
    bento = dsl.importer(artifact_uri=bento_directory, artifact_class=dsl.Model)
    task = deploy_bento(target="workload", image=image, bento=bento.output)
    task.set_cpu_limit("2")
    task.set_env_variable("KUBECONFIG", "/etc/cluster/config")
    kubernetes.use_secret_as_volume(task, secret_name="cluster", mount_path="/etc/cluster")
    kubernetes.add_toleration(task, key="gpu", operator="Exists")
    kubernetes.add_node_selector(task, label_key="pool", label_value="gpu")
