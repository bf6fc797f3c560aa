"""A package of what an earlier run has proven: a pod that starts empty does not ask it again."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from registry_content import MANIFEST, read, tagged
from small_models import TWICE, small_model

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images import ImageOptions
from kfp_bento.runtime.packaging import Package, PackageOptions, packaged
from kfp_bento.runtime.packaging.proofs import RegistryProofs, shared_proofs
from kfp_bento.runtime.proof import Golden, golden_answers, proving
from kfp_bento.runtime.reports import write_package

KEY = "KFP_BENTO_RECORD_KEY"
SEAL = "kfp-bento.seal"
HOST = ImageOptions(base="host")
Record = tuple[str, dict[str, Any]]


class AskedError(Exception):
    """A bento is being asked."""


def asked(*_: object) -> Golden:
    raise AskedError


@dataclass(frozen=True)
class Earlier:
    """What an earlier run made, and has not cleared away.

    Attributes:
        origin: The model.
        repository: Where the image is.
        made: The package.
    """

    origin: Path
    repository: str
    made: Package

    def kept(self, repository: str = "") -> list[str]:
        """The addresses of the proofs that are kept beside the image."""
        host, _, name = (repository or self.repository).partition("/")
        listed = json.loads(read(f"{host}/v2/{name}/tags/list") or b'{"tags": null}')["tags"]
        found = [one for one in listed or [] if one.startswith("kfp-bento.proof-")]
        return [f"{host}/v2/{name}/manifests/{tag}" for tag in found]

    def prove(self, told: list[str], repository: str = "", **wishes: Any) -> Golden:
        """Prove the same bento, as packaging does."""
        say = told.append
        shared = shared_proofs(f"{repository or self.repository}:v1", HOST, say)
        assert self.made.bento is not None
        return golden_answers(
            **{"bento": self.made.bento, "models": self.made.models, **wishes},
            shared=shared,
            tell=say,
        )


@pytest.fixture(scope="module")
def earlier(oci_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Earlier]:
    origin = tmp_path_factory.mktemp("earlier") / "proven"
    small_model(origin, TWICE + "\n# of this module\n")
    repository = f"{oci_registry}/proven/twice"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "a secret that only these pods know")
        wished = PackageOptions(image=HOST)
        with packaged([str(origin)], f"{repository}:v1", wished) as made:
            yield Earlier(origin, repository, made)


@pytest.fixture
def pod(earlier: Earlier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Earlier:
    """A machine that has nothing of the earlier run, where what is asked is noticed."""
    for name in ("KFP_BENTO_CACHE", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(proving, "_asked_anew", asked)
    return earlier


def put(address: str, manifest: dict[str, Any]) -> None:
    """Write a manifest as anybody who may push can."""
    written = urllib.request.Request(
        f"http://{address}",
        method="PUT",
        data=json.dumps(manifest).encode(),
        headers={"Content-Type": MANIFEST},
    )
    urllib.request.urlopen(written, timeout=30).close()


@pytest.fixture
def record(pod: Earlier) -> Iterator[Record]:
    """The address and the manifest of the record of the proof, which is put back."""
    (address,) = pod.kept()
    manifest = json.loads(read(address) or b"")
    yield address, manifest
    put(address, manifest)


def test_a_pod_that_starts_empty_takes_the_proof_of_an_earlier_run(
    pod: Earlier, tmp_path: Path
) -> None:
    told: list[str] = []
    places = {
        name: SimpleNamespace(path=str(tmp_path / name), metadata={})
        for name in ("models", "bento", "golden")
    }
    files = {name: str(tmp_path / name) for name in ("record", "scan", "summary")}
    papers = (str(tmp_path / "sbom"), str(tmp_path / "provenance"))
    wished = PackageOptions(image=HOST)
    destination = f"{pod.repository}:v1"
    with packaged([str(pod.origin)], destination, wished, tell=told.append) as made:
        write_package(made, **places, **files, attestations=papers, metrics={})
    assert made.golden is not None and made.image is not None and pod.made.image is not None
    assert made.golden == pod.made.golden
    assert made.image.digest == pod.made.image.digest == tagged(pod.repository)
    assert f"proven on {made.golden.earlier} in an earlier run, and not asked again" in told
    assert "in an earlier run" in Path(files["summary"]).read_text()
    assert "in an earlier run" in places["golden"].metadata["reason"]
    assert "earlier" not in Path(places["golden"].path).read_text()  # the same file as before


OTHER: dict[str, dict[str, Any]] = {
    "a tolerance": {"absolute_tolerance": 1e-3},
    "the requests": {"requests": [{"path": "/predict", "body": {"inputs": [{"a": 4.0}]}}]},
    "the wish to prove anew": {"anew": True},
}


@pytest.mark.parametrize("wishes", OTHER.values(), ids=OTHER)
def test_what_is_not_what_was_proven_is_proven_anew(pod: Earlier, wishes: dict[str, Any]) -> None:
    assert pod.prove([]) == pod.made.golden
    with pytest.raises(AskedError):
        pod.prove([], **wishes)


def test_another_lock_is_proven_anew(pod: Earlier, tmp_path: Path) -> None:
    bento = build_bento(pod.made.models, tmp_path / "bento", requirements=["iniconfig"])
    with pytest.raises(AskedError):
        pod.prove([], bento=bento)


@pytest.mark.parametrize("seal", ["", "0" * 64, "of another facts"])
def test_a_record_that_anybody_wrote_is_passed_over(
    pod: Earlier, record: Record, seal: str
) -> None:
    address, manifest = record
    notes = dict(manifest["annotations"])
    right = notes.pop(SEAL)
    if seal == "of another facts":
        facts = json.loads(notes["kfp-bento.record"]) | {"size": 2}
        notes |= {SEAL: right, "kfp-bento.record": json.dumps(facts)}
    elif seal:
        notes[SEAL] = seal
    put(address, {**manifest, "annotations": notes})
    told: list[str] = []
    with pytest.raises(AskedError):
        pod.prove(told)
    assert any("the proof of an earlier run is passed over" in one for one in told)


def test_a_record_of_another_proof_is_passed_over(
    pod: Earlier, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sealed under one name counts under no other."""
    made = pod.made.golden
    assert made is not None
    monkeypatch.setattr(proving, "_asked_anew", lambda *_: made)
    pod.prove([], absolute_tolerance=1e-4)
    (other,) = set(pod.kept()) - {record[0]}
    put(other, record[1])
    monkeypatch.setenv("KFP_BENTO_CACHE", str(tmp_path / "a third machine"))
    monkeypatch.setattr(proving, "_asked_anew", asked)
    told: list[str] = []
    with pytest.raises(AskedError):
        pod.prove(told, absolute_tolerance=1e-4)
    assert any("is passed over" in one for one in told)


