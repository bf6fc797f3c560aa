"""Images signed with a key, found signed again, and refused where they are not."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handmade import MINOR, write_base
from keys import as_cosign_keeps_it, openssl_pair
from moving import make_base
from typer.testing import CliRunner

from kfp_bento.runtime.cli.application import app
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import (
    ImageOptions,
    build_image,
    copy_image,
    load_public_keys,
    load_signing_key,
    own_signing_key,
    plan_image,
    read_sboms,
    rebase_image,
    sign_image,
    verify_image,
)
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import signature_tag
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.places.open import open_image, open_manifest
from kfp_bento.runtime.images.places.registry import ImageRepository
from kfp_bento.runtime.images.signatures import keys as key_files
from kfp_bento.runtime.images.signatures.keys import parse_public_keys
from kfp_bento.runtime.images.signatures.stored import NoSignatures, put_layers, signature_layers
from kfp_bento.runtime.images.signatures.verify import NotSigned

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

Pair = tuple[Path, Path]


@pytest.fixture(autouse=True)
def nobodys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("KFP_BENTO_SIGNING_KEY", "COSIGN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return openssl_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return openssl_pair(tmp_path_factory.mktemp("others"))


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A small image of one layer, in a layout of ours."""
    copy_image(make_base(tmp_path / "made"), f"oci:{tmp_path}/small:v1")
    return f"oci:{tmp_path}/small:v1"


@pytest.fixture(params=["registry", "layout"])
def place(request: pytest.FixtureRequest, small: str, tmp_path: Path) -> str:
    if request.param == "layout":
        return small
    address = request.getfixturevalue("oci_registry")
    name = f"{address}/signed/{tmp_path.name.lower().replace('_', '-').strip('-')}:v1"
    copy_image(small, name)
    return name


def sign(image: str, pair: Pair) -> bool:
    return sign_image(image, load_signing_key(pair[0])).changed


def is_signed(image: str, pair: Pair) -> bool:
    try:
        verify_image(image, load_public_keys(pair[1]))
    except NotSigned:
        return False
    return True


def signatures(image: str) -> list[dict]:
    opened = open_manifest(image)
    return signature_layers(opened.blobs, opened.descriptor.digest)


def digest_of(image: str) -> str:
    return open_manifest(image).descriptor.digest


def index_of(image: str) -> bytes:
    return (Path(image.split(":")[1]) / "index.json").read_bytes()


# Signing and verifying.


def test_an_image_is_signed_and_found_so_by_that_key_alone(
    place: str, pair: Pair, other: Pair
) -> None:
    with pytest.raises(NotSigned, match=r"sha256:[0-9a-f]{64} is not signed\."):
        verify_image(place, load_public_keys(pair[1]))
    before = open_image(place)
    signed = sign_image(place, load_signing_key(pair[0]))
    assert signed.changed
    assert signed.digest == before.descriptor.digest == open_image(place).descriptor.digest
    verified = verify_image(place, load_public_keys(pair[1]))
    assert (verified.digest, verified.key) == (signed.digest, signed.key)
    with pytest.raises(NotSigned, match="carries a signature, but not one by the key sha256:"):
        verify_image(place, load_public_keys(other[1]))


def test_the_same_key_adds_nothing_and_another_adds_a_signature(
    place: str, pair: Pair, other: Pair
) -> None:
    assert sign(place, pair)
    once = signatures(place)
    assert not sign(place, pair)
    assert signatures(place) == once
    assert sign(place, other)
    assert signatures(place)[:1] == once
    assert len(signatures(place)) == 2
    assert is_signed(place, pair)
    assert is_signed(place, other)
    both = pair[1].read_text() + other[1].read_text()
    assert len(parse_public_keys(both, "both")) == 2


def test_a_signature_is_the_same_bytes_on_any_machine(small: str, pair: Pair) -> None:
    shutil.copytree(small.split(":")[1], f"{small.split(':')[1]}-again")
    again = small.replace("/small:", "/small-again:")
    sign(small, pair)
    sign(again, pair)
    assert index_of(small) == index_of(again)


def test_openssl_itself_verifies_what_is_signed(small: str, pair: Pair, tmp_path: Path) -> None:
    sign(small, pair)
    [layer] = signatures(small)
    payload = BlobDirectory(Path(small.split(":")[1])).path(layer["digest"])
    assert json.loads(payload.read_bytes())["critical"]["image"] == {
        "docker-manifest-digest": open_image(small).descriptor.digest
    }
    signature = tmp_path / "signature"
    noted = layer["annotations"]["dev.cosignproject.cosign/signature"]
    signature.write_bytes(base64.b64decode(noted))
    command = ["openssl", "dgst", "-sha256", "-verify", pair[1], "-signature", signature, payload]
    assert b"Verified OK" in subprocess.run(command, check=True, capture_output=True).stdout


