"""From the registry by a bucket to a bento that a builder downloaded, and to the alias."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bento_downloader import build_context, tag_in
from servers import S3Server, free_port
from stub_api_server import ApiServer, serve_api, write_kubeconfig

from examples.run import HERE, in_its_environment
from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.local import run_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KINDS = {
    "resources.yatai.ai/v1alpha1": {"bentorequests": "BentoRequest", "bentoes": "Bento"},
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "v1": {"services": "Service"},
}


class PlayedYatai:
    """The builder downloads what the request names, and the pods serve it, by BentoML's own."""

    def __init__(self, api: ApiServer, directory: Path) -> None:
        self.api, self.directory, self.told = api, directory, directory / "pods"
        self.over = threading.Event()
        self.context = Path()

    def work(self) -> None:
        while not (requests := [key for key in [*self.api.objects] if "bentorequests/" in key]):
            if self.over.wait(0.1):
                return
        asked = self.api.objects[requests[0]]["spec"]
        self.context = build_context(asked["downloadUrl"], self.directory)
        assert tag_in(self.context) == asked["bentoTag"]
        port = free_port()
        command = [sys.executable, "-m", "bentoml", "serve", str(self.context)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, "BENTOML_HOME": str(self.directory / "store")}
        pods = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            self._tell(f"http://127.0.0.1:{port}")
            self.over.wait()
        finally:
            pods.terminate()
            pods.wait(60)

    def _tell(self, url: str) -> None:
        while not self.over.wait(0.2):
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
                self.told.with_suffix(".partial").write_text(url)
                self.told.with_suffix(".partial").rename(self.told)
                return


@pytest.fixture
def yatai(tmp_path: Path) -> Iterator[PlayedYatai]:
    with serve_api(ApiServer(kinds=KINDS)) as api:
        played = PlayedYatai(api, tmp_path / "yatai")
        played.directory.mkdir()
        thread = threading.Thread(target=played.work)
        thread.start()
        try:
            yield played
        finally:
            played.over.set()
            thread.join()


def test_what_the_builder_downloads_is_checked_and_promoted(
    mlflow_server: str,
    s3_server: S3Server,
    yatai: PlayedYatai,
    shared_cache: Path,
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    variables = {"MLFLOW_TRACKING_URI": mlflow_server}
    assert "churn@prod is version 1" in in_its_environment("yatai_builder", "train.py", variables)
    given = yaml.safe_load((HERE / "yatai_builder/cluster.yaml").read_text())
    run = run_pipeline(
        "yatai_pipelines:by_builder",
        {
            **given,
            "tracking_uri": mlflow_server,
            "archive_uri": f"s3://{s3_server.bucket}/bentos/",
        },
        tmp_path / "run",
        environment={
            **s3_server.environment,
            "KFP_BENTO_CACHE": str(shared_cache),
            "KUBECONFIG": str(write_kubeconfig(tmp_path / "kubeconfig", yatai.api.url)),
            "PLAYED_PODS": str(yatai.told),
            "PYTHONPATH": str(Path(__file__).parent),
        },
    )
    assert list(run.seconds)[3:] == [
        "build-bento",
        "export-bento",
        "deploy-and-find",
        "check-release",
        "promote-model",
        "settle-run",
    ]
    assert run.record("check-release", "reports")["passed"]
    assert MlflowClient().get_model_version_by_alias("churn", "live").version == "1"
    assert load_bento(yatai.context).models[0].digest
    signature = re.compile(rb"X-Amz-Signature")
    kept = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert [file for file in kept if signature.search(file.read_bytes())] == []
