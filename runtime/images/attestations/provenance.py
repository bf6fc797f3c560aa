"""How an image came about: an in-toto statement with SLSA provenance.

Statement v1 (in-toto attestation framework), predicate v1 (SLSA specification 1.0). It holds what
is kept out of the image because it is no content: where the models came from, what the base was
called, which run built it. It is not signed; sign the manifest that attaches it.

The build type ``urn:kfp-bento:image-build:v1`` stands for `build_image`. Its external parameters
are what the caller chose: ``bento`` (name and version), ``base``, ``platform``, ``compression``
and ``repository``. ``base`` and ``repository`` are never directories: an OCI layout directory is
just ``oci``. The resolved dependencies are named ``bento``, ``base``, by the file name of a wheel
or package, and ``model NAME:VERSION``. The digest of a bento or a model is its content digest, over
the names and digests of its files; all others are digests of single files. ``internalParameters``
has ``format``, which changes when the same input no longer gives the same bytes, and
``reusedOnTheWordOfTheRegistry`` with the digests of layers that a record without a seal names.

The build type ``urn:kfp-bento:image-rebase:v1`` stands for `rebase_image`. Its external parameters
are ``image`` (what was put on another base), ``base`` (the new one), ``platform`` and
``repository``, with directories as above. The resolved dependencies are named ``image`` and
``base``. What else is in the result was in that image, whose own provenance says where it is from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.images.attestations.sbom import (
    DISTRIBUTION,
    DebFact,
    WheelFact,
    builder_version,
    package_url,
)
from kfp_bento.runtime.images.oci.config import canonical_json, timestamp

STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:kfp-bento:image-build:v1"
REBASE_TYPE = "urn:kfp-bento:image-rebase:v1"
# Whoever trusts builds tells builders apart by this; a site may give its own.
BUILDER = "urn:kfp-bento:builder"

# Where the path is a name on a server, and not a place on some machine's disk.
_LOGICAL = {"models", "runs", "mlflow-artifacts"}


@dataclass(frozen=True)
class ModelOrigin:
    """Where a model came from.

    Attributes:
        name: Name in the bento.
        version: Version in the bento.
        digest: Content digest, ``sha256:…``; empty if unknown.
        uri: The model URI as it was asked for, such as ``models:/wine@champion``.
        registered_name: Name in the model registry.
        registered_version: Version in the model registry.
        run_id: The MLflow run that logged it.
        tracking_server: The MLflow server; credentials and query are cut off.
    """

    name: str
    version: str
    digest: str
    uri: str = ""
    registered_name: str = ""
    registered_version: str = ""
    run_id: str = ""
    tracking_server: str = ""


@dataclass(frozen=True)
class BaseOrigin:
    """Where an image came from that another one is made of: a base, or what gets a new one.

    Attributes:
        asked: What was asked for: a reference, ``oci:…``, ``docker-archive:…`` or ``host``.
        digest: Digest of the manifest it was resolved to; empty for ``host``.
        repository: ``host/path`` of the registry it was read from; empty for a directory.
        tag: The tag that was resolved, if one was.
        architecture: Its processor, in the words of the image specification.
    """

    asked: str
    digest: str = ""
    repository: str = ""
    tag: str = ""
    architecture: str = ""


@dataclass(frozen=True)
class ImageBuild:
    """One build of one image.

    Attributes:
        repository: The repository that the image is known by; never a directory.
        digest: Digest of the image's manifest.
        bento: The bento's ``name:version``.
        bento_digest: Content digest of the bento, ``sha256:…``; may be empty.
        base: The base image.
        platform: Such as ``linux/amd64``.
        compression: ``zstd``, ``gzip`` or ``none``.
        format: Version of the image format that the builder writes.
        wheels: The wheels that were installed.
        debs: The Debian packages that were unpacked.
        models: The models' origins.
        unverified: Digests of layers that were reused on the word of the registry: nobody here
            has seen that the wheels and packages are what they hold.
        invocation: What names this run of the build to people, globally unique; may be empty.
        started: Seconds since 1970; None leaves the statement free of a clock.
        finished: Seconds since 1970; None leaves it out.
        builder_id: A URI for the platform that builds are trusted to.
        builder: Version of kfp-bento.
    """

    repository: str
    digest: str
    bento: str
    base: BaseOrigin
    platform: str
    compression: str
    format: str
    bento_digest: str = ""
    wheels: tuple[WheelFact, ...] = ()
    debs: tuple[DebFact, ...] = ()
    models: tuple[ModelOrigin, ...] = ()
    unverified: tuple[str, ...] = ()
    invocation: str = ""
    started: int | None = None
    finished: int | None = None
    builder_id: str = BUILDER
    builder: str = field(default_factory=builder_version)


@dataclass(frozen=True)
class ImageRebase:
    """One image that was put on another base.

    Attributes:
        repository: The repository that the result is known by; never a directory.
        digest: Digest of the result's manifest.
        image: The image as it was.
        base: The new base.
        platform: Such as ``linux/amd64``.
        format: Version of the image format that kfp-bento writes.
        invocation: See `ImageBuild`, as for all that follows.
    """

    repository: str
    digest: str
    image: BaseOrigin
    base: BaseOrigin
    platform: str
    format: str
    invocation: str = ""
    started: int | None = None
    finished: int | None = None
    builder_id: str = BUILDER
    builder: str = field(default_factory=builder_version)


def slsa_provenance(build: ImageBuild) -> bytes:
    """Writes the statement as JSON; the same bytes for the same build.

    No credentials and no path of this machine get into it, whatever the build holds.
    """
    parameters = {
        "bento": build.bento,
        "base": _without_directory(build.base.asked),
        "platform": build.platform,
        "compression": build.compression,
        "repository": build.repository,
    }
    internal: dict[str, Any] = {"format": build.format}
    if build.unverified:
        internal["reusedOnTheWordOfTheRegistry"] = sorted(build.unverified)
    return _statement(build, BUILD_TYPE, parameters, internal, _dependencies(build))


def rebase_provenance(rebase: ImageRebase) -> bytes:
    """Writes the statement about an image on another base, as above."""
    parameters = {
        "image": _without_directory(rebase.image.asked),
        "base": _without_directory(rebase.base.asked),
        "platform": rebase.platform,
        "repository": rebase.repository,
    }
    found = [_resource("image", _image_url(rebase.image, "image"), rebase.image.digest)]
    if rebase.base.digest:
        found.append(_resource("base", _image_url(rebase.base, "base"), rebase.base.digest))
    internal = {"format": rebase.format}
    return _statement(rebase, REBASE_TYPE, parameters, internal, sorted(found, key=canonical_json))


def _statement(
    build: ImageBuild | ImageRebase,
    build_type: str,
    parameters: Mapping[str, str],
    internal: Mapping[str, Any],
    dependencies: Sequence[Mapping[str, Any]],
) -> bytes:
    run: dict[str, Any] = {
        "builder": {"id": build.builder_id, "version": {DISTRIBUTION: build.builder}}
    }
    if metadata := _metadata(build):
        run["metadata"] = metadata
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
    """What names the task of Kubeflow Pipelines that this process is, or an empty string.

    Args:
        environment: The process's environment. Kubeflow Pipelines sets ``KFP_POD_UID`` in the
            pod of every task; ``KFP_RUN_ID`` is there where the pipeline puts it there.
    """
    names = {"run": "KFP_RUN_ID", "pod": "KFP_POD_UID"}
    found = {kind: environment.get(name, "") for kind, name in names.items()}
    parts = [f"{kind}/{value}" for kind, value in found.items() if value]
    return "/".join(["kfp", *parts]) if parts else ""


def public_uri(uri: str) -> str:
    """A URI without what is nobody's business: user, password, query, fragment, local path.

    ``models:/wine/3`` stays as it is; of ``sqlite:////home/me/mlflow.db`` remains
    ``sqlite:mlflow.db``.
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


