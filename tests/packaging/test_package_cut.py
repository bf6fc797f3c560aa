"""A package whose source or registry is cut at random: the right image, or an error and no tag."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_proxy import (
    Answer,
    Fault,
    FaultProxy,
    cut_answer,
    cut_request,
    damage_answer,
    edit_answer,
    refuse,
)
from flaky_proxy import CuttingProxy
from registry_content import left_in, tagged
from servers import S3Server
from small_models import small_model

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.images import ImageOptions
from kfp_bento.runtime.packaging import PackageOptions, packaged

WEIGHTS = 3 << 20
UNPROVEN = PackageOptions(verify=False, image=ImageOptions(base="host"))
ROUNDS = 25
# What is cut once or twice goes on; what is cut more often than any client tries does not.
CUTS = (1, 2, 3, 24)
REQUESTS = (
    *("HEAD blob", "POST upload", "PATCH upload", "PUT upload", "GET blob"),
    *("GET tag", "HEAD tag", "PUT manifest", "PUT tag", "GET referrers"),
)


@dataclass(frozen=True)
class Stored:
    """One model that lies in two kinds of stores.

    Attributes:
        tracking: The tracking server, which hands artifacts through.
        bucket: The server of the other store.
        digest: Of its image, packaged without any fault.
    """

    tracking: str
    bucket: S3Server
    digest: str


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch directories go; and clients that neither wait long nor try often."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    return folder


@pytest.fixture(scope="module")
def stored(
    mlflow_server: str,
    s3_server: S3Server,
    oci_registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stored:
    import mlflow

    folder = small_model(tmp_path_factory.mktemp("stored") / "cut").directory
    (folder / "weights.bin").write_bytes(random.Random(16).randbytes(WEIGHTS))
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    mlflow.register_model(f"runs:/{run.info.run_id}/model", "cut")
    client, bucket = mlflow.MlflowClient(), s3_server.client()
    for file in (path for path in folder.rglob("*") if path.is_file()):
        bucket.upload_file(
            str(file), s3_server.bucket, f"cut/{file.relative_to(folder).as_posix()}"
        )
    client.create_registered_model("cut-bucket")
    client.create_model_version("cut-bucket", f"s3://{s3_server.bucket}/cut")
    with packaged(["cut=models:/cut/1"], f"{oci_registry}/cut/whole:v1", UNPROVEN) as made:
        assert made.image is not None
        return Stored(mlflow_server, s3_server, made.image.digest)


Cut = Callable[[list[int]], tuple[CuttingProxy, str, str]]


@pytest.fixture(params=["tracking server", "bucket"])
def cut(request: pytest.FixtureRequest, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Gives a source that is cut at these places: its proxy, the model's URI, the tracking URI."""

    def through_tracking(pieces: list[int]) -> tuple[CuttingProxy, str, str]:
        proxy = CuttingProxy(stored.tracking, pieces)
        return proxy, "cut=models:/cut/1", proxy.uri

    def through_bucket(pieces: list[int]) -> tuple[CuttingProxy, str, str]:
        proxy = CuttingProxy(stored.bucket.endpoint, pieces)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.uri)
        return proxy, "cut=models:/cut-bucket/1", stored.tracking

    if request.param == "tracking server":
        return through_tracking
    for name, value in stored.bucket.environment.items():
        monkeypatch.setenv(name, value)
    return through_bucket


def outcome(entry: str, destination: str, tracking: str = "") -> str:
    """Package; give the digest, or what is said of the failure and of what to do about it."""
    try:
        with packaged([entry], destination, UNPROVEN, tracking_uri=tracking) as made:
            assert made.image is not None
            return made.image.digest
    except KfpBentoError as error:
        assert error.hint, error
        assert "Traceback" not in error.message
        return f"{error.message} {error.hint}"


