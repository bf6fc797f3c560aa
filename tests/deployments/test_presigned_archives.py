"""The archive of a bento-request: signed when it is applied, downloaded from a real store."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bento_downloader import DownloadError, build_context, tag_in
from sample_bentos import make_bento, write_bento
from servers import S3Server
from stub_api_server import ApiServer, serve_api, write_kubeconfig

from kfp_bento.runtime.bentos import Bento, export_bento, load_bento
from kfp_bento.runtime.deployments import (
    TARGETS,
    Deployed,
    Release,
    Waiting,
    deploy,
    diff_release,
)
from kfp_bento.runtime.deployments.kube.cluster import connect
from kfp_bento.runtime.deployments.release.apply import completed
from kfp_bento.runtime.deployments.release.good_release import believed, encode_good
from kfp_bento.runtime.errors import BentoError, StorageError

REQUEST = "bentorequests/wine--v1"
SIGNATURE = re.compile("X-Amz-Signature=[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment points to the real store; gives a fresh folder in it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_", "KFP_BENTO_")):
            monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture
def yatai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    kinds = {"bentorequests": "BentoRequest", "bentoes": "Bento"}
    with serve_api(ApiServer(kinds={"resources.yatai.ai/v1alpha1": kinds})) as server:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", server.url)))
        yield server


@pytest.fixture
def wine(tmp_path: Path) -> Bento:
    """A bento with a Dockerfile and a model, as BentoML writes them into each."""
    directory = write_bento(tmp_path / "wine")
    for name in ("env/docker/Dockerfile", "src/service.py", "models/wine/v1/weights"):
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n")
    return load_bento(directory)


def exported(bento: Bento, store: str, scheme: str = "s3", form: str = "tar") -> str:
    return export_bento(bento, f"{scheme}://{store}/", form).uri


def request_of(bento: Bento, archive: str, **options: Any) -> Release:
    return TARGETS["bento-request"].render("", bento, {"archive": archive, **options})


def applied(release: Release, directory: Path) -> Deployed:
    return deploy(release, directory, mode="apply", waiting=Waiting(0))


def url_in(yatai: ApiServer) -> str:
    return str(yatai.objects[REQUEST]["spec"]["downloadUrl"])


def says(yatai: ApiServer, available: str) -> None:
    """Lets the builder have said whether there is a Bento."""
    condition = {"type": "BentoAvailable", "status": available, "message": "", "reason": "x"}
    yatai.objects[REQUEST]["status"] = {"conditions": [condition], "imageBuilderPodStatus": {}}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.bz2", "bento"])
@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_the_builder_gets_this_very_bento_with_its_models(
    scheme: str, form: str, wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    applied(request_of(wine, exported(wine, store, scheme, form)), tmp_path / "manifests")
    context = build_context(url_in(yatai), tmp_path / "pod")
    assert tag_in(context) == wine.tag
    assert load_bento(context).digest == wine.digest
    assert (context / "models/wine/v1/weights").is_file()


def test_without_its_signature_the_url_gives_nothing(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    applied(request_of(wine, exported(wine, store)), tmp_path / "manifests")
    with pytest.raises(DownloadError, match="403"):
        build_context(url_in(yatai).partition("?")[0], tmp_path / "pod")


def test_the_signature_is_in_the_request_and_nowhere_else(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    archive = exported(wine, store)
    release = request_of(wine, archive)
    deployed = applied(release, tmp_path / "manifests")
    assert SIGNATURE.search(url_in(yatai))
    assert deployed.diff is not None
    kept = [deployed.diff.text, repr(deployed), str(deployed.to_dict()), encode_good(release)]
    kept += [file.read_text() for file in (tmp_path / "manifests").iterdir()]
    assert [text for text in kept if "X-Amz" in text] == []
    assert yatai.objects[REQUEST]["metadata"]["annotations"]["kfp-bento/archive"] == archive
    told = believed(encode_good(release), release.primary).release
    assert told is not None
    assert told.revision == release.revision == deployed.release.revision


def test_a_diff_shows_the_address_and_no_signature_that_is_live(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    archive = exported(wine, store)
    applied(request_of(wine, archive), tmp_path / "manifests")
    found = diff_release(request_of(wine, exported(wine, store, form="tar.gz"))).text
    assert "X-Amz" not in found
    for sign, name in (("-", "wine-v1.tar"), ("+", "wine-v1.tar.gz")):
        assert re.search(rf"\{sign}  downloadUrl: .*/{name}\?\*\*\*", found)


def test_applying_again_changes_nothing_while_the_builder_works(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    release = request_of(wine, exported(wine, store))
    applied(release, tmp_path / "manifests")
    first = url_in(yatai)
    says(yatai, "Unknown")
    again = applied(release, tmp_path / "manifests")
    assert url_in(yatai) == first
    assert again.rollout is not None
    assert [one.change for one in again.rollout.applied] == ["unchanged"] * 2


def test_a_build_that_failed_is_tried_again_with_another_url(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    release = request_of(wine, exported(wine, store))
    applied(release, tmp_path / "manifests")
    yatai.objects[REQUEST]["spec"]["downloadUrl"] += "0"
    first = url_in(yatai)
    says(yatai, "False")
    applied(release, tmp_path / "manifests")
    assert url_in(yatai) != first


@pytest.mark.parametrize(("available", "stays"), [("True", True), ("Unknown", False)])
def test_a_signature_that_has_ended_stays_only_where_the_bento_is_built(
    available: str, stays: bool, wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    release = request_of(wine, exported(wine, store))
    applied(release, tmp_path / "manifests")
    old = re.sub(r"X-Amz-Date=\d{8}", "X-Amz-Date=20250101", url_in(yatai))
    yatai.objects[REQUEST]["spec"]["downloadUrl"] = old
    says(yatai, available)
    applied(release, tmp_path / "manifests")
    assert (url_in(yatai) == old) == stays


def test_an_address_that_somebody_else_wrote_there_does_not_stay(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    release = request_of(wine, exported(wine, store))
    applied(release, tmp_path / "manifests")
    signed = url_in(yatai)
    yatai.objects[REQUEST]["spec"]["downloadUrl"] = signed.replace("wine-v1", "other-v1")
    says(yatai, "True")
    applied(release, tmp_path / "manifests")
    assert url_in(yatai).partition("?")[0] == signed.partition("?")[0]


def test_the_archive_of_another_bento_is_refused_before_anything_is_applied(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    archive = exported(wine, store)
    with pytest.raises(BentoError, match=r"is of wine:v1, not of wine:v2"):
        applied(request_of(make_bento("wine", "v2"), archive), tmp_path / "manifests")
    changed = make_bento("wine", "v1", digest="sha256:" + "ee" * 32)
    with pytest.raises(BentoError, match=f"is of {wine.digest}"):
        applied(request_of(changed, archive), tmp_path / "manifests")
    assert yatai.patches == []


def test_an_archive_that_is_not_there_is_missed_at_once(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="There is no object"):
        applied(request_of(wine, f"s3://{store}/wine-v1.tar"), tmp_path / "manifests")
    assert yatai.patches == []


def test_a_step_without_credentials_says_what_it_needs(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = request_of(wine, exported(wine, store))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError) as failure:
        applied(release, tmp_path / "manifests")
    assert "mounted Secret" in failure.value.hint
    assert yatai.patches == []


def test_what_is_restored_needs_no_archive_any_more(
    wine: Bento, store: str, yatai: ApiServer
) -> None:
    release = request_of(wine, f"s3://{store}/pruned.tar")
    with connect() as cluster:
        restored = completed(cluster, release, restoring=True)
    assert SIGNATURE.search(str(restored.recorded))
    assert restored.revision == release.revision


def test_the_time_of_the_signature_is_an_option(
    wine: Bento, store: str, yatai: ApiServer, tmp_path: Path
) -> None:
    archive = exported(wine, store)
    applied(request_of(wine, archive, archive_seconds=600), tmp_path / "manifests")
    assert "X-Amz-Expires=600&" in url_in(yatai)


def test_a_repository_gets_the_version_as_its_tag(wine: Bento) -> None:
    for image in ("registry.example.com/team/wine", "localhost:5000/wine"):
        release = TARGETS["bento-request"].render(image, wine, {"archive": "s3://b/wine.tar"})
        (request,) = [one for one in release.manifests if one["kind"] == "BentoRequest"]
        assert request["spec"]["image"] == f"{image}:v1"
