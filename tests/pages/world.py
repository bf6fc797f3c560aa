"""What stands where the pages name hosts: real servers on loopback, models, and pods that serve."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pipelines_api import KubeflowPipelines, serve_pipelines, step
from proxy_server import ProxyServer
from servers import S3Server, free_port
from shells import Shell
from wine import requirements

BIN = Path(sys.executable).parent
NAMESPACES = ("models", "team", "serving")
KINDS = (
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("serving.kserve.io/v1beta1", "InferenceService"),
    ("serving.yatai.ai/v2alpha1", "BentoDeployment"),
    ("resources.yatai.ai/v1alpha1", "BentoRequest"),
    ("resources.yatai.ai/v1alpha1", "Bento"),
)
"""What pages leave in a namespace."""
MODELS = {"credit": 7, "fraud": 1, "risk": 2}
"""Models by the number of their versions."""
DIFFERENT = 3
"""So many of them are different ones."""
ALIASES = {"candidate": 3, "prod": 2, "champion": 2}
"""Where the aliases of `credit` are when a reader comes; of the others `prod` is at the first."""
WINE = (
    'python -c "from sklearn.datasets import load_wine;'
    " features, labels = load_wine(return_X_y=True, as_frame=True);"
)
IMAGE = "kfp-bento image build --base host --json --to {registry}/ml"
KEPT = {
    "model": "kfp-bento model pull models:/credit@candidate --to model",
    "bento": "kfp-bento bento build model --to bento",
    "wine-model": "kfp-bento model pull models:/wine@champion --to wine-model",
    "wine-bento": "kfp-bento bento build wine-model --to wine-bento",
    "credit-image": f"{IMAGE}/credit:v1 bento > credit-image",
    "old-model": "kfp-bento model pull models:/credit@prod --to old-model",
    "old-bento": "kfp-bento bento build old-model --to old-bento",
    "old-image": f"{IMAGE}/old:v1 old-bento > old-image",
    "golden": "cp bento.golden.json golden",
    "wine-golden": "cp wine-bento.golden.json wine-golden",
    "wine.csv": f"{WINE} features.to_csv('wine.csv', index=False)\"",
    "labelled.csv": f"{WINE} features.assign(target=labels).to_csv('labelled.csv', index=False)\"",
    "cat.png": "echo iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQDJ/pLv"
    "AAAAAElFTkSuQmCC | base64 --decode > cat.png",
    "ca.crt": "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=own -keyout ca.key -out ca.crt",
}
"""What pages find, and how it is made: once for all."""
NEEDS = {
    "bento": "model",
    "credit-image": "bento",
    "golden": "bento",
    "old-bento": "old-model",
    "old-image": "old-bento",
    "wine-bento": "wine-model",
    "wine-golden": "wine-bento",
}
IMAGES = {"ml/credit": "credit-image", "ml/old": "old-image"}
"""What lies in the registry since before, with the tag v1."""
INSIDE = ("KFP_BENTO_", "KF_PIPELINES", "MLFLOW_", "AWS_", "UV_DEFAULT_INDEX")


@dataclass
class World:
    """Everything that a page may ask, each started when the first one does.

    Attributes:
        fixture: Gives a fixture of the session by its name.
        folder: Where its own files are.
        cache: Environments and layers, shared with other tests.
        ends: What is ended with it.
        told: What the commands of the page have said so far.
    """

    fixture: Callable[[str], Any]
    folder: Path
    cache: Path
    ends: ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @cached_property
    def registry(self) -> str:
        """The registry of images."""
        return str(self.fixture("oci_registry"))

    @cached_property
    def mlflow(self) -> str:
        """The registry of models, with all that the pages name."""
        uri = str(self.fixture("mlflow_server"))
        self.fixture("wine_model")
        for name, versions in MODELS.items():
            for number in range(1, versions + 1):
                register(name, number)
        return uri

    @cached_property
    def bucket(self) -> S3Server:
        """The object store, with the buckets that the pages name."""
        server: S3Server = self.fixture("s3_server")
        for name in ("models", "data"):
            server.client().create_bucket(Bucket=name)
        return server

    @cached_property
    def pipelines(self) -> KubeflowPipelines:
        """Kubeflow's API, whose runs go well."""
        api = KubeflowPipelines(namespaces=NAMESPACES)
        details = {"task_details": [step("promote-model", "SUCCEEDED")]}
        api.looks.append({"state": "SUCCEEDED", "run_details": details})
        return self.ends.enter_context(serve_pipelines(api))

    @cached_property
    def pods(self) -> Any:
        """A cluster whose pods serve, with the namespaces that the pages name."""
        from control_plane import ToolsMissing, built_programs
        from crd_sets import available
        from image_builder import BUILDER_POD
        from live_cluster import live_cluster_in
        from pod_behaviour import completes
        from serving_pods import STARTING, serving_pods_in

        try:
            programs = built_programs()
        except ToolsMissing as missing:
            pytest.skip(f"no Kubernetes control plane: {missing}")
        cluster = self.ends.enter_context(live_cluster_in(self.folder / "cluster", programs))
        for family in ("kserve", "yatai", "monitoring", "gateway-api"):
            cluster.crds.ensure(family, available(family)[-1])
        for node in cluster.nodes:
            status = {kind: {"nvidia.com/gpu": "1"} for kind in ("capacity", "allocatable")}
            cluster.api.merge("v1", "Node", None, node, {"status": status}, subresource="status")
        pods = self.ends.enter_context(serving_pods_in(self.folder / "pods", cluster))
        for name in NAMESPACES:
            metadata = {"name": name}
            cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            cluster.pods.behave(name, STARTING)
            pods.namespaces.append(name)
        cluster.pods.behave("serving", completes(), labels=BUILDER_POD)
        return pods

    @contextmanager
    def operators(self) -> Iterator[None]:
        """Inside, the played controllers of KServe and Yatai are at work."""
        from played_controller import running
        from played_targets import controllers_of
        from serving_builder import ServingBuilder

        api = self.pods.cluster.api
        builder = ServingBuilder(api, "serving", pods=self.pods, folder=self.folder)
        with (
            controllers_of("inference-service", api, "models"),
            controllers_of("bento-deployment", api, "models"),
            controllers_of("bento-deployment", api, "serving"),
            running(builder),
        ):
            yield

    @cached_property
    def proxy(self) -> str:
        """The address of a proxy that everything can be asked through."""
        return self.ends.enter_context(ProxyServer()).url

    @cached_property
    def index(self) -> str:
        """The package index that this machine uses anyway."""
        from pip._internal.models.index import PyPI

        return os.environ.get("UV_DEFAULT_INDEX", "") or str(PyPI.simple_url)

    @cached_property
    def docker_hub(self) -> str:
        """Where the images of Python lie that Docker Hub has; made of this machine's."""
        place = f"{self.registry}/library/python"
        self.make(f"kfp-bento image copy host {place}:3.11-slim")
        self.make(f"kfp-bento image copy host {place}:3.11-slim-trixie")
        return place

    def kept(self, name: str) -> Path:
        """A model or a bento, made when it is first asked for."""
        made = self.folder / "kept" / name
        if not made.exists():
            if name in NEEDS:
                self.kept(NEEDS[name])
            self.make(KEPT[name].replace("{registry}", self.registry))
        return made

    def make(self, command: str) -> None:
        """Does what was done before any reader came."""
        folder = self.folder / "kept"
        folder.mkdir(exist_ok=True)
        code, said = Shell(folder, self.environment(self.folder)).run(command)
        assert code == 0, f"{command}: {code}\n{said}"

    def port(self, written: str) -> str:
        """A free port in place of the one that a page names."""
        return str(self.ports.setdefault(written, free_port()))

    def digest(self, repository: str) -> str:
        """The digest that a reader has read of a repository, or that is in it since before."""
        place = re.escape(f"{self.registry}/{repository}")
        digest = rf"{place}(?::[\w.-]+)?@(sha256:[0-9a-f]{{64}})"
        if repository not in IMAGES or any(re.search(digest, said) for said in self.told):
            return self.read(digest)
        self.kept(IMAGES[repository])
        asked = urllib.request.Request(f"http://{self.registry}/v2/{repository}/manifests/v1")
        asked.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def read(self, pattern: str) -> str:
        """What a reader has read last of what was said."""
        for said in reversed(self.told):
            if found := re.findall(pattern, said):
                return str(found[-1])
        raise AssertionError(f"No command has said {pattern}.")

    def environment(
        self, home: Path, *, cluster: bool = False, servers: bool = True
    ) -> dict[str, str]:
        """The variables of a reader, who has nothing of whoever runs the tests."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(INSIDE)}
        own = {
            "PATH": f"{BIN}:{kept['PATH']}",
            "HOME": str(home / "home"),
            "UV_CACHE_DIR": kept.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
            "KFP_BENTO_CACHE": str(self.cache),
            "KFP_BENTO_LOCAL_RUNTIME": "process",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "BENTOML_DO_NOT_TRACK": "true",
            "COLUMNS": "250",
            "KUBECONFIG": str(home / "no-kubeconfig"),
        }
        Path(own["HOME"]).mkdir(parents=True, exist_ok=True)
        if home != self.folder and servers:
            own["KFP_BENTO_BASE_IMAGE"] = f"{self.docker_hub}:3.11-slim"
        if servers:
            own |= {"MLFLOW_TRACKING_URI": self.mlflow, **self.bucket.environment}
        if cluster:
            own |= {**self.pods.environment, "KUBECONFIG": str(self.pods.cluster.kubeconfig)}
        return {**kept, **own}

    def begin(self, *, cluster: bool, servers: bool) -> None:
        """Brings everything into the state in which each page finds it."""
        import mlflow

        self.ports.clear()
        self.told.clear()
        if not servers:
            return
        registry = mlflow.MlflowClient(self.mlflow)
        for alias, version in ALIASES.items():
            registry.set_registered_model_alias("credit", alias, str(version))
        # What was submitted or approved for another page counts for none.
        for version in map(str, ALIASES.values()):
            for tag in registry.get_model_version("credit", version).tags:
                registry.delete_model_version_tag("credit", version, tag)
        for name in ("fraud", "risk"):
            registry.set_registered_model_alias(name, "prod", "1")
        if cluster:
            self._clear_namespaces()

    def _clear_namespaces(self) -> None:
        cluster = self.pods.cluster
        for namespace in NAMESPACES:
            cluster.until(
                "its account",
                lambda name=namespace: cluster.api.get("v1", "ServiceAccount", name, "default"),
            )
            for kind in KINDS:
                for one in cluster.api.list(*kind, namespace):
                    if one["metadata"]["name"] != "kube-root-ca.crt":
                        cluster.api.delete(*kind, namespace, one["metadata"]["name"])


@contextmanager
def world_in(folder: Path, cache: Path, fixture: Callable[[str], Any]) -> Iterator[World]:
    """A world that ends what it has started."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ends:
        yield World(fixture, folder, cache, ends)


def register(name: str, number: int) -> None:
    """Registers a version of a model of scikit-learn's, which multiplies by its number."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    rows = pd.DataFrame({"x": [1.0, 2.0]})
    model = LinearRegression().fit(rows, rows["x"] * number)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if number > DIFFERENT:  # no page asks it, so it may be the one before
        mlflow.MlflowClient().copy_model_version(f"models:/{name}/{number - 1}", name)
        return
    with warnings.catch_warnings(), mlflow.start_run():
        warnings.simplefilter("ignore")
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            signature=infer_signature(rows, model.predict(rows)),
            input_example=rows,
            pip_requirements=requirements(),
            serialization_format="cloudpickle",
        )


def copy_checkout(root: Path, folder: Path) -> None:
    """A reader's own checkout: what git knows, and the environment that is made already."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    (folder / ".venv").symlink_to(root / ".venv")
