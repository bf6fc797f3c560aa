"""Pipelines are uploaded once for each content, by the real kfp.Client to a stub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pipelines_api import KubeflowPipelines, refusal, serve_pipelines

from kfp_bento.runtime.errors import RunError
from kfp_bento.runtime.runs import PipelinesApi, choose_server


@pytest.fixture
def server() -> Iterator[KubeflowPipelines]:
    with serve_pipelines(KubeflowPipelines(multi_user=True)) as served:
        yield served


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "serve_model.yaml"
    path.write_text("# what was compiled\n")
    return path


def test_a_pipeline_is_uploaded_once_and_gets_a_version_when_it_changed(
    server: KubeflowPipelines, package: Path
) -> None:
    api = PipelinesApi(choose_server(server.url, namespace="team"))
    page, there = api.upload(package, "serve-model", "0.1.0-a")
    (made,) = server.pipelines
    assert (made["display_name"], made["namespace"], there) == ("serve-model", "team", False)
    assert "# what was compiled" in made["package"]
    assert page == f"{server.url}/#/pipelines/details/{made['pipeline_id']}"
    assert api.upload(package, "serve-model", "0.1.0-a") == (page, True)
    assert server.pipeline_versions == []
    assert api.upload(package, "serve-model", "0.1.0-b") == (page, False)
    assert api.upload(package, "serve-model", "0.1.0-b") == (page, True)
    (added,) = server.pipeline_versions
    assert added["pipeline_id"] == made["pipeline_id"]
    assert len(server.pipelines) == 1


def test_what_came_before_and_comes_back_is_the_newest_version_again(
    server: KubeflowPipelines, package: Path
) -> None:
    api = PipelinesApi(choose_server(server.url, namespace="team"))
    api.upload(package, "other", "0.1.0-b")
    made = [api.upload(package, "serve-model", f"0.1.0-{content}")[1] for content in "abaabb"]
    assert made == [False, False, False, True, False, True]
    names = [one["display_name"] for one in server.pipeline_versions]
    assert names == ["0.1.0-b", "0.1.0-a", "0.1.0-b-2"]


def test_a_version_of_one_pipeline_is_none_of_another(
    server: KubeflowPipelines, package: Path
) -> None:
    api = PipelinesApi(choose_server(server.url, namespace="team"))
    for version in ("0.1.0-a", "0.1.0-b"):
        api.upload(package, "serve-model", version)
    api.upload(package, "release-model", "0.1.0-a")
    page, there = api.upload(package, "release-model", "0.1.0-b")
    assert not there
    mine, other = (one["pipeline_id"] for one in server.pipelines)
    assert [one["pipeline_id"] for one in server.pipeline_versions] == [mine, other]
    assert page.endswith(other)


def test_an_upload_that_is_refused_says_so(server: KubeflowPipelines, package: Path) -> None:
    api = PipelinesApi(choose_server(server.url, namespace="team"))
    server.passing.append(refusal(403, 7, "User is not authorized to create pipelines."))
    with pytest.raises(RunError, match="not authorized"):
        api.upload(package, "serve-model", "0.1.0-a")