def test_without_a_key_nothing_is_believed_or_kept(
    pod: Earlier, monkeypatch: pytest.MonkeyPatch, oci_registry: str
) -> None:
    monkeypatch.delenv(KEY)
    with pytest.raises(AskedError):
        pod.prove([])
    made = pod.made.golden
    assert made is not None
    monkeypatch.setattr(proving, "_asked_anew", lambda *_: made)
    elsewhere = f"{oci_registry}/proven/nokey"
    assert pod.prove([], elsewhere) is made
    assert pod.kept(elsewhere) == []


def test_another_key_believes_nothing(pod: Earlier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "another secret, which others know")
    told: list[str] = []
    with pytest.raises(AskedError):
        pod.prove(told)
    assert any("carries no seal of ours" in one for one in told)


class Refusing:
    """A registry that takes no more records."""

    def find_document(self, kind: str, key: str) -> bytes | None:
        raise RegistryError("Nobody is there.")

    def keep_document(self, kind: str, key: str, content: bytes) -> None:
        raise RegistryError("It is read only.")


def test_a_registry_that_keeps_nothing_is_told_and_costs_no_package() -> None:
    told: list[str] = []
    proofs = RegistryProofs(Refusing(), told.append)
    assert proofs.find("a") is None
    proofs.keep("a", b"{}")
    assert "Nobody is there." in told[0]
    assert "It is read only." in told[1]