def test_a_signature_of_another_image_does_not_count(
    oci_registry: str, tmp_path: Path, pair: Pair
) -> None:
    mine, foreign = (f"{oci_registry}/moved/image:{tag}" for tag in ("mine", "foreign"))
    copy_image(make_base(tmp_path / "a"), mine)
    copy_image(make_base(tmp_path / "b", files={"etc/b": b"b"}), foreign)
    sign(mine, pair)
    repository = ImageRepository(parse_reference(mine))
    taken, digest = signatures(mine), open_image(foreign).descriptor.digest
    put_layers(repository, BlobDirectory(tmp_path / "work"), digest, taken, repository)
    with pytest.raises(NotSigned, match=f"of another image: {open_image(mine).descriptor.digest}"):
        verify_image(foreign, load_public_keys(pair[1]))


@pytest.mark.parametrize("spoilt", ["signature", "payload", "nonsense"])
def test_a_signature_that_was_changed_counts_as_none(
    small: str, pair: Pair, tmp_path: Path, spoilt: str
) -> None:
    sign(small, pair)
    layout = Path(small.split(":")[1])
    opened = open_image(small)
    [layer] = signatures(small)
    note = layer["annotations"]
    if spoilt == "payload":
        forged = json.loads(BlobDirectory(layout).path(layer["digest"]).read_bytes())
        forged["optional"] = {"by": "me"}
        content = json.dumps(forged).encode()
        blob = BlobDirectory(layout).put_bytes(content, layer["mediaType"])
        layer = {**blob.to_dict(), "annotations": note}
    else:
        value = "AAAA" if spoilt == "signature" else "no base64"
        layer = {**layer, "annotations": {"dev.cosignproject.cosign/signature": value}}
    from kfp_bento.runtime.images.places.layout import layout_beside
    from kfp_bento.runtime.images.signatures.simple_signing import manifest_of

    manifest, content, config = manifest_of([layer])
    with layout_beside(layout) as sink:
        sink.blobs.put_bytes(config, "")
        sink.put_named(manifest, content, signature_tag(opened.descriptor.digest))
    assert not is_signed(small, pair)


def test_an_index_is_signed_as_such_or_one_platform_of_it(
    oci_registry: str, tmp_path: Path, pair: Pair
) -> None:
    image = f"{oci_registry}/many/base:1"
    copy_image(write_base(tmp_path / "many"), image, all_platforms=True)
    key, public = load_signing_key(pair[0]), load_public_keys(pair[1])
    sign_image(image, key, platform="linux/arm64")
    assert verify_image(image, public, platform="linux/arm64").digest != (
        open_manifest(image).descriptor.digest
    )
    with pytest.raises(NotSigned):
        verify_image(image, public)
    sign_image(image, key)
    assert verify_image(image, public).digest == open_manifest(image).descriptor.digest


def test_an_archive_has_no_place_for_signatures(small: str, tmp_path: Path, pair: Pair) -> None:
    sign(small, pair)
    copied = copy_image(small, f"docker-archive:{tmp_path}/a.tar:a/b:v1")
    assert "1 attached" in copied.left_behind
    with pytest.raises(ImageError, match="a docker archive has no place"):
        verify_image(f"docker-archive:{tmp_path}/a.tar", load_public_keys(pair[1]))
    with pytest.raises(ImageError, match="a docker archive has no place"):
        sign_image(f"docker-archive:{tmp_path}/a.tar", load_signing_key(pair[0]))


# Copies.


def test_a_copy_takes_signatures_along_and_keeps_those_that_are_there(
    small: str, oci_registry: str, tmp_path: Path, pair: Pair, other: Pair
) -> None:
    there = f"{oci_registry}/along/image:v1"
    copy_image(small, there)
    sign(there, other)
    sign(small, pair)
    copied = copy_image(small, there)
    assert copied.signatures == 1
    assert is_signed(there, pair)
    assert is_signed(there, other)
    copy_image(there, f"oci:{tmp_path}/back:v1")
    assert is_signed(f"oci:{tmp_path}/back:v1", pair)
    before = index_of(f"oci:{tmp_path}/back:v1")
    assert not copy_image(there, f"oci:{tmp_path}/back:v1").changed
    assert index_of(f"oci:{tmp_path}/back:v1") == before
    copy_image(f"oci:{tmp_path}/made", f"oci:{tmp_path}/back:v1")
    assert is_signed(f"oci:{tmp_path}/back:v1", other)  # the same image, copied once more


