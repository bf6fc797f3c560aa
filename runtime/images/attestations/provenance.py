"""How an image came about: an in-toto statement with SLSA provenance.

Statement v1 (in-toto attestation framework), predicate v1 (SLSA specification 1.0). It holds what
is kept out of the image because it is no content: where the models came from, what the base was
called, which run built it. It is not signed; sign the manifest that attaches it.

The build type `urn:kfp-bento:image-build:v1` stands for `build_image`. Its external parameters
are what the caller chose: `bento` (name and version), `base`, `platform`, `compression`
and `repository`. `base` and `repository` are never directories: an OCI layout directory is
just `oci`. The resolved dependencies are named `bento`, `base`, by the file name of a wheel
or package, and `model NAME:VERSION`. The digest of a bento or a model is its content digest, over
the names and digests of its files; all others are digests of single files. `internalParameters`
has `format`, which changes when the same input no longer gives the same bytes, and
`reusedOnTheWordOfTheRegistry` with the digests of layers that a record without a seal names.

The build type `urn:kfp-bento:image-rebase:v1` stands for `rebase_image`. Its external parameters
are `image` (what was put on another base), `base` (the new one), `platform` and
`repository`, with directories as above. The resolved dependencies are named `image` and
`base`. What else is in the result was in that image, whose own provenance says where it is from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kfp_bento.runtime.images.attestations.image_build import (
    DISTRIBUTION,
    ImageBuild,
    builder_version,
    deb_url,
    package_url,
    unique,
    wheel_url,
)
from kfp_bento.runtime.images.oci.config import canonical_json
from kfp_bento.runtime.images.oci.reference import parse_source

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoModel
    from kfp_bento.runtime.images.debian import DebianPackage
    from kfp_bento.runtime.images.oci.image import Platform

STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:kfp-bento:image-build:v1"
REBASE_TYPE = "urn:kfp-bento:image-rebase:v1"
# Whoever trusts builds tells builders apart by this.
BUILDER = "urn:kfp-bento:builder"

# Where the path is a name on a server, and not a place on some machine's disk.
_LOGICAL = {"models", "runs", "mlflow-artifacts"}


@dataclass(frozen=True)
class ImageRebase:
    """One image that was put on another base.

    Attributes:
        repository: The repository that the result is known by; never a directory.
        digest: Digest of the result's manifest.
        image: The image that was put on another base, as it was asked for.
        image_digest: What that was resolved to.
        base: The new base, as it was asked for.
        base_digest: What that was resolved to; empty for `host`.
        platform: For which it is.
        format: Version of the image format that kfp-bento writes.
        invocation: See `ImageBuild`.
        builder: Version of kfp-bento.
    """

    repository: str
    digest: str
    image: str
    image_digest: str
    base: str
    base_digest: str
    platform: Platform
    format: str
    invocation: str = ""
    builder: str = field(default_factory=builder_version)


def slsa_provenance(build: ImageBuild) -> bytes:
    """Write the statement as JSON; the same bytes for the same build.

    No credentials and no path of this machine get into it, whatever the build holds.
    """
    parameters = {
        "bento": f"{build.name}:{build.version}",
        "base": _without_directory(build.asked_base),
        "platform": str(build.platform),
        "compression": build.compression,
        "repository": build.repository,
    }
    internal: dict[str, Any] = {"format": build.format}
    if build.unverified_layers:
        internal["reusedOnTheWordOfTheRegistry"] = sorted(build.unverified_layers)
    return _statement(build, BUILD_TYPE, parameters, internal, _dependencies(build))


def rebase_provenance(rebase: ImageRebase) -> bytes:
    """Write the statement about an image on another base, as above."""
    parameters = {
        "image": _without_directory(rebase.image),
        "base": _without_directory(rebase.base),
        "platform": str(rebase.platform),
        "repository": rebase.repository,
    }
    found = [
        *_image("image", rebase.image, rebase.image_digest, rebase.platform),
        *_image("base", rebase.base, rebase.base_digest, rebase.platform),
    ]
    internal = {"format": rebase.format}
    return _statement(rebase, REBASE_TYPE, parameters, internal, sorted(found, key=canonical_json))


def _statement(
    build: ImageBuild | ImageRebase,
    build_type: str,
    parameters: Mapping[str, str],
    internal: Mapping[str, Any],
    dependencies: Sequence[Mapping[str, Any]],
) -> bytes:
    run: dict[str, Any] = {"builder": {"id": BUILDER, "version": {DISTRIBUTION: build.builder}}}
    if build.invocation:
        run["metadata"] = {"invocationId": build.invocation}
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": build.repository, "digest": _digest_set(build.digest)}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": parameters,
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": run,
        },
    }
    return canonical_json(statement)


def invocation_id(environment: Mapping[str, str]) -> str:
    """Give what names the task of Kubeflow Pipelines that this process is, or an empty string.

    Args:
        environment: The process's environment. Kubeflow Pipelines sets `KFP_POD_UID` in the
            pod of every task; `KFP_RUN_ID` is there where the pipeline puts it there.
    """
    names = {"run": "KFP_RUN_ID", "pod": "KFP_POD_UID"}
    found = {kind: environment.get(name, "") for kind, name in names.items()}
    parts = [f"{kind}/{value}" for kind, value in found.items() if value]
    return "/".join(["kfp", *parts]) if parts else ""


def public_uri(uri: str) -> str:
    """Give a URI without what is nobody's business: user, password, query, fragment, local path.

    `models:/wine/3` stays as it is; of `sqlite:////home/me/mlflow.db` remains
    `sqlite:mlflow.db`.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        # What cannot be taken apart cannot be shown to hold no password.
        return ""
    if parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    if parts.scheme in _LOGICAL:
        return f"{parts.scheme}:{parts.path}"
    name = parts.path.rstrip("/").rpartition("/")[2]
    return f"{parts.scheme}:{name}" if parts.scheme else name


