"""What is said about an image: its bill of materials, its provenance, and how both are found."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kfp_bento.runtime.bentos import BentoModel
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.attestations.attachments import (
    PREDICATE_TYPE,
    attach,
    attachment_manifest,
    provenance_document,
    read_attachments,
    sbom_document,
)
from kfp_bento.runtime.images.attestations.image_build import ImageBuild, builder_version
from kfp_bento.runtime.images.attestations.provenance import (
    PREDICATE,
    STATEMENT_TYPE,
    ImageRebase,
    invocation_id,
    public_uri,
    rebase_provenance,
    slsa_provenance,
)
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE, cyclonedx_sbom, sbom_on_base
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.debian import DebianPackage
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    descriptor_from,
    parse_platform,
)
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.places.layout import LayoutSource, layout_sink
from kfp_bento.runtime.images.python.selection import Wheel
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

A, B, C, D, E = (x * 64 for x in "abcde")
WHEELS = (
    Wheel("foo-bar", "1!2.0+cpu.1", "foo_bar-1!2.0+cpu.1-py3-none-any.whl", A, 1),
    Wheel("greeter", "1.0", "greeter-1.0-py3-none-any.whl", B, 2),
)
DEBS = (
    DebianPackage("libstdc++6", "12.2.0-14+deb12u1", "amd64", C, 3, "libstdc++6.deb", "bookworm"),
    DebianPackage("base-files", "1:12.4~rc1", "all", D, 4, "1%3a12.4.deb", "bookworm"),
)
SIGNATURE = {
    "inputs": [{"name": "alcohol", "type": "double", "required": True}],
    "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}],
    "params": [{"name": "größe", "type": "long", "default": 1}],
}
ORIGIN = {"uri": "models:/wine@champion", "name": "wine", "version": "3", "run_id": "0a1b"}


def base_of(settings: dict[str, Any] | None, digest: str, architecture: str) -> BaseImage:
    config = {"architecture": architecture, "config": settings}
    return BaseImage("a base", digest, config, (), BlobDirectory(Path("nowhere")), "", "")


PYTHON = base_of({"Env": ["PYTHON_VERSION=3.11.9"]}, f"sha256:{B}", "amd64")
SLIM = base_of({"Labels": {"org.opencontainers.image.title": "slim"}}, f"sha256:{D}", "arm64")
HOST = base_of(None, "", "amd64")
BUILD = ImageBuild(
    repository="registry.example.com:5000/team/wine",
    digest=f"sha256:{A}",
    name="wine",
    version="0123456789abcdef",
    asked_base="python:3.11-slim",
    base=PYTHON,
    platform=Platform("linux", "amd64"),
    compression="zstd",
    format="1",
    epoch=315532800,
    bento_digest=f"sha256:{C}",
    wheels=WHEELS,
    debs=DEBS,
    models=(
        BentoModel(
            "wine:0123456789abcdef",
            f"sha256:{E}",
            {**ORIGIN, "flavors": ["sklearn", "python_function"], "signature": None},
        ),
        BentoModel("signed:1", f"sha256:{A}", {"signature": SIGNATURE}),
    ),
    builder="0.1.0",
)
EMPTY = replace(BUILD, base=HOST, asked_base="host", wheels=(), debs=(), models=(), bento_digest="")


def bill(document: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(document)
    return parsed


def violation(document: bytes) -> object:
    """What the official schema of CycloneDX 1.6 has against the document, or None."""
    pytest.importorskip("jsonschema", reason="cyclonedx-python-lib[json-validation] is missing")
    schema = pytest.importorskip("cyclonedx.schema", reason="cyclonedx-python-lib is missing")
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(document.decode())


@pytest.mark.parametrize(
    "made",
    [BUILD, EMPTY, replace(BUILD, base=HOST)],
    ids=["full", "empty", "no base"],
)
def test_the_bill_of_materials_fits_the_schema_of_cyclonedx(made: ImageBuild) -> None:
    assert violation(cyclonedx_sbom(made)) is None


def test_the_schema_would_notice_a_wrong_bill() -> None:
    wrong = cyclonedx_sbom(BUILD).replace(b'"SHA-256"', b'"SHA-255"')
    assert violation(wrong) is not None


def test_the_bill_lists_every_input_with_its_digest() -> None:
    components = {
        (item["type"], item["name"]): item for item in bill(cyclonedx_sbom(BUILD))["components"]
    }
    hashes = {
        key: item["hashes"][0]["content"] for key, item in components.items() if "hashes" in item
    }
    assert hashes == {
        ("library", "foo-bar"): A,
        ("library", "greeter"): B,
        ("library", "libstdc++6"): C,
        ("library", "base-files"): D,
        ("machine-learning-model", "wine"): E,
        ("machine-learning-model", "signed"): A,
        ("container", "python"): B,
    }
    assert ("application", "wine") in components
    wheel = components["library", "greeter"]
    assert wheel["externalReferences"][0]["url"] == "greeter-1.0-py3-none-any.whl"


def test_package_urls_are_written_the_canonical_way() -> None:
    packageurl = pytest.importorskip("packageurl", reason="cyclonedx-python-lib is missing")
    urls = {item["purl"] for item in bill(cyclonedx_sbom(BUILD))["components"] if "purl" in item}
    assert urls == {
        "pkg:pypi/foo-bar@1%212.0%2Bcpu.1",
        "pkg:pypi/greeter@1.0",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm",
        "pkg:deb/debian/base-files@1:12.4~rc1?arch=all&distro=bookworm",
        f"pkg:oci/python@sha256:{B}?arch=amd64",
    }
    for url in urls:
        assert packageurl.PackageURL.from_string(url).to_string() == url


def test_a_models_flavors_and_signature_are_in_the_bill() -> None:
    models = {
        item["name"]: item
        for item in bill(cyclonedx_sbom(BUILD))["components"]
        if item["type"] == "machine-learning-model"
    }
    flavors = [x["value"] for x in models["wine"]["properties"] if x["name"].endswith(":flavor")]
    assert flavors == ["python_function", "sklearn"]
    sides = models["signed"]["modelCard"]["modelParameters"]
    assert json.loads(sides["inputs"][0]["format"]) == SIGNATURE["inputs"][0]
    assert json.loads(sides["outputs"][0]["format"]) == SIGNATURE["outputs"][0]
    parameters = [x for x in models["signed"]["properties"] if x["name"].endswith(":parameters")]
    assert json.loads(parameters[0]["value"]) == SIGNATURE["params"]


def test_every_component_has_a_reference_of_its_own_and_the_image_depends_on_all() -> None:
    document = bill(cyclonedx_sbom(BUILD))
    references = [item["bom-ref"] for item in document["components"]]
    assert len(references) == len(set(references))
    image = document["metadata"]["component"]["bom-ref"]
    assert document["dependencies"] == [{"ref": image, "dependsOn": sorted(references)}]
    assert image not in references


def test_equal_content_gives_equal_bytes_and_other_content_another_serial_number() -> None:
    shuffled = replace(
        BUILD, wheels=WHEELS[::-1] + WHEELS[:1], debs=DEBS[::-1], models=BUILD.models[::-1]
    )
    assert cyclonedx_sbom(shuffled) == cyclonedx_sbom(BUILD)
    other = bill(cyclonedx_sbom(replace(BUILD, version="2")))
    assert other["serialNumber"] != bill(cyclonedx_sbom(BUILD))["serialNumber"]


def test_the_time_in_the_bill_is_that_of_the_image() -> None:
    document = bill(cyclonedx_sbom(replace(BUILD, epoch=1700000000)))
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_a_base_that_nobody_listed_leaves_the_bill_incomplete() -> None:
    whole, partial = (
        bill(cyclonedx_sbom(made))["compositions"] for made in (BUILD, replace(BUILD, base=HOST))
    )
    assert [item["aggregate"] for item in whole] == ["complete", "unknown"]
    assert [item["aggregate"] for item in partial] == ["incomplete"]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"Labels": {"org.opencontainers.image.title": "slim"}}, "slim"),
        ({"Env": ["PATH=/bin", "PYTHON_VERSION=3.11.9"]}, "python"),
        ({}, "base"),
        (None, "base"),
    ],
)
def test_a_base_is_called_what_it_calls_itself(settings: dict[str, Any] | None, name: str) -> None:
    base = base_of(settings, f"sha256:{A}", "arm64")
    (found,) = [
        item
        for item in bill(cyclonedx_sbom(replace(BUILD, base=base)))["components"]
        if item["type"] == "container"
    ]
    assert (found["name"], found["version"]) == (name, f"sha256:{A}")
    assert found["purl"] == f"pkg:oci/{name}@sha256:{A}?arch=arm64"


@pytest.mark.parametrize("before", [BUILD, replace(BUILD, base=HOST)], ids=["image", "host"])
@pytest.mark.parametrize("base", [SLIM, HOST], ids=["slim", "host"])
def test_a_bill_on_another_base_is_that_of_a_build_on_it(
    before: ImageBuild, base: BaseImage
) -> None:
    fresh = cyclonedx_sbom(replace(BUILD, base=base, builder=builder_version()))
    assert sbom_on_base(cyclonedx_sbom(before), base) == fresh


@pytest.mark.parametrize(
    "other",
    [
        cyclonedx_sbom(BUILD).replace(b"greeter", b"meeeter"),
        cyclonedx_sbom(BUILD) + b"\n",
        b'{"bomFormat": "CycloneDX", "components": []}',
        b'{"metadata": {"component": {}, "timestamp": 1, "tools": {"components": []}}}',
        b"[]",
        b"1",
        b"no JSON",
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_bill_that_is_not_ours_is_not_put_on_another_base(other: bytes) -> None:
    assert sbom_on_base(other, HOST) is None


# What follows checks a statement against the field tables of in-toto's Statement v1 and
# ResourceDescriptor v1 and of SLSA's provenance v1.

URI = re.compile(r"[a-z][a-z0-9+.-]*:\S+")


def check_fields(data: Any, *, required: set[str], optional: set[str] = frozenset()) -> None:
    assert isinstance(data, dict)
    assert required <= set(data) <= required | optional, sorted(data)
    assert all(value not in (None, "", [], {}) for value in data.values()), data


def check_digests(digests: Any) -> None:
    assert digests
    for algorithm, value in digests.items():
        assert algorithm == "sha256"
        assert re.fullmatch(r"[0-9a-f]{64}", value)


def check_resource(resource: dict[str, Any]) -> None:
    check_fields(
        resource,
        required=set(),
        optional={"name", "uri", "digest", "annotations", "mediaType", "downloadLocation"},
    )
    assert {"uri", "digest", "content"} & set(resource)
    if "digest" in resource:
        check_digests(resource["digest"])
    if "uri" in resource:
        assert URI.fullmatch(resource["uri"])
    # Extension fields carry the name of who gives them their meaning.
    assert all(re.fullmatch(r"[a-z]+_[a-zA-Z]+", x) for x in resource.get("annotations", {}))


def check_statement(statement: dict[str, Any]) -> None:
    check_fields(statement, required={"_type", "subject", "predicateType", "predicate"})
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    for subject in statement["subject"]:
        check_resource(subject)
        assert subject["digest"]
    predicate = statement["predicate"]
    check_fields(predicate, required={"buildDefinition", "runDetails"})
    definition = predicate["buildDefinition"]
    check_fields(
        definition,
        required={"buildType", "externalParameters"},
        optional={"internalParameters", "resolvedDependencies"},
    )
    assert URI.fullmatch(definition["buildType"])
    external, internal = definition["externalParameters"], definition["internalParameters"]
    assert not set(external) & set(internal)
    assert all(isinstance(value, str) for value in (external | internal).values())
    for resource in definition["resolvedDependencies"]:
        check_resource(resource)
    details = predicate["runDetails"]
    check_fields(details, required={"builder"}, optional={"metadata", "byproducts"})
    check_fields(details["builder"], required={"id"}, optional={"version", "builderDependencies"})
    assert URI.fullmatch(details["builder"]["id"])
    metadata = details.get("metadata", {"invocationId": "-"})
    check_fields(metadata, required={"invocationId"})


@pytest.mark.parametrize(
    "made",
    [
        BUILD,
        replace(BUILD, invocation="kfp/pod/1"),
        EMPTY,
    ],
    ids=["full", "named", "bare"],
)
def test_the_provenance_follows_in_toto_and_slsa(made: ImageBuild) -> None:
    check_statement(json.loads(slsa_provenance(made)))


REBASE = ImageRebase(
    repository=BUILD.repository,
    digest=f"sha256:{D}",
    image="oci:/home/me/image",
    image_digest=f"sha256:{A}",
    base=BUILD.asked_base,
    base_digest=PYTHON.digest,
    platform=BUILD.platform,
    format="1",
)


@pytest.mark.parametrize(
    "made",
    [REBASE, replace(REBASE, base="host", base_digest="", invocation="kfp/pod/1")],
    ids=["full", "host"],
)
def test_the_provenance_of_a_rebase_follows_in_toto_and_slsa(made: ImageRebase) -> None:
    check_statement(json.loads(rebase_provenance(made)))


def test_the_provenance_of_a_rebase_names_both_images_and_no_directory() -> None:
    statement = rebase_provenance(REBASE)
    definition = json.loads(statement)["predicate"]["buildDefinition"]
    assert definition["buildType"] == "urn:kfp-bento:image-rebase:v1"
    assert definition["externalParameters"]["image"] == "oci"
    found = {x["name"]: x["digest"]["sha256"] for x in definition["resolvedDependencies"]}
    assert found == {"image": A, "base": B}
    assert b"/home/me" not in statement


def test_the_provenance_names_the_image_and_all_that_went_into_it() -> None:
    statement = json.loads(slsa_provenance(BUILD))
    assert statement["subject"] == [{"name": BUILD.repository, "digest": {"sha256": A}}]
    dependencies = {
        item["name"]: item
        for item in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert {name: item["digest"]["sha256"] for name, item in dependencies.items()} == {
        "bento": C,
        "base": B,
        "foo_bar-1!2.0+cpu.1-py3-none-any.whl": A,
        "greeter-1.0-py3-none-any.whl": B,
        "libstdc++6_12.2.0-14+deb12u1_amd64.deb": C,
        "base-files_12.4~rc1_all.deb": D,
        "model wine:0123456789abcdef": E,
        "model signed:1": A,
    }
    assert dependencies["base"]["uri"] == (
        f"pkg:oci/python@sha256:{B}?arch=amd64"
        "&repository_url=docker.io/library/python&tag=3.11-slim"
    )
    model = dependencies["model wine:0123456789abcdef"]
    assert model["uri"] == "pkg:mlflow/wine@3?run_id=0a1b"
    assert model["annotations"] == {
        "mlflow_uri": "models:/wine@champion",
        "mlflow_registeredName": "wine",
        "mlflow_registeredVersion": "3",
        "mlflow_runId": "0a1b",
    }
    assert "annotations" not in dependencies["model signed:1"]


def test_no_credentials_get_into_the_provenance() -> None:
    uri = "https://me:hunter2@mlflow.example.com/base?token=hunter2#hunter2"
    model = BentoModel("wine:1", f"sha256:{A}", {**ORIGIN, "uri": uri})
    statement = slsa_provenance(replace(BUILD, models=(model,)))
    assert b"https://mlflow.example.com/base" in statement
    assert b"hunter2" not in statement
    assert b"me:" not in statement


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("models:/wine/3", "models:/wine/3"),
        ("models:/wine@champion", "models:/wine@champion"),
        ("runs:/0a1b/model", "runs:/0a1b/model"),
        ("s3://key:secret@bucket/models/wine?sig=secret", "s3://bucket/models/wine"),
        ("mysql+pymysql://me:secret@db:3306/mlflow", "mysql+pymysql://db:3306/mlflow"),
        ("http://a:b@c:d@host:5000#secret", "http://host:5000"),
        ("sqlite:////home/me/mlflow.db", "sqlite:mlflow.db"),
        ("file:///home/me/models/wine/", "file:wine"),
        ("/home/me/models/wine", "wine"),
        ("http://[secret", ""),
        ("", ""),
    ],
)
def test_a_uri_is_shown_without_secrets_and_without_paths_of_a_machine(
    uri: str, shown: str
) -> None:
    assert public_uri(uri) == shown


@pytest.mark.parametrize("asked", ["oci:/home/me/base", "oci:base:3.11", "docker-archive:/a.tar"])
def test_a_directory_that_the_base_was_read_from_stays_unsaid(asked: str) -> None:
    statement = json.loads(slsa_provenance(replace(BUILD, asked_base=asked)))
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["base"] == asked.partition(":")[0]
    assert f"pkg:oci/base@sha256:{B}?arch=amd64" in {
        item["uri"] for item in definition["resolvedDependencies"]
    }


def test_equal_builds_give_equal_provenance_and_no_clock_gets_in() -> None:
    shuffled = replace(BUILD, wheels=WHEELS[::-1], debs=DEBS[::-1], models=BUILD.models[::-1])
    assert slsa_provenance(shuffled) == slsa_provenance(BUILD)
    details = json.loads(slsa_provenance(BUILD))["predicate"]["runDetails"]
    assert "metadata" not in details


def test_the_task_of_the_pipeline_is_named_where_there_is_one() -> None:
    assert invocation_id({}) == ""
    assert invocation_id({"KFP_POD_UID": "u-1"}) == "kfp/pod/u-1"
    assert invocation_id({"KFP_POD_UID": "u-1", "KFP_RUN_ID": "r-1"}) == "kfp/run/r-1/pod/u-1"


def test_an_attachment_is_an_artifact_that_names_its_subject() -> None:
    subject = Descriptor(OCI_MANIFEST, f"sha256:{A}", 7)
    content = Descriptor(STATEMENT_TYPE, f"sha256:{B}", 9)
    manifest, text = attachment_manifest(
        subject, STATEMENT_TYPE, content, {PREDICATE_TYPE: PREDICATE}, filename="p.json"
    )
    assert manifest == Descriptor(
        OCI_MANIFEST, f"sha256:{hashlib.sha256(text).hexdigest()}", len(text)
    )
    named = {PREDICATE_TYPE: PREDICATE}
    assert json.loads(text) == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": STATEMENT_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
            "size": 2,
        },
        "layers": [
            {
                **content.to_dict(),
                "annotations": {**named, "org.opencontainers.image.title": "p.json"},
            }
        ],
        "annotations": named,
        "subject": subject.to_dict(),
    }


SBOM = cyclonedx_sbom(BUILD)


def copy_of(layout: Path, target: Path, *documents: Any) -> Descriptor:
    """Writes a layout's image to another one, with documents attached; gives its manifest."""
    source, blobs = LayoutSource(layout), BlobDirectory(layout)
    manifest = source.find()
    text = b"".join(source.open_blob(manifest))
    parsed = json.loads(text)
    with layout_sink(target) as sink:
        for item in (parsed["config"], *parsed["layers"]):
            sink.put_blob(descriptor_from(item), blobs)
        sink.put_manifest(manifest, text)
        attach(sink, sink.blobs, manifest, documents)
        sink.tag(manifest, text, "v1")
    return manifest