def give_signature_tag(image: str, what: str) -> None:
    """Lets something else have the tag where an image's signatures belong."""
    digest = open_manifest(image).descriptor.digest
    copy_image(what, f"{image.rpartition(':')[0]}:{signature_tag(digest)}", all_platforms=True)


@pytest.mark.parametrize("kind", ["image", "index"])
def test_something_else_with_the_tag_of_signatures_stops_no_copy(
    small: str, oci_registry: str, tmp_path: Path, pair: Pair, kind: str
) -> None:
    there = f"{oci_registry}/foreign-{kind}/image:v1"
    copy_image(small, there)
    copy_image(small, f"{oci_registry}/foreign-{kind}-own/image:v1")
    sign(f"{oci_registry}/foreign-{kind}-own/image:v1", pair)
    other = make_base(tmp_path / "c", files={"etc/c": b"c"})
    give_signature_tag(there, other if kind == "image" else write_base(tmp_path / "index"))
    before = open_manifest(f"{there.rpartition(':')[0]}:{signature_tag(digest_of(small))}")
    for target in (f"oci:{tmp_path}/out:v1", f"{oci_registry}/foreign-{kind}/copied:v1"):
        copied = copy_image(there, target)
        assert (copied.digest, copied.signatures) == (digest_of(small), 0)
        assert "is no list of signatures" in copied.left_behind
        assert "delete that tag" in copied.left_behind
    # Nor is it taken for one, or written over.
    onto = copy_image(f"{oci_registry}/foreign-{kind}-own/image:v1", there)
    assert "is no list of signatures" in onto.left_behind
    for refused in (partial(sign, there, pair), partial(is_signed, there, pair)):
        with pytest.raises(NoSignatures, match=r"sha256-\w+\.sig is no list"):
            refused()
    after = open_manifest(f"{there.rpartition(':')[0]}:{signature_tag(digest_of(small))}")
    assert after.content == before.content
    assert copy_image(there, f"docker-archive:{tmp_path}/x.tar").left_behind == ""


SIGN = """
import sys, pathlib
from kfp_bento.runtime.images import load_signing_key, sign_image
print("ready", flush=True)
sys.stdin.readline()
sign_image(sys.argv[1], load_signing_key(pathlib.Path(sys.argv[2])))
"""


def test_who_sign_a_layout_at_once_do_not_lose_each_others_signatures(
    small: str, tmp_path: Path
) -> None:
    pairs = [openssl_pair(tmp_path / f"keys-{number}") for number in range(6)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SIGN, small, key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key, _ in pairs
    ]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in started:
        one.communicate(timeout=60)
        assert one.returncode == 0
    assert [is_signed(small, pair) for pair in pairs] == [True] * len(pairs)


def test_another_image_in_its_place_is_not_signed(small: str, tmp_path: Path, pair: Pair) -> None:
    sign(small, pair)
    copy_image(make_base(tmp_path / "c", files={"etc/c": b"c"}), small)
    assert not is_signed(small, pair)
    assert b".sig" not in index_of(small)


# Builds.