def _metadata(build: ImageBuild | ImageRebase) -> dict[str, str]:
    facts = {"invocationId": build.invocation}
    if build.started is not None:
        facts["startedOn"] = timestamp(build.started)
    if build.finished is not None:
        facts["finishedOn"] = timestamp(build.finished)
    return {name: value for name, value in facts.items() if value}


def _dependencies(build: ImageBuild) -> list[dict[str, Any]]:
    name, _, version = build.bento.partition(":")
    found = [
        _resource("bento", package_url("generic", name, version), build.bento_digest),
        *(_resource(wheel.filename, wheel.purl, wheel.sha256) for wheel in set(build.wheels)),
        *(_resource(_deb_name(deb), deb.purl, deb.sha256) for deb in set(build.debs)),
        *(_model(model) for model in build.models),
    ]
    if build.base.digest:
        found.append(_resource("base", _image_url(build.base, "base"), build.base.digest))
    return sorted(found, key=canonical_json)


def _image_url(image: BaseOrigin, unnamed: str) -> str:
    name = image.repository.rpartition("/")[2] or unnamed
    qualifiers = {
        "arch": image.architecture,
        "repository_url": image.repository,
        "tag": image.tag,
    }
    return package_url("oci", name, image.digest, qualifiers)


def _deb_name(deb: DebFact) -> str:
    # The archive's file names have no epoch.
    return f"{deb.name}_{deb.version.rpartition(':')[2]}_{deb.architecture}.deb"


def _model(model: ModelOrigin) -> dict[str, Any]:
    tag = f"{model.name}:{model.version}"
    origin = {
        "mlflow_uri": public_uri(model.uri),
        "mlflow_registeredName": model.registered_name,
        "mlflow_registeredVersion": model.registered_version,
        "mlflow_runId": model.run_id,
        "mlflow_trackingServer": public_uri(model.tracking_server),
    }
    annotations = {key: value for key, value in origin.items() if value}
    found = _resource(f"model {tag}", _model_url(model), model.digest)
    return {**found, "annotations": annotations} if annotations else found


def _model_url(model: ModelOrigin) -> str:
    if not model.registered_name:
        return package_url("generic", model.name, model.version)
    qualifiers = {
        "run_id": model.run_id,
        "repository_url": public_uri(model.tracking_server),
    }
    return package_url("mlflow", model.registered_name, model.registered_version, qualifiers)


def _resource(name: str, uri: str, digest: str) -> dict[str, Any]:
    """An in-toto resource descriptor."""
    found: dict[str, Any] = {"name": name, "uri": uri}
    return {**found, "digest": _digest_set(digest)} if digest else found


def _digest_set(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _without_directory(base: str) -> str:
    """The base as it was asked for; of a directory or file only what kind it is."""
    kind = base.partition(":")[0]
    return kind if kind in {"oci", "docker-archive"} else base