def strip(built: Path, plain: Path) -> None:
    """A copy of a layout without what its builder attached."""
    shutil.copytree(built, plain)
    index = json.loads((plain / "index.json").read_bytes())
    index["manifests"] = [item for item in index["manifests"] if "artifactType" not in item]
    (plain / "index.json").write_text(json.dumps(index))


@pytest.fixture
def attached(bento: Bento, base: str, tmp_path: Path) -> tuple[Path, Descriptor]:
    """A layout whose image has both documents attached, and the image's manifest."""
    build_image(bento, f"oci:{tmp_path}/built", ImageOptions(base=base))
    strip(tmp_path / "built", tmp_path / "plain")
    manifest = LayoutSource(tmp_path / "plain").find()
    statement = slsa_provenance(replace(BUILD, digest=manifest.digest))
    documents = (sbom_document(SBOM), provenance_document(statement))
    return tmp_path / "out", copy_of(tmp_path / "plain", tmp_path / "out", *documents)


@pytest.mark.parametrize("tag", ["", ":v1"])
def test_attachments_of_a_layout_are_found(attached: tuple[Path, Descriptor], tag: str) -> None:
    layout, manifest = attached
    assert read_attachments(f"oci:{layout}{tag}", SBOM_TYPE) == (SBOM,)
    found = read_attachments(f"oci:{layout}{tag}", STATEMENT_TYPE, predicate=PREDICATE)
    assert [json.loads(x)["subject"][0]["digest"]["sha256"] for x in found] == [manifest.digest[7:]]
    assert read_attachments(f"oci:{layout}{tag}", STATEMENT_TYPE, predicate="other") == ()