def test_a_build_signs_where_there_is_a_key(
    bento: Bento,
    base: str,
    oci_registry: str,
    tmp_path: Path,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to, options = f"{oci_registry}/built/tiny", ImageOptions(base=base)
    assert build_image(bento, to, options).signed_by == ""
    monkeypatch.setenv("KFP_BENTO_SIGNING_KEY", str(pair[0]))
    signed = build_image(bento, to, options)
    assert signed.reused
    assert signed.signed_by == verify_image(f"{to}:v1", load_public_keys(pair[1])).key
    assert signed.to_dict()["signed_by"] == signed.signed_by
    build_image(bento, to, options)
    assert len(signatures(f"{to}:v1")) == 1
    monkeypatch.setenv("KFP_BENTO_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # made, then found as it is
        monkeypatch.setenv("KFP_BENTO_SIGNING_KEY", pair[0].read_text())
        in_layout = build_image(bento, f"oci:{tmp_path}/out", options)
        assert is_signed(f"oci:{tmp_path}/out:v1", pair)
        assert len(read_sboms(f"oci:{tmp_path}/out:v1")) == 1
        monkeypatch.delenv("KFP_BENTO_SIGNING_KEY")
        assert build_image(bento, f"oci:{tmp_path}/out", options).digest == in_layout.digest
        assert is_signed(f"oci:{tmp_path}/out:v1", pair)
    rebased = rebase_image(f"{to}:v1", write_base(tmp_path / "new", python=f"{MINOR}.2"))
    assert rebased.digest != signed.digest
    assert not is_signed(f"{to}:v1", pair)


def test_a_base_without_the_signature_is_refused_before_anything_is_made(
    bento: Bento, base: str, oci_registry: str, tmp_path: Path, pair: Pair
) -> None:
    name, to = f"{oci_registry}/bases/asked:1", f"oci:{tmp_path}/out"
    copy_image(base, name, all_platforms=True)
    options = ImageOptions(base=name, base_key=" ".join(pair[1].read_text().split("\n")))
    for refused in (build_image, plan_image):
        with pytest.raises(NotSigned, match=f"{name}.* is not signed"):
            refused(bento, to, options)
    assert not (tmp_path / "out").exists()
    signed = sign_image(name, load_signing_key(pair[0]))
    built = build_image(bento, to, options)
    assert built.base_signed_by == signed.key
    alone = f"{oci_registry}/bases/alone:1"
    copy_image(base, alone, all_platforms=True)
    sign_image(alone, load_signing_key(pair[0]), platform=built.platform)
    by_platform = ImageOptions(base=alone, base_key=options.base_key)
    assert build_image(bento, to, by_platform).base_signed_by == signed.key
    with pytest.raises(InvalidInput, match="The base host cannot be signed"):
        build_image(bento, to, ImageOptions(base="host", base_key=options.base_key))


# Keys.


def test_keys_come_in_the_forms_that_openssl_and_cosign_write(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load_signing_key(pair[0]).public
    assert load_public_keys(pair[1]) == (wanted,)
    for name, command in {
        "sec1": ["ec", "-in", pair[0]],
        "locked": ["pkcs8", "-topk8", "-in", pair[0], "-passout", "pass:secret"],
    }.items():
        made = tmp_path / name
        subprocess.run(["openssl", *command, "-out", made], check=True, capture_output=True)
        if name == "locked":
            with pytest.raises(InvalidInput, match="has a password, and none is given"):
                load_signing_key(made)
            monkeypatch.setenv("COSIGN_PASSWORD", "secret")
        assert load_signing_key(made).public == wanted
    monkeypatch.delenv("COSIGN_PASSWORD")
    cosigns = tmp_path / "secret/cosign.key"
    cosigns.parent.mkdir()
    cosigns.write_text(as_cosign_keeps_it(pair[0], "open"))
    with pytest.raises(InvalidInput, match="has a password"):
        load_signing_key(cosigns)
    (cosigns.parent / "cosign.password").write_text("open")
    assert load_signing_key(cosigns).public == wanted
    monkeypatch.setattr(key_files, "MOUNTED_KEY", cosigns)
    mounted = own_signing_key()
    assert mounted is not None
    assert mounted.public == wanted
    assert "PRIVATE" not in repr(mounted)
    monkeypatch.setenv("COSIGN_PASSWORD", "other")
    with pytest.raises(InvalidInput, match="the password is another one"):
        load_signing_key(cosigns)


def test_what_is_no_key_is_refused_with_what_would_do(pair: Pair, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("nothing")
    curve, _ = openssl_pair(
        tmp_path, "p384", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"
    )
    _, ed25519 = openssl_pair(tmp_path, "ed", "-algorithm", "ED25519")
    for file, said in (
        (wrong, "does not hold a private key in PEM"),
        (pair[1], "does not hold a private key in PEM"),
        (curve, "does not hold an ECDSA key on the curve P-256"),
        (tmp_path / "none", "cannot be read: No such file"),
    ):
        with pytest.raises(InvalidInput, match=said):
            load_signing_key(file)
    for file, said in (
        (wrong, "does not hold a public key in PEM"),
        (pair[0], "holds a private key"),
        (ed25519, "does not hold an ECDSA or RSA key"),
    ):
        with pytest.raises(InvalidInput, match=said):
            load_public_keys(file)


# The command.


def test_the_command_signs_verifies_and_fails_with_two(
    small: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["image", *words])
        return done.exit_code, done.output

    code, said = ask("verify", small, "--key", str(pair[1]))
    assert code == 2
    assert "is not signed" in said
    code, said = ask("sign", small)
    assert code == 2
    assert "There is no key to sign with" in said
    monkeypatch.setenv("KFP_BENTO_SIGNING_KEY", pair[0].read_text())
    code, said = ask("sign", small, "--json")
    assert code == 0
    assert json.loads(said)["changed"]
    code, said = ask("sign", small, "--key", str(pair[0]))
    assert code == 0
    assert "Already signed" in said
    code, said = ask("verify", small, "--key", str(pair[1]), "--json")
    assert code == 0
    assert json.loads(said)["digest"] == open_image(small).descriptor.digest