def test_a_source_that_is_cut_in_the_weights_gives_the_same_image(
    cut: Cut, stored: Stored, oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    proxy, entry, tracking = cut([WEIGHTS // 2])
    with proxy:
        found = outcome(entry, f"{oci_registry}/cut/{tmp_path.name}:v1", tracking)
    assert proxy.cuts == 1
    assert found == stored.digest == tagged(f"{oci_registry}/cut/{tmp_path.name}")
    assert left_in(scratch) == []


def test_a_source_that_is_cut_again_and_again_gives_an_error_and_no_tag(
    cut: Cut, oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    proxy, entry, tracking = cut([WEIGHTS // 2] * 20)
    with proxy:
        found = outcome(entry, f"{oci_registry}/cut/{tmp_path.name}:v1", tracking)
    assert proxy.cuts > 1
    assert "nothing half-made was left" in found
    assert tagged(f"{oci_registry}/cut/{tmp_path.name}") == ""
    assert left_in(scratch) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_source_that_is_cut_at_random_gives_the_same_image_or_an_error(
    cut: Cut, stored: Stored, oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    chance, cuts, images = random.Random(16), 0, 0
    for number in range(ROUNDS):
        repository = f"{oci_registry}/cut/{tmp_path.name}-{number}"
        pieces = [chance.randrange(WEIGHTS) for _ in range(chance.choice(CUTS))]
        proxy, entry, tracking = cut(pieces)
        with proxy:
            found = outcome(entry, f"{repository}:v1", tracking)
        cuts += proxy.cuts
        made = found == stored.digest
        assert made or "sha256:" not in found, found
        assert tagged(repository) == (stored.digest if made else ""), (number, found)
        assert left_in(scratch) == [], number
        images += made
    assert cuts > ROUNDS
    assert 0 < images < ROUNDS


def _renamed(answer: Answer) -> None:
    answer.headers["Docker-Content-Digest"] = f"sha256:{'5' * 64}"


def faults(chance: random.Random) -> Fault:
    """Something that happens to one exchange with a registry."""
    return chance.choice(
        [
            cut_request(chance.randrange(200_000)),
            cut_answer(chance.randrange(2_000)),
            refuse(chance.choice([429, 500, 502, 503])),
            damage_answer(chance.randrange(2_000)),
            edit_answer(_renamed),
        ]
    )


def test_a_registry_that_is_cut_gives_the_same_image(
    stored: Stored, oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    repository = f"cut/{tmp_path.name}"
    with FaultProxy(oci_registry) as proxy:
        proxy.on("PATCH upload", cut_request(70_000))
        proxy.on("PUT manifest", cut_answer(0))
        proxy.on("HEAD blob", refuse(503), skip=3)
        found = outcome("cut=models:/cut/1", f"{proxy.host}/{repository}:v1")
    assert proxy.failures == []
    assert found == stored.digest == tagged(f"{oci_registry}/{repository}")
    assert left_in(scratch) == []


def test_a_registry_that_names_another_digest_is_not_believed(
    stored: Stored, oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    repository = f"cut/{tmp_path.name}"
    with FaultProxy(oci_registry) as proxy:
        proxy.on("PUT upload", edit_answer(_renamed), times=float("inf"))
        found = outcome("cut=models:/cut/1", f"{proxy.host}/{repository}:v1")
    assert "5" * 64 in found
    assert tagged(f"{oci_registry}/{repository}") == ""
    assert left_in(scratch) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_registry_that_fails_at_random_gives_the_same_image_or_an_error(
    stored: Stored, oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    chance, hits, images = random.Random(17), 0, 0
    for number in range(2 * ROUNDS):
        repository = f"cut/{tmp_path.name}-{number}"
        with FaultProxy(oci_registry) as proxy:
            rules = [
                # Four times in a row is more than is tried again.
                proxy.on(kind, faults(chance), skip=chance.randrange(9), times=chance.randint(1, 4))
                for kind in chance.choices(REQUESTS, k=chance.randint(1, 5))
            ]
            found = outcome("cut=models:/cut/1", f"{proxy.host}/{repository}:v1")
        assert proxy.failures == [], number
        hits += sum(rule.hits for rule in rules)
        made = found == stored.digest
        assert made or "sha256:" not in found.partition(" ")[0], found
        there = tagged(f"{oci_registry}/{repository}")
        # What failed after the tag was set, or in the answer to that, leaves the whole image.
        assert there == stored.digest if made else there in ("", stored.digest), (number, found)
        assert left_in(scratch) == [], number
        images += made
    assert hits > 2 * ROUNDS
    assert 0 < images < 2 * ROUNDS
