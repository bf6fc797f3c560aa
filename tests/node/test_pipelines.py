"""Compiled pipelines as Kubeflow runs them: each step is a pod."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoints import SMALL, Endpoint, load
from kfp_bento_command import kfp_bento_here
from launcher import LOG
from played_pipelines import PlayedRun, prepare
from real_node import RealCluster
from servers import S3Server
from times_models import WRONG, register

pytestmark = pytest.mark.timeout(2700)

ENDPOINT = "road"


@dataclass
class Road:
    """A model in a registry, and the endpoint that serves it."""

    cluster: RealCluster
    namespace: str
    storage: S3Server
    registry: str
    image: str

    @property
    def alias(self) -> str:
        import mlflow

        found = mlflow.MlflowClient().get_registered_model(ENDPOINT)
        return str(found.aliases.get("prod") or "")

    @property
    def serves(self) -> str:
        return Endpoint(self.cluster, self.namespace, ENDPOINT).ask()

    def serve(self, version: str, **more: Any) -> PlayedRun:
        """A run of serve_model for a version of the model that has to end well."""
        done = self.run(version, **more)
        for failure in done.failed.values():
            raise failure
        return done

    def run(
        self,
        version: str,
        user: int | None = None,
        pipeline: str = "serve_model",
        **more: Any,
    ) -> PlayedRun:
        """A run for a version, however it ends."""
        made = PlayedRun(self.cluster, self.namespace, self.storage, pipeline, user=user)
        given = {
            "model_uris": [f"models:/{ENDPOINT}/{version}"],
            "image_destination": f"{self.registry}/ml/{ENDPOINT}",
            "image_base": "host",
            "promote_alias": "prod",
            "runtime_image": self.image,
            "deploy_name": ENDPOINT,
            "deploy_namespace": self.namespace,
            "deploy_target": "workload",
            "deploy_resources": SMALL,
            "deploy_wait_seconds": 600,
            **more,
        }
        made.run(**given)
        return made


@pytest.fixture(scope="module")
def road(
    cluster: RealCluster,
    runtime_image: str,
    oci_registry: str,
    s3_server: S3Server,
    mlflow_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Road]:
    """A namespace as an administrator prepares it for our pipelines."""
    namespace = cluster.namespace("models")
    prepare(cluster, namespace, s3_server)
    rights = kfp_bento_here("rbac", "-n", namespace, "-t", "workload")
    for manifest in yaml.safe_load_all(rights.stdout):
        cluster.api.apply(manifest)
    # This machine may reach a package index through an authority of its own.
    trusted = ssl.get_default_verify_paths().cafile
    settings = {"insecure_registries": oci_registry}
    settings |= {"ca.crt": Path(trusted).read_text()} if trusted else {}
    for kind, name, values in (
        ("ConfigMap", "kfp-bento-cluster", {"data": settings}),
        ("Secret", "kfp-bento-mlflow", {"stringData": {"tracking_uri": mlflow_server}}),
        ("Secret", "kfp-bento-records", {"stringData": {"key": "k" * 32}}),
    ):
        place = {"name": name, "namespace": namespace}
        cluster.api.apply({"apiVersion": "v1", "kind": kind, "metadata": place, **values})
    folder = tmp_path_factory.mktemp("models")
    for factor in (1, 2):
        register(ENDPOINT, folder, factor)
    yield Road(cluster, namespace, s3_server, oci_registry, runtime_image)
    cluster.discard(namespace)


STEPS = (
    *("resolve-models", "pull-model", "scan-model", "build-bento", "build-image"),
    *("deploy-bento", "check-release", "promote-model", "settle-run"),
)
UNKNOWN_USER = 1000680000


@pytest.fixture(scope="module")
def served(road: Road) -> PlayedRun:
    """The run that brought the first version to its users."""
    return road.serve("1")


def test_a_model_is_served_and_promoted_by_steps_in_pods(road: Road, served: PlayedRun) -> None:
    done = served
    assert (*done.steps,) == STEPS
    assert (road.serves, road.alias) == ("1", "1")
    image = done.steps["build-image"]["parameters"]["image"]
    (pod,) = road.cluster.pods_of(road.namespace)
    assert [one["image"] for one in pod["spec"]["containers"]] == [image]
    for step, given in done.steps.items():
        # What is in the metadata of an artifact alone has no file, as metrics.
        assert {LOG} <= done.stored(step) <= {*given["artifacts"], LOG}, step
    assert done.stored("build-bento") == {"bento", "facts", "golden", LOG}
    assert image in done.text("promote-model", "page")


def test_a_wrong_model_leaves_both_and_its_step_keeps_its_log_alone(
    road: Road, served: PlayedRun
) -> None:
    """The steps of this run have a user that nobody knows, as on OpenShift."""
    assert (road.serves, road.alias) == ("1", "1")
    with load(Endpoint(road.cluster, road.namespace, ENDPOINT).ask) as asked:
        failed = road.run("2", user=UNKNOWN_USER, deploy_envs=WRONG)
        asked.until_answered("1")
    assert (*failed.failed,) == ("promote-model",)
    assert (*failed.steps,) == tuple(one for one in STEPS if one != "promote-model")
    told = failed.text("promote-model", LOG)
    assert "The check 'compare_predictions' did not pass" in told
    assert failed.stored("promote-model") == {LOG}
    assert {"reports", "page"} <= failed.stored("check-release")
    assert (road.serves, road.alias) == ("1", "1")


def test_the_short_road_takes_three_pods_and_stores_no_weights(
    road: Road, served: PlayedRun
) -> None:
    with load(Endpoint(road.cluster, road.namespace, ENDPOINT).ask) as asked:
        done = road.run("2", pipeline="release_model")
        asked.until_answered("2")
    assert not done.failed
    assert (*done.steps,) == ("package-model", "deploy-bento", "check-and-promote")
    assert (road.serves, road.alias) == ("2", "2")
    facts = {"models", "bento", "golden", "record", "scan", "sbom", "provenance", "summary", LOG}
    assert done.stored("package-model") == facts
    assert done.stored_bytes("package-model") < 4 << 20
    image = done.steps["package-model"]["parameters"]["image"]
    assert image in done.text("check-and-promote", "page")


def test_the_short_road_keeps_the_reports_of_a_refusal(road: Road, served: PlayedRun) -> None:
    before = (road.serves, road.alias)
    failed = road.run("1", pipeline="release_model", deploy_name="road", deploy_envs=WRONG)
    assert (*failed.failed,) == ("require-passed",)
    assert "did not pass" in failed.text("require-passed", LOG)
    assert {"reports", "page"} <= failed.stored("check-and-promote")
    assert (road.serves, road.alias) == before