def test_an_image_keeps_its_digest_with_attachments(
    attached: tuple[Path, Descriptor], tmp_path: Path
) -> None:
    assert attached[1] == LayoutSource(tmp_path / "plain").find()
    assert read_attachments(f"oci:{tmp_path}/plain", SBOM_TYPE) == ()


def test_attaching_the_same_again_changes_nothing(
    attached: tuple[Path, Descriptor], tmp_path: Path
) -> None:
    layout, manifest = attached
    statement = slsa_provenance(replace(BUILD, digest=manifest.digest))
    before = layout.stat().st_ino
    copy_of(tmp_path / "plain", layout, sbom_document(SBOM), provenance_document(statement))
    assert layout.stat().st_ino == before


def test_what_is_about_another_image_is_not_taken_for_this_ones(
    attached: tuple[Path, Descriptor],
) -> None:
    layout, _ = attached
    index = json.loads((layout / "index.json").read_bytes())
    stranger = json.dumps({"subject": {"digest": f"sha256:{A}"}}).encode()
    (layout / "index.json").write_text(
        json.dumps(
            {
                **index,
                "manifests": [
                    index["manifests"][0],
                    {
                        **BlobDirectory(layout).put_bytes(stranger, OCI_MANIFEST).to_dict(),
                        "artifactType": SBOM_TYPE,
                    },
                ],
            }
        )
    )
    assert read_attachments(f"oci:{layout}", SBOM_TYPE) == ()


