"""Models to an image in one place: the same bytes as step by step, and no tag without a proof."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Event

import pytest
from registry_content import left_in, tags
from small_models import small_model

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.errors import BentoError, InvalidInput, RegistryError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.models import pull_models
from kfp_bento.runtime.packaging import PackageOptions, packaged
from kfp_bento.runtime.packaging import package as module
from kfp_bento.runtime.proof import golden_answers

HOST = ImageOptions(base="host")
BY_CHANCE = """\
def _load_pyfunc(path):
    return Model()

class Model:
    def predict(self, inputs):
        import numpy, os
        return numpy.frombuffer(os.urandom(8 * len(inputs)), dtype="uint64").astype("float64")
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch directories go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_it_gives_what_the_steps_give_one_after_the_other(
    oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    origin = str(small_model(tmp_path / "twice").directory)
    models = pull_models([f"twice={origin}"], tmp_path / "models")
    bento = build_bento(models, tmp_path / "bento")
    golden = golden_answers(bento, models)
    image = build_image(bento, f"{oci_registry}/steps/twice:v1", HOST)

    told: list[str] = []
    with packaged(
        [f"twice={origin}"],
        f"{oci_registry}/package/twice:v1",
        PackageOptions(image=HOST),
        tell=told.append,
    ) as made:
        assert made.bento is not None and made.golden is not None and made.image is not None
        assert (made.bento.tag, made.bento.digest) == (bento.tag, bento.digest)
        assert made.golden.to_dict() == golden.to_dict()
        inside, loader = bento.models[0].tag.replace(":", "/"), "code/loader_twice.py"
        weights = made.bento.directory / "models" / inside / loader
        pulled = made.models[0].directory / loader
        assert weights.stat().st_ino == pulled.stat().st_ino  # it lies there once
    assert made.image.digest == image.digest
    assert [layer.digest for layer in made.image.layers] == [one.digest for one in image.layers]
    assert made.results == (made.image.reference, made.image.location, True)
    assert "v1" in tags(f"{oci_registry}/package/twice")
    assert any("of disk, once" in one for one in told)
    assert left_in(scratch) == []


@pytest.mark.slow
def test_a_bento_that_answers_otherwise_gets_no_tag(
    oci_registry: str, scratch: Path, tmp_path: Path
) -> None:
    origin = str(small_model(tmp_path / "chance", BY_CHANCE).directory)
    destination = f"{oci_registry}/package/chance"
    with (
        pytest.raises(BentoError, match="chance"),
        packaged([origin], destination, PackageOptions(image=HOST)),
    ):
        raise AssertionError("it was packaged")
    assert tags(destination) == []
    assert left_in(scratch) == []


def test_layers_are_sent_during_the_proof_and_where_it_fails_there_is_no_tag(
    oci_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = str(small_model(tmp_path / "early").directory)
    destination = f"{oci_registry}/package/early:v1"
    packing = Event()
    sent = []

    def tell(said: str) -> None:
        if "packing model" in said:
            packing.set()

    def slow(*arguments: object, **more: object) -> object:
        assert packing.wait(300)
        sent.append(tags(destination.rpartition(":")[0]))
        raise BentoError("It answers otherwise.")

    monkeypatch.setattr(module, "golden_answers", slow)
    with (
        pytest.raises(BentoError, match="otherwise"),
        packaged([origin], destination, PackageOptions(image=HOST), tell=tell),
    ):
        raise AssertionError("it was packaged")
    assert sent == [[]] == [tags(destination.rpartition(":")[0])]


def test_where_nothing_is_hidden_from_the_models_code_that_is_said(
    oci_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = str(small_model(tmp_path / "open").directory)
    said: list[str] = []
    monkeypatch.setattr(module, "golden_answers", lambda *_, **__: unproven)
    unproven = object()
    for wish, told in (("off", True), ("", False)):
        said.clear()
        monkeypatch.setenv("KFP_BENTO_CONFINEMENT", wish)
        wished = PackageOptions(image=HOST)
        with packaged([origin], f"{oci_registry}/package/open", wished, tell=said.append):
            assert any("can read the credentials" in one for one in said) is told


def test_what_the_scan_refuses_is_no_package(oci_registry: str, tmp_path: Path) -> None:
    origin = str(small_model(tmp_path / "code").directory)
    destination = f"{oci_registry}/package/code"
    wished = PackageOptions(scan_policy="enforce", image=HOST)
    with packaged([origin], destination, wished) as made:
        assert (made.passed, made.results) == (False, ("", "", False))
        assert "code" in made.scan.summary
    assert tags(destination) == []


@pytest.mark.parametrize(
    ("destination", "image", "told"),
    [
        ("wine", HOST, "names no registry host"),
        ("registry.example.com/wine", ImageOptions(platform="linux/sparc"), "sparc"),
        ("registry.example.com/wine", ImageOptions(compression="lzma"), "lzma"),
        ("registry.example.com/wine", ImageOptions(tag="a b"), "tag"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    destination: str, image: ImageOptions, told: str
) -> None:
    with (
        pytest.raises(InvalidInput, match=told),
        packaged(["models:/wine/1"], destination, PackageOptions(image=image)),
    ):
        raise AssertionError("it was packaged")


def test_a_registry_that_is_not_there_is_told_of_at_once(tmp_path: Path) -> None:
    origin = str(small_model(tmp_path / "nowhere").directory)
    wished = PackageOptions(verify=False, image=HOST)
    told: list[str] = []
    with (
        pytest.raises(RegistryError, match=r"127\.0\.0\.1:1"),
        packaged([origin], "127.0.0.1:1/wine", wished, tell=told.append),
    ):
        raise AssertionError("it was packaged")
    assert any(one.startswith("no image: ") for one in told)


@pytest.mark.slow
def test_a_service_of_ones_own_needs_no_models(oci_registry: str) -> None:
    source = (
        "import bentoml\n\n@bentoml.service(name='plain')\nclass Plain:\n"
        "    @bentoml.api\n    def double(self, n: int) -> int:\n        return 2 * n\n"
    )
    asked = [{"path": "/double", "body": {"n": 2}, "answer": {"body": 4}}]
    wished = PackageOptions(service=source, requests=asked, image=HOST)
    with packaged([], f"{oci_registry}/package/plain", wished) as made:
        assert made.golden is not None and made.golden.verified == "on"
    assert made.image is not None and made.image.reference.startswith(oci_registry)
