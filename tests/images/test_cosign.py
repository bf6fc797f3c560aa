"""What we sign the real cosign verifies, and the other way round."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from keys import openssl_pair
from moving import make_base

from kfp_bento.runtime.images import (
    ImageOptions,
    build_image,
    copy_image,
    load_public_keys,
    load_signing_key,
    sign_image,
    verify_image,
)
from kfp_bento.runtime.images.places.open import open_manifest
from kfp_bento.runtime.images.signatures.stored import signature_layers
from kfp_bento.runtime.images.signatures.verify import NotSigned

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

# Building cosign takes ten minutes and more, once; the binary stays below build/.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

BUILD = Path(__file__).parents[2] / "build/cosign"
NEWER, OLDER = "v3.1.3", "v2.6.5"
WITHOUT_LOG = ("--tlog-upload=false", "--yes", "--allow-http-registry")
# cosign 3 takes its services from a configuration unless it is told otherwise.
OFFLINE = {NEWER: ("--use-signing-config=false",), OLDER: ()}


@pytest.fixture(scope="module", params=[NEWER, OLDER])
def version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker builds, the others wait
        if not (BUILD / version / "cosign").exists():
            build(version)
    return version


def build(version: str) -> None:
    if shutil.which("go") is None:
        pytest.skip("no Go, which cosign is built with")
    module = f"github.com/sigstore/cosign/{version[:2]}/cmd/cosign@{version}"
    environment = {**os.environ, "GOBIN": str(BUILD / version)}
    command = ["nice", "go", "install", "-p", "2", module]
    made = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if made.returncode != 0:
        pytest.skip(f"cosign cannot be built: {made.stderr.strip()[-300:]}")


@pytest.fixture(autouse=True)
def nobodys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("COSIGN_PASSWORD", "open sesame")
    monkeypatch.delenv("KFP_BENTO_SIGNING_KEY", raising=False)


def cosign(version: str, *words: object, cwd: Path | None = None) -> bool:
    """Runs cosign without any service; says whether it was content."""
    command = [BUILD / version / "cosign", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    print(done.stdout, done.stderr)
    return done.returncode == 0


def finds_signed(version: str, image: str, public: Path, *more: str) -> bool:
    options = ("--insecure-ignore-tlog=true", "--allow-http-registry", *more)
    return cosign(version, "verify", "--key", public, *options, image)


def test_cosign_verifies_what_is_signed_here(
    version: str,
    bento: Bento,
    base: str,
    oci_registry: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (key, public), (_, other) = (openssl_pair(tmp_path / name) for name in ("ours", "others"))
    to = f"{oci_registry}/cosign-{version[:2]}"
    monkeypatch.setenv("KFP_BENTO_SIGNING_KEY", str(key))
    built = build_image(bento, f"{to}/built", ImageOptions(base=base))
    monkeypatch.delenv("KFP_BENTO_SIGNING_KEY")
    assert finds_signed(version, f"{to}/built:v1", public)
    assert finds_signed(version, built.reference, public)
    assert not finds_signed(version, f"{to}/built:v1", other)
    copy_image(f"{to}/built:v1", f"oci:{tmp_path}/layout")
    copy_image(f"oci:{tmp_path}/layout", f"{to}/copied:v1")
    assert finds_signed(version, f"{to}/copied:v1", public)
    copy_image(base, f"{to}/many:1", all_platforms=True)
    assert not finds_signed(version, f"{to}/many:1", public)
    sign_image(f"{to}/many:1", load_signing_key(key))
    assert finds_signed(version, f"{to}/many:1", public)


@pytest.mark.parametrize("bundles", [True, False])
def test_what_cosign_signed_is_verified_here(
    version: str, oci_registry: str, tmp_path: Path, bundles: bool
) -> None:
    assert cosign(version, "generate-key-pair", cwd=tmp_path)
    key, public = tmp_path / "cosign.key", tmp_path / "cosign.pub"
    assert (load_signing_key(key).public,) == load_public_keys(public)
    image = f"{oci_registry}/by-cosign-{version[:2]}/{'bundled' if bundles else 'plain'}:v1"
    copy_image(make_base(tmp_path / "made"), image)
    form = f"--new-bundle-format={str(bundles).lower()}"
    assert cosign(version, "sign", "--key", key, form, *WITHOUT_LOG, *OFFLINE[version], image)
    opened = open_manifest(image)
    assert bool(signature_layers(opened.blobs, opened.descriptor.digest)) is not bundles
    assert (
        verify_image(image, load_public_keys(public)).key
        == load_signing_key(key).public.fingerprint
    )
    own, ours = openssl_pair(tmp_path / "ours")
    with pytest.raises(NotSigned, match="carries a signature, but not one by the key"):
        verify_image(image, load_public_keys(ours))
    # Both lie side by side, whoever came first.
    assert sign_image(image, load_signing_key(own)).changed
    # Beside bundles cosign 2 wants a root of trust from the network, for its own as well.
    content = not (bundles and version == OLDER)
    assert finds_signed(version, image, public, form) is content
    assert finds_signed(version, image, ours, "--new-bundle-format=false") is content
    assert verify_image(image, load_public_keys(public))
    if not bundles:
        assert finds_signed(version, image, ours)
        assert cosign(version, "sign", "--key", key, form, *WITHOUT_LOG, *OFFLINE[version], image)
        assert finds_signed(version, image, ours)
    copy_image(image, f"oci:{tmp_path}/layout")
    assert verify_image(f"oci:{tmp_path}/layout", load_public_keys(public))