def _dependencies(build: ImageBuild) -> list[dict[str, Any]]:
    bento = package_url("generic", build.name, build.version)
    found = [
        _resource("bento", bento, build.bento_digest),
        *(_resource(item.filename, wheel_url(item), item.sha256) for item in unique(build.wheels)),
        *(_resource(_deb_name(item), deb_url(item), item.sha256) for item in unique(build.debs)),
        *(_model(model) for model in build.models),
        *_image("base", build.asked_base, build.base.digest, build.platform),
    ]
    return sorted(found, key=canonical_json)


def _image(kind: str, asked: str, digest: str, platform: Platform) -> Iterator[dict[str, Any]]:
    """Give an image that another one is made of; nothing for one made of this machine."""
    if not digest:
        return
    source = parse_source(asked)
    name, qualifiers = kind, {"arch": platform.architecture}
    if source.registry:
        repository = source.known_as("")
        name = repository.rpartition("/")[2]
        qualifiers |= {"repository_url": repository, "tag": source.tag}
    yield _resource(kind, package_url("oci", name, digest, qualifiers), digest)


def _deb_name(deb: DebianPackage) -> str:
    # The archive's file names have no epoch.
    return f"{deb.name}_{deb.version.rpartition(':')[2]}_{deb.architecture}.deb"


def _model(model: BentoModel) -> dict[str, Any]:
    name, _, version = model.tag.partition(":")
    origin = model.provenance
    registered, run = str(origin.get("name", "")), str(origin.get("run_id", ""))
    said = {
        "mlflow_uri": public_uri(str(origin.get("uri", ""))),
        "mlflow_registeredName": registered,
        "mlflow_registeredVersion": str(origin.get("version", "")),
        "mlflow_runId": run,
    }
    url = package_url("generic", name, version)
    if registered:
        url = package_url("mlflow", registered, said["mlflow_registeredVersion"], {"run_id": run})
    found = _resource(f"model {model.tag}", url, model.digest)
    annotations = {key: value for key, value in said.items() if value}
    return {**found, "annotations": annotations} if annotations else found


def _resource(name: str, uri: str, digest: str) -> dict[str, Any]:
    """Give an in-toto resource descriptor."""
    found: dict[str, Any] = {"name": name, "uri": uri}
    return {**found, "digest": _digest_set(digest)} if digest else found


def _digest_set(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _without_directory(base: str) -> str:
    """Give the base as it was asked for; of a directory or file only what kind it is."""
    kind = base.partition(":")[0]
    return kind if kind in {"oci", "docker-archive"} else base
