"""Another base below an image: the same bytes as a build on it, or a refusal with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import BENTO_YAML, MINOR, open_layer, write, write_base
from moving import add_blob, change_image, make_base, skopeo
from small_wheels import make_wheel
from typer.testing import CliRunner

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.cli.application import app
from kfp_bento.runtime.errors import ImageError, InvalidInput, RegistryError
from kfp_bento.runtime.images import ImageOptions, build_image, copy_image, pack_image, rebase_image
from kfp_bento.runtime.images.attestations.attachments import read_attachments
from kfp_bento.runtime.images.attestations.provenance import BUILD_TYPE, REBASE_TYPE, STATEMENT_TYPE
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE
from kfp_bento.runtime.images.oci.config import descriptor_of
from kfp_bento.runtime.images.oci.image import OCI_INDEX, OCI_MANIFEST, parse_platform
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.places.open import open_image
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images.rebase import RebasedImage

VARIABLES = """\
envs:
- {name: ZEBRA, value: z}
- {name: GREETING, value: hello}
- {name: FLAVOUR, value: own}
- {name: HOME, value: /elsewhere}
"""


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def old(tmp_path: Path) -> str:
    return make_base(
        tmp_path / "old",
        environment=("FLAVOUR=old", "GONE=1"),
        labels={"from": "old", "gone": "1", "org.opencontainers.image.title": "old base"},
        debian="bookworm",
    )


@pytest.fixture
def new(tmp_path: Path) -> str:
    return make_base(
        tmp_path / "new",
        python=f"{MINOR}.9",
        files={"etc/more": b"fixed", "etc/new": b"1"},
        environment=("ADDED=1", "FLAVOUR=new"),
        labels={"from": "new", "org.opencontainers.image.title": "new base"},
        debian="bookworm",
    )


@pytest.fixture
def rich(bento: Bento) -> Bento:
    """The bento with variables that add to, and override, those of base and builder."""
    greeting = "envs:\n- name: GREETING\n  value: hello\n"
    assert greeting in BENTO_YAML
    write(bento.directory / "bento.yaml", BENTO_YAML.replace(greeting, VARIABLES))
    return load_bento(bento.directory)


def placements(rebased: RebasedImage) -> dict[str, str]:
    return {transfer.title: transfer.placement for transfer in rebased.transfers}


def test_a_rebase_gives_the_bytes_of_a_build_on_the_new_base(
    rich: Bento, old: str, new: str, tmp_path: Path
) -> None:
    build_image(rich, f"oci:{tmp_path}/before", ImageOptions(base=old))
    fresh = build_image(rich, f"oci:{tmp_path}/fresh", ImageOptions(base=new))
    rebased = rebase_image(f"oci:{tmp_path}/before", new, destination=f"oci:{tmp_path}/after")
    assert rebased.digest == fresh.digest
    assert rebased.changed
    assert rebased.tag == "v1"
    found, built = (open_image(f"oci:{tmp_path}/{name}") for name in ("after", "fresh"))
    assert found.content == built.content
    environment = found.config["config"]["Env"]
    assert {"FLAVOUR=own", "ADDED=1", "HOME=/elsewhere"} <= set(environment)
    assert not [x for x in environment if x.startswith("GONE")]
    skopeo("copy", f"oci:{tmp_path}/after:v1", f"oci:{tmp_path}/checked")


def test_back_on_the_old_base_it_is_the_old_image(
    rich: Bento, old: str, new: str, tmp_path: Path
) -> None:
    before = build_image(rich, f"oci:{tmp_path}/image", ImageOptions(base=old))
    assert rebase_image(f"oci:{tmp_path}/image", new).changed
    back = rebase_image(f"oci:{tmp_path}/image", old)
    assert back.digest == before.digest
    assert open_image(f"oci:{tmp_path}/image:v1").descriptor.digest == before.digest


def test_the_times_are_those_of_the_image_not_of_the_rebase(
    bento: Bento, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    fresh = build_image(bento, f"oci:{tmp_path}/fresh", ImageOptions(base=new))
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert rebase_image(f"oci:{tmp_path}/image", new).digest == fresh.digest


def test_in_a_registry_only_the_configuration_is_sent(
    bento: Bento, old: str, new: str, oci_registry: str
) -> None:
    for name, base in (("old", old), ("new", new)):
        copy_image(base, f"{oci_registry}/bases/python:{name}")
    bases = f"{oci_registry}/bases/python"
    image = f"{oci_registry}/rebase/tiny"
    build_image(bento, image, ImageOptions(base=f"{bases}:old"))
    fresh = build_image(bento, f"{oci_registry}/rebase/fresh", ImageOptions(base=f"{bases}:new"))
    rebased = rebase_image(f"{image}:v1", f"{bases}:new")
    assert rebased.digest == fresh.digest
    assert placements(rebased) == {
        "base layer 1": "present",
        "base layer 2": "mounted",
        "wheels: bentoml and greeter": "present",
        f"environment (Python {MINOR})": "present",
        "model factor:0123456789abcdef": "present",
        "source of tiny": "present",
        "configuration": "sent",
    }
    assert open_image(f"{image}:v1").descriptor.digest == fresh.digest


def test_into_another_repository_the_own_layers_are_mounted(
    bento: Bento, old: str, new: str, oci_registry: str
) -> None:
    copy_image(new, f"{oci_registry}/bases/two:new")
    image = f"{oci_registry}/mounts/tiny"
    before = build_image(bento, image, ImageOptions(base=old))
    rebased = rebase_image(
        f"{image}@{before.digest}",
        f"{oci_registry}/bases/two:new",
        destination=f"{oci_registry}/mounts/other:fixed",
    )
    found = placements(rebased)
    assert found.pop("configuration") == "sent"
    assert set(found.values()) == {"mounted"}
    assert open_image(f"{image}:v1").descriptor.digest == before.digest


# Images of environments, without a bento.


def pack(folder: Path, to: str, base: str) -> Any:
    lock = write(folder / "lock/requirements.txt", f"./{make_locked(folder / 'lock')}\n")
    own = folder / "own/mine-2.0-py3-none-any.whl"
    make_wheel(own.parent, "mine", version="2.0")
    options = {"name": "steps", "version": "v1", "python": MINOR, "wheels": [own]}
    return pack_image(lock, to, ImageOptions(base=base), **options)


def make_locked(folder: Path) -> str:
    """A wheel beside a lock; gives its line."""
    line = make_wheel(folder, "greeter")
    return f"greeter-1.0-py3-none-any.whl {line.partition(' ')[2]}"


def test_a_wheel_of_ones_own_does_not_replace_what_makes_the_environment(
    old: str, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    # A `bin/python` is refused by uv itself.
    theirs = {f"mine-1.0.data/data/{name}": "evil" for name in ("pyvenv.cfg", "bin/activate")}
    make_wheel(own, "mine", members={**theirs, "mine.py": "there = True\n"})
    lock = write(tmp_path / "lock/requirements.txt", f"./{make_locked(tmp_path / 'lock')}\n")
    image = pack_image(
        *(lock, f"oci:{tmp_path}/out", ImageOptions(base=old)),
        **{"name": "steps", "version": "v1", "python": MINOR},
        wheels=[own / "mine-1.0-py3-none-any.whl"],
    )
    seen: dict[str, bytes] = {}
    for layer in image.layers:
        with open_layer(tmp_path / "out", layer) as files:
            for member in files:
                content = files.extractfile(member) if member.isreg() else None
                seen[member.name] = content.read() if content else member.linkname.encode()
    assert b"home = " in seen["app/.venv/pyvenv.cfg"]
    assert b"evil" not in seen["app/.venv/bin/activate"]
    assert seen[f"app/.venv/lib/python{MINOR}/site-packages/mine.py"] == b"there = True\n"


def test_a_packed_environment_on_another_base_is_that_of_a_fresh_pack(
    old: str, new: str, tmp_path: Path
) -> None:
    pack(tmp_path, f"oci:{tmp_path}/before", old)
    fresh = pack(tmp_path, f"oci:{tmp_path}/fresh", new)
    rebased = rebase_image(f"oci:{tmp_path}/before", new, destination=f"oci:{tmp_path}/after")
    assert rebased.digest == fresh.digest
    after = open_image(f"oci:{tmp_path}/after")
    assert after.content == open_image(f"oci:{tmp_path}/fresh").content
    assert after.config["config"]["Entrypoint"] == []
    assert after.config["config"]["Labels"]["kfp-bento.profile"] == "step"
    assert [layer.kind for layer in after.layers[2:]] == ["dependencies"] * 3
    bills = [read_attachments(f"oci:{tmp_path}/{x}", SBOM_TYPE) for x in ("after", "fresh")]
    assert bills[0] == bills[1] != ()


def test_a_packed_environment_is_known_by_its_history(old: str, new: str, tmp_path: Path) -> None:
    pack(tmp_path, f"docker-archive:{tmp_path}/image.tar", old)
    fresh = pack(tmp_path, f"oci:{tmp_path}/fresh", new)
    rebase_image(f"docker-archive:{tmp_path}/image.tar", new, destination=f"oci:{tmp_path}/out")
    # Decompressed on their way through the archive, the layers have other blobs.
    found, built = (open_image(f"oci:{tmp_path}/{name}") for name in ("out", "fresh"))
    assert found.manifest["config"]["digest"] == built.manifest["config"]["digest"]
    assert [x.kind for x in found.layers] == [x.kind for x in built.layers]
    assert fresh.digest == built.descriptor.digest


def test_an_image_without_a_profile_is_that_of_a_service(
    bento: Bento, old: str, new: str, tmp_path: Path
) -> None:
    def forget(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        del config["config"]["Labels"]["kfp-bento.profile"]

    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    fresh = build_image(bento, f"oci:{tmp_path}/fresh", ImageOptions(base=new))
    image = change_image(tmp_path / "image", forget)
    assert rebase_image(image, new, destination=f"oci:{tmp_path}/out").digest == fresh.digest


# Documents.


def bills(image: str) -> tuple[bytes, ...]:
    return read_attachments(image, SBOM_TYPE)


def statements(image: str) -> dict[str, Any]:
    """What is said of how an image came about, by the kind of build."""
    found = [json.loads(x) for x in read_attachments(image, STATEMENT_TYPE)]
    return {x["predicate"]["buildDefinition"]["buildType"]: x for x in found}


def test_the_bill_of_materials_is_that_of_a_build_on_the_new_base(
    rich: Bento, old: str, new: str, tmp_path: Path, shared_cache: Path
) -> None:
    build_image(rich, f"oci:{tmp_path}/before", ImageOptions(base=old))
    for name, base in (("new", new), ("host", "host")):
        options = ImageOptions(base=base, cache=shared_cache)
        build_image(rich, f"oci:{tmp_path}/fresh-{name}", options)
        onto = f"oci:{tmp_path}/on-{name}"
        rebased = rebase_image(f"oci:{tmp_path}/before", base, destination=onto)
        assert bills(onto) == bills(f"oci:{tmp_path}/fresh-{name}")
        assert len(rebased.referrers) == 2
        assert rebased.missing == ""
    rebase_image(f"oci:{tmp_path}/on-host", old, destination=f"oci:{tmp_path}/back")
    assert bills(f"oci:{tmp_path}/back") == bills(f"oci:{tmp_path}/before") != ()


def test_the_provenance_names_the_old_image_and_the_new_base(
    bento: Bento, old: str, new: str, oci_registry: str
) -> None:
    image, base = f"{oci_registry}/papers/tiny", f"{oci_registry}/papers/python"
    before = build_image(bento, image, ImageOptions(base=old))
    on = copy_image(new, f"{base}:new")
    rebased = rebase_image(f"{image}:v1", f"{base}:new", tag="fixed")
    said = statements(f"{image}:fixed")
    assert set(said) == {REBASE_TYPE}
    statement = said[REBASE_TYPE]
    assert statement["subject"] == [{"name": image, "digest": {"sha256": rebased.digest[7:]}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {
        "image": f"{image}:v1",
        "base": f"{base}:new",
        "platform": str(parse_platform()),
        "repository": image,
    }
    dependencies = {x["name"]: x for x in definition["resolvedDependencies"]}
    assert {name: x["digest"]["sha256"] for name, x in dependencies.items()} == {
        "image": before.digest[7:],
        "base": on.digest[7:],
    }
    assert dependencies["base"]["uri"].startswith(f"pkg:oci/python@{on.digest}?arch=")
    assert set(statements(f"{image}:v1")) == {BUILD_TYPE}


def test_a_build_and_a_rebase_that_give_the_same_image_are_both_told_of(
    bento: Bento, old: str, new: str, oci_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "a secret that only these builds know")
    image = f"{oci_registry}/papers/both"
    build_image(bento, f"{image}:old", ImageOptions(base=old))
    build_image(bento, f"{image}:new", ImageOptions(base=new))
    rebase_image(f"{image}:old", new)
    assert set(statements(f"{image}:old")) == {BUILD_TYPE, REBASE_TYPE}
    assert len(bills(f"{image}:old")) == 1


def test_the_tag_waits_for_the_documents(
    bento: Bento, old: str, new: str, oci_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RegistryError("no room")

    image = f"{oci_registry}/papers/waiting"
    before = build_image(bento, image, ImageOptions(base=old))
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "put_referrers", fail)
        with pytest.raises(RegistryError, match="no room"):
            rebase_image(f"{image}:v1", new)
    assert open_image(f"{image}:v1").descriptor.digest == before.digest


def strip(layout: Path, target: Path) -> str:
    """A copy of a layout without what is attached to its image."""
    shutil.copytree(layout, target)
    index = json.loads((target / "index.json").read_bytes())
    index["manifests"] = [x for x in index["manifests"] if "artifactType" not in x]
    write(target / "index.json", json.dumps(index))
    return f"oci:{target}"


def test_without_a_bill_of_materials_there_is_provenance_only_and_a_reason(
    bento: Bento, old: str, new: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    build_image(bento, f"docker-archive:{tmp_path}/image.tar", ImageOptions(base=old))
    stripped = strip(tmp_path / "image", tmp_path / "stripped")
    for source, reason in (
        (stripped, "none is attached"),
        (f"docker-archive:{tmp_path}/image.tar", "in an archive"),
    ):
        told: list[str] = []
        out = f"oci:{tmp_path}/out"
        rebased = rebase_image(source, new, destination=out, progress=told.append)
        assert reason in rebased.missing
        assert any("no bill of materials" in x and reason in x for x in told)
        assert bills(out) == ()
        assert set(statements(out)) == {REBASE_TYPE}
        assert len(rebased.referrers) == 1
    onto = rebase_image(f"oci:{tmp_path}/image", new, destination=f"docker-archive:{tmp_path}/o")
    assert onto.referrers == ()
    assert "archive carries no" in onto.missing
    same = rebase_image(f"oci:{tmp_path}/image", old, destination=f"docker-archive:{tmp_path}/s")
    assert (same.referrers, same.missing) == ((), onto.missing)


def test_a_bill_of_materials_that_we_did_not_write_is_not_passed_on(
    bento: Bento, old: str, new: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    (mine,) = bills(f"oci:{tmp_path}/image")
    for changed in (mine.replace(b"greeter", b"meeeter"), b"{}", b"no JSON"):
        image = strip(tmp_path / "image", tmp_path / "changed")
        attach_bill(tmp_path / "changed", changed)
        assert bills(image) == (changed,)
        rebased = rebase_image(image, new, destination=f"oci:{tmp_path}/out")
        assert "not as this version of kfp-bento writes it" in rebased.missing
        assert bills(f"oci:{tmp_path}/out") == ()
        shutil.rmtree(tmp_path / "changed")


def attach_bill(layout: Path, content: bytes) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    kind = "application/vnd.oci.empty.v1+json"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": SBOM_TYPE,
        "config": add_blob(layout, b"{}", kind),
        "layers": [add_blob(layout, content, SBOM_TYPE)],
        "subject": index["manifests"][0],
    }
    item = add_blob(layout, json.dumps(document).encode(), OCI_MANIFEST)
    index["manifests"].append({**item, "artifactType": SBOM_TYPE})
    write(layout / "index.json", json.dumps(index))


def test_elsewhere_on_its_own_base_an_image_keeps_the_documents_that_it_has(
    bento: Bento, old: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    rebased = rebase_image(f"oci:{tmp_path}/image", old, destination=f"oci:{tmp_path}/copy")
    assert set(statements(f"oci:{tmp_path}/copy")) == {BUILD_TYPE}
    assert bills(f"oci:{tmp_path}/copy") == bills(f"oci:{tmp_path}/image")
    assert len(rebased.referrers) == 2


def test_a_rebase_onto_the_same_base_does_nothing_and_says_so(
    bento: Bento, old: str, tmp_path: Path
) -> None:
    before = build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    told: list[str] = []
    stamp = (tmp_path / "image/index.json").stat().st_mtime_ns
    again = rebase_image(f"oci:{tmp_path}/image", old, progress=told.append)
    assert (again.changed, again.transfers, again.digest) == (False, (), before.digest)
    assert "stands on" in told[-1]
    assert (tmp_path / "image/index.json").stat().st_mtime_ns == stamp
    elsewhere = rebase_image(f"oci:{tmp_path}/image", old, destination=f"oci:{tmp_path}/copy")
    assert elsewhere.digest == before.digest


def test_an_image_without_annotations_is_known_by_its_history(
    rich: Bento, old: str, new: str, tmp_path: Path
) -> None:
    build_image(rich, f"docker-archive:{tmp_path}/image.tar", ImageOptions(base=old))
    build_image(rich, f"oci:{tmp_path}/fresh", ImageOptions(base=new))
    rebased = rebase_image(f"docker-archive:{tmp_path}/image.tar", new)
    assert rebased.changed
    found = open_image(f"docker-archive:{tmp_path}/image.tar:v1")
    built = open_image(f"oci:{tmp_path}/fresh")
    assert found.manifest["config"]["digest"] == built.manifest["config"]["digest"]
    onward = rebase_image(
        f"docker-archive:{tmp_path}/image.tar", old, destination=f"oci:{tmp_path}/onward"
    )
    manifest = open_image(onward.location).manifest
    assert manifest["layers"][-1]["annotations"]["kfp-bento.kind"] == "source"
    names = {"title", "version", "base.digest"}
    assert set(manifest["annotations"]) == {f"org.opencontainers.image.{x}" for x in names}


@pytest.mark.slow
def test_the_host_can_be_the_new_base_and_the_old_one(
    bento: Bento, tmp_path: Path, new: str, shared_cache: Path
) -> None:
    options = ImageOptions(base="host", cache=shared_cache)
    fresh = build_image(bento, f"oci:{tmp_path}/fresh", options)
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=new))
    assert rebase_image(f"oci:{tmp_path}/image", "host").digest == fresh.digest
    copy_image(f"oci:{tmp_path}/fresh", f"docker-archive:{tmp_path}/fresh.tar")
    moved = rebase_image(
        f"docker-archive:{tmp_path}/fresh.tar", new, destination=f"oci:{tmp_path}/moved"
    )
    kinds = [layer.kind for layer in open_image(moved.location).layers]
    assert kinds == ["base", "base", "dependencies", "dependencies", "model", "source"]


# What is refused.


@pytest.fixture
def image(bento: Bento, old: str, tmp_path: Path) -> str:
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=old))
    return f"oci:{tmp_path}/image:v1"


def test_another_python_is_refused(image: str, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", python="3.99.0")
    with pytest.raises(ImageError, match=r"there is /usr/local/bin/python3\.99"):
        rebase_image(image, other)


def test_a_python_elsewhere_is_refused(image: str, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", python="")
    with pytest.raises(ImageError, match=f"/usr/bin/python{MINOR}.*/usr/local/bin/python{MINOR}"):
        rebase_image(image, other)


def test_another_platform_is_refused(image: str, tmp_path: Path) -> None:
    own = parse_platform().architecture
    other = "arm64" if own == "amd64" else "amd64"
    single = make_base(tmp_path / "single", architecture=other)
    several = write_base(tmp_path / "several", architectures=(other, "s390x"))
    for base in (single, several):
        with pytest.raises(ImageError, match=f"no image for linux/{own}"):
            rebase_image(image, base)


def test_an_image_that_we_did_not_build_is_refused(new: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not built by kfp-bento"):
        rebase_image(make_base(tmp_path / "theirs"), new)


def test_an_image_with_a_layer_put_on_top_is_refused(image: str, new: str, tmp_path: Path) -> None:
    def add(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"].append(dict(manifest["layers"][0]))
        config["rootfs"]["diff_ids"].append(config["rootfs"]["diff_ids"][0])
        config["history"].append({"created_by": "RUN patch"})

    with pytest.raises(ImageError, match="has been changed"):
        rebase_image(change_image(tmp_path / "image", add), new)


def test_an_image_of_an_unknown_profile_is_refused(image: str, new: str, tmp_path: Path) -> None:
    def rename(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["config"]["Labels"]["kfp-bento.profile"] = "notebook"

    with pytest.raises(ImageError, match=r"profile 'notebook'.*service, step"):
        rebase_image(change_image(tmp_path / "image", rename), new)


def test_the_layers_must_be_those_of_the_profile(image: str, new: str, tmp_path: Path) -> None:
    def rename(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["config"]["Labels"]["kfp-bento.profile"] = "step"

    with pytest.raises(ImageError, match="has been changed"):
        rebase_image(change_image(tmp_path / "image", rename), new)


@pytest.mark.parametrize("label", ["kfp-bento.interpreter", "kfp-bento.environment"])
def test_an_image_without_our_labels_is_refused(
    label: str, image: str, new: str, tmp_path: Path
) -> None:
    def remove(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        del config["config"]["Labels"][label]

    with pytest.raises(ImageError, match=label):
        rebase_image(change_image(tmp_path / "image", remove), new)


def with_packages(manifest: dict[str, Any], config: dict[str, Any]) -> None:
    manifest["layers"][2]["annotations"]["kfp-bento.kind"] = "system"


def test_debian_packages_move_between_bases_of_one_release(
    image: str, new: str, tmp_path: Path
) -> None:
    rebased = rebase_image(
        change_image(tmp_path / "image", with_packages), new, destination=f"oci:{tmp_path}/out"
    )
    kinds = [layer.kind for layer in open_image(rebased.location).layers]
    assert kinds == ["base", "base", "system", "dependencies", "model", "source"]


@pytest.mark.parametrize(("release", "said"), [("trixie", "Debian trixie"), ("", "not tell")])
def test_debian_packages_stay_with_their_release(
    release: str, said: str, image: str, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "other", debian=release)
    with pytest.raises(ImageError, match=f"Debian packages.*Debian bookworm.*{said}") as caught:
        changed = change_image(tmp_path / "image", with_packages)
        rebase_image(changed, other, destination=f"oci:{tmp_path}/out")
    assert "Build the image again" in caught.value.hint


def test_unknown_layers_of_an_image_without_annotations_count_as_packages(
    image: str, tmp_path: Path
) -> None:
    def forget(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer.pop("annotations", None)
        config["history"][3]["created_by"] = "kfp-bento: libgomp1 and two more"

    other = make_base(tmp_path / "other", debian="trixie")
    with pytest.raises(ImageError, match="Debian packages"):
        changed = change_image(tmp_path / "image", forget)
        rebase_image(changed, other, destination=f"oci:{tmp_path}/out")


def test_a_digest_and_an_index_have_no_tag_to_move(
    bento: Bento, image: str, new: str, oci_registry: str, tmp_path: Path
) -> None:
    copied = copy_image(image, f"{oci_registry}/pinned/tiny")
    with pytest.raises(InvalidInput, match="names a digest"):
        rebase_image(f"{oci_registry}/pinned/tiny@{copied.digest}", new)
    index = tmp_path / "image/index.json"
    listed = json.loads(index.read_bytes())
    own = parse_platform()
    platform = {"os": own.os, "architecture": own.architecture}
    inner = {**listed, "manifests": [{**listed["manifests"][0], "platform": platform}]}
    content = json.dumps(inner).encode()
    pushed = f"{oci_registry}/pinned/several"
    copy_image(image, f"{pushed}:single")
    Repository(parse_reference(pushed)).tag(descriptor_of(content, OCI_INDEX), content, "all")
    with pytest.raises(InvalidInput, match="several platforms"):
        rebase_image(f"{pushed}:all", new, platform=str(own))
    assert rebase_image(f"{pushed}:all", new, platform=str(own), tag="fixed").changed


def test_a_refusal_leaves_the_image_as_it_was(image: str, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", python="3.99.0")
    before = sorted(x.name for x in tmp_path.iterdir())
    index = (tmp_path / "image/index.json").read_bytes()
    with pytest.raises(ImageError):
        rebase_image(image, other)
    assert (tmp_path / "image/index.json").read_bytes() == index
    assert sorted(x.name for x in tmp_path.iterdir()) == before


def test_the_command_rebases_in_place(image: str, old: str, new: str) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["image", "rebase", image, "--base", new, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["digest"] == open_image(image).descriptor.digest
    again = runner.invoke(app, ["image", "rebase", image, "--base", new])
    assert "Nothing to do" in again.stdout