def test_an_archive_is_said_to_carry_no_documents(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.tar carries no documents"):
        read_attachments(f"docker-archive:{tmp_path}/a.tar", SBOM_TYPE)


def test_of_several_platforms_one_is_chosen(
    attached: tuple[Path, Descriptor], tmp_path: Path
) -> None:
    layout, manifest = attached
    listed = json.loads((layout / "index.json").read_bytes())
    own = parse_platform()
    other = "linux/arm64" if own.architecture == "amd64" else "linux/amd64"
    item = manifest.to_dict() | {"platform": {"os": own.os, "architecture": own.architecture}}
    inner = json.dumps({"schemaVersion": 2, "manifests": [item]}).encode()
    index = BlobDirectory(layout).put_bytes(inner, OCI_INDEX).to_dict()
    documents = [x for x in listed["manifests"] if "artifactType" in x]
    (layout / "index.json").write_text(json.dumps({**listed, "manifests": [index, *documents]}))
    for platform in ("", str(own)):
        assert read_attachments(f"oci:{layout}", SBOM_TYPE, platform=platform) == (SBOM,)
    assert command("sbom", f"oci:{layout}", "--platform", str(own)).stdout == SBOM + b"\n"
    with pytest.raises(ImageError, match=f"no image for {other}, only for {own}"):
        read_attachments(f"oci:{layout}", SBOM_TYPE, platform=other)
    refused = command("provenance", f"oci:{layout}", "--platform", other)
    assert refused.returncode == 2
    assert f"no image for {other}".encode() in refused.stderr
    with pytest.raises(ImageError, match=f"no image for {other}"):
        read_attachments(f"oci:{tmp_path}/plain", SBOM_TYPE, platform=other)


def test_a_document_that_was_tampered_with_is_refused(attached: tuple[Path, Descriptor]) -> None:
    layout, _ = attached
    blob = layout / "blobs/sha256" / hashlib.sha256(SBOM).hexdigest()
    blob.write_bytes(SBOM.replace(b"greeter", b"meeeter"))
    with pytest.raises(ImageError, match="gave bytes that are not"):
        read_attachments(f"oci:{layout}", SBOM_TYPE)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_skopeo_copies_an_image_whose_layout_holds_attachments(
    attached: tuple[Path, Descriptor], tmp_path: Path
) -> None:
    layout, manifest = attached
    skopeo = tool("skopeo")
    shown = subprocess.run([skopeo, "inspect", f"oci:{layout}:v1"], check=True, capture_output=True)
    assert json.loads(shown.stdout)["Digest"] == manifest.digest
    subprocess.run(
        [skopeo, "copy", "--preserve-digests", f"oci:{layout}:v1", f"dir:{tmp_path}/copy"],
        check=True,
        capture_output=True,
    )
    copied = (tmp_path / "copy/manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(copied).hexdigest()}" == manifest.digest


def test_umoci_lists_an_image_whose_layout_holds_attachments(
    attached: tuple[Path, Descriptor],
) -> None:
    listed = subprocess.run(
        [tool("umoci"), "list", "--layout", attached[0]], check=True, capture_output=True, text=True
    )
    assert listed.stdout.split() == ["v1"]


def test_podman_pulls_an_image_whose_layout_holds_attachments(
    attached: tuple[Path, Descriptor], podman: list[str]
) -> None:
    layout, manifest = attached
    pulled = subprocess.run(
        [*podman, "pull", "--quiet", f"oci:{layout}:v1"], check=True, capture_output=True, text=True
    )
    shown = subprocess.run(
        [*podman, "image", "inspect", pulled.stdout.strip()], check=True, capture_output=True
    )
    assert json.loads(shown.stdout)[0]["Digest"] == manifest.digest


def push(layout: Path, name: str) -> tuple[Repository, Descriptor]:
    """Sends a layout's image to a registry, without its attachments."""
    repository = Repository(parse_reference(name))
    source = LayoutSource(layout)
    manifest = source.find()
    text = b"".join(source.open_blob(manifest))
    parsed = json.loads(text)
    for item in (parsed["config"], *parsed["layers"]):
        repository.put_blob(descriptor_from(item), BlobDirectory(layout))
    repository.put_manifest(manifest, text)
    repository.tag(manifest, text, "v1")
    return repository, manifest


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.mark.usefixtures("no_login")
def test_attachments_listed_under_the_fallback_tag_are_found(
    bento: Bento, base: str, oci_registry: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/plain", ImageOptions(base=base))
    name = f"{oci_registry}/attached/by-hand"
    repository, manifest = push(tmp_path / "plain", name)
    assert read_attachments(f"{name}:v1", SBOM_TYPE) == ()
    (artifact,) = attach(
        repository, BlobDirectory(tmp_path / "work"), manifest, [sbom_document(SBOM)]
    )
    entry = {**artifact.to_dict(), "artifactType": SBOM_TYPE}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    digest = f"sha256:{hashlib.sha256(index).hexdigest()}"
    fallback = Descriptor(OCI_INDEX, digest, len(index))
    repository.tag(fallback, index, manifest.digest.replace(":", "-"))
    assert read_attachments(f"{name}:v1", SBOM_TYPE) == (SBOM,)
    assert read_attachments(f"{name}@{manifest.digest}", SBOM_TYPE) == (SBOM,)


@pytest.mark.usefixtures("no_login")
@pytest.mark.skipif(
    not hasattr(Repository, "referrers"), reason="this registry client keeps no list of referrers"
)
def test_attachments_of_a_registry_are_found_and_not_sent_twice(
    bento: Bento, base: str, oci_registry: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/plain", ImageOptions(base=base))
    name = f"{oci_registry}/attached/tiny"
    repository, manifest = push(tmp_path / "plain", name)
    statement = slsa_provenance(replace(BUILD, digest=manifest.digest))
    documents = [sbom_document(SBOM), provenance_document(statement)]
    first = attach(repository, BlobDirectory(tmp_path / "one"), manifest, documents)
    assert read_attachments(f"{name}:v1", SBOM_TYPE) == (SBOM,)
    assert read_attachments(f"{name}:v1", STATEMENT_TYPE, predicate=PREDICATE) == (statement,)
    again = attach(repository, BlobDirectory(tmp_path / "two"), manifest, documents)
    assert again == first
    assert not (tmp_path / "two").exists()


@pytest.mark.usefixtures("no_login")
def test_an_image_that_a_registry_does_not_know_has_no_attachments(oci_registry: str) -> None:
    with pytest.raises(ImageError, match="nobody:v1: HTTP 404"):
        read_attachments(f"{oci_registry}/attached/nobody:v1", SBOM_TYPE)


def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "kfp_bento.runtime.cli", "image", *arguments],
        capture_output=True,
        check=False,
    )


def test_the_command_prints_the_documents(attached: tuple[Path, Descriptor]) -> None:
    layout, manifest = attached
    assert command("sbom", f"oci:{layout}:v1").stdout == SBOM + b"\n"
    done = command("provenance", f"oci:{layout}")
    check_statement(json.loads(done.stdout))
    assert manifest.digest[7:].encode() in done.stdout


def test_the_command_says_when_there_is_nothing(bento: Bento, base: str, tmp_path: Path) -> None:
    build_image(bento, f"oci:{tmp_path}/built", ImageOptions(base=base))
    strip(tmp_path / "built", tmp_path / "plain")
    done = command("sbom", f"oci:{tmp_path}/plain")
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"No bill of materials is attached" in done.stderr
