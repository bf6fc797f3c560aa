"""The image configuration and manifest (OCI image specification 1.1, `config.md`).

What a container sees follows BentoML's own Dockerfile (`base_v2.j2`): the same paths, user,
ports, entrypoint and environment. Where we differ, the reason stands beside it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Layer,
    Platform,
    one_line,
)

USER_ID = 1034
HOME = "/home/bentoml"
BENTO_PATH = f"{HOME}/bento"
VENV = "/app/.venv"
# What lets an image be taken apart again, and put on another base without its bento.
KIND = "kfp-bento.kind"
TITLE = "kfp-bento.title"
PROFILE = "kfp-bento.profile"
BENTO = "kfp-bento.bento"
MODELS = "kfp-bento.models"
INTERPRETER = "kfp-bento.interpreter"
NEEDED_GLIBC = "kfp-bento.glibc"
NEEDED_LIBRARIES = "kfp-bento.libraries"
OWN_ENVIRONMENT = "kfp-bento.environment"
IMAGE_TITLE = "org.opencontainers.image.title"
IMAGE_VERSION = "org.opencontainers.image.version"
BASE_DIGEST = "org.opencontainers.image.base.digest"
# What containerd and Docker take (the limit of lower directories in overlayfs mounts).
MOST_LAYERS = 127
# What a base may say for its own programs, and would say for those of a service or a step: where
# they listen, what they import, and which of BentoML's servers it is that starts.
_NOT_FROM_A_BASE = frozenset(
    {"PORT", "BENTOML_PORT", "BENTOML_HOST", "BENTOML_SERVE_COMPONENT", "PYTHONPATH", "PYTHONHOME"}
)
DEFAULT_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTRYPOINT = f"{BENTO_PATH}/env/docker/entrypoint.sh"
# BentoML creates these when it starts, which a read-only root would not let it do.
BENTOML_DIRECTORIES = ("bentos", "envs", "models", "tmp")


@dataclass(frozen=True)
class Profile:
    """What a container started from an image is given, besides what its base gives.

    Attributes:
        name: By which an image remembers its profile.
        environment: Variables.
        entrypoint: The command; empty for images that are told what to run.
        working_directory: Where it starts.
        ports: TCP ports it listens on.
        needs: Programs that it is started with and the base has to bring, beside `/usr/bin/env`.
    """

    name: str
    environment: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    working_directory: str = "/"
    ports: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()


_ANY_PYTHON = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONIOENCODING": "UTF-8",
    "PYTHONUNBUFFERED": "1",
    "VIRTUAL_ENV": VENV,
    # A served model and a step talk to nobody that they were not told to talk to.
    "BENTOML_DO_NOT_TRACK": "True",
}
SERVICE = Profile(
    name="service",
    environment={
        **_ANY_PYTHON,
        "BENTO_PATH": BENTO_PATH,
        "BENTOML_HOME": f"{HOME}/",
        "BENTOML_HF_CACHE_DIR": f"{BENTO_PATH}/hf-models",
        "BENTOML_CONTAINERIZED": "true",
        # There need be no passwd entry for 1034, and libraries ask for a home and a name.
        "HOME": HOME,
        "USER": "bentoml",
        "LOGNAME": "bentoml",
        # The default is below BENTOML_HOME, which a read-only root cannot offer.
        "BENTOML_RESULT_STORE": "/tmp/bentoml-task-result.db",  # noqa: S108
    },
    entrypoint=(ENTRYPOINT,),
    working_directory=BENTO_PATH,
    ports=(3000, 3001),
    needs=("bash",),
)
# An environment that a pipeline's steps run in, as whichever user the cluster chooses.
STEP = Profile(
    name="step",
    environment={
        **_ANY_PYTHON,
        "HOME": "/tmp",  # noqa: S108 - the one place that any user may write
        "USER": "kfp-bento",
        "LOGNAME": "kfp-bento",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    },
)
# Files that another container reads. What runs in it KServe says, which links them from /models to
# where its runtime looks (pkg/utils/storage.go, CreateModelcarContainer).
MODEL = Profile(name="model", environment={}, needs=("sh", "ls", "ln", "sleep"))
PROFILES = {profile.name: profile for profile in (SERVICE, STEP, MODEL)}


@dataclass(frozen=True)
class ImageConfig:
    """What an image's configuration and manifest say, besides its base and its layers.

    Attributes:
        platform: The image's platform.
        interpreter: The base's Python that the virtual environment links to.
        epoch: Seconds since 1970 for every timestamp.
        profile: What containers are given.
        environment: The bento's own environment variables.
        labels: Labels to add to the base's.
        annotations: Those of the manifest.
    """

    platform: Platform
    interpreter: str
    epoch: int
    profile: Profile = SERVICE
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def compose(
        self, base: Mapping[str, Any], digest: str, layers: Sequence[Layer]
    ) -> ComposedImage:
        """Compose configuration and manifest on top of a base.

        Args:
            base: The base's configuration file, parsed.
            digest: Digest of its manifest; may be empty.
            layers: All layers, those of the base first.

        Raises:
            ImageError: A variable's name has a comma in it, or there are more layers than a
                container may have.
        """
        named = {BASE_DIGEST: digest} if digest else {}
        config = canonical_json(self._document(base, layers, {**self.labels, **named}))
        described = descriptor_of(config, OCI_CONFIG)
        manifest = image_manifest(described, layers, {**self.annotations, **named})
        return ComposedImage(described, config, *manifest)

    def _document(
        self, base: Mapping[str, Any], layers: Sequence[Layer], labels: Mapping[str, str]
    ) -> dict[str, Any]:
        created, profile = timestamp(self.epoch), self.profile
        inherited = base.get("config") or {}
        config = {
            **{key: value for key, value in inherited.items() if key not in {"Cmd", "Image"}},
            "User": f"{USER_ID}:{USER_ID}",
            "ExposedPorts": {
                **(inherited.get("ExposedPorts") or {}),
                **{f"{port}/tcp": {} for port in profile.ports},
            },
            "Env": _environment(inherited.get("Env") or [], profile, self.environment),
            "Entrypoint": list(profile.entrypoint),
            "WorkingDir": profile.working_directory,
            "Labels": {
                **_foreign(inherited.get("Labels") or {}),
                **labels,
                PROFILE: profile.name,
                INTERPRETER: self.interpreter,
                OWN_ENVIRONMENT: _listed(self.environment),
            },
        }
        kept = {"author", "os.version", "os.features", "variant"}
        history = _history(base, layers, created)
        return {
            **{key: value for key, value in base.items() if key in kept},
            "created": created,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            **({"history": history} if history else {}),
        }


@dataclass(frozen=True)
class ComposedImage:
    """An image's two documents, each with its descriptor."""

    config: Descriptor
    config_content: bytes
    manifest: Descriptor
    content: bytes


def check_layer_count(count: int) -> None:
    """Refuse an image of more layers than a container may have.

    Raises:
        ImageError: There are more.
    """
    if count > MOST_LAYERS:
        raise ImageError(
            f"The image would have {count} layers; containers have at most {MOST_LAYERS}.",
            hint="Choose a base image with fewer layers: `skopeo inspect` lists them.",
        )


def image_manifest(
    config: Descriptor, layers: Sequence[Layer], annotations: Mapping[str, str]
) -> tuple[Descriptor, bytes]:
    """Compose the image manifest; only OCI media types, whatever the base used.

    Raises:
        ImageError: There are more layers than a container may have.
    """
    check_layer_count(len(layers))
    content = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_dict(),
            "layers": [_layer_entry(layer) for layer in layers],
            "annotations": dict(annotations),
        }
    )
    return descriptor_of(content, OCI_MANIFEST), content


def image_index(
    images: Mapping[Platform, Descriptor], annotations: Mapping[str, str]
) -> tuple[Descriptor, bytes]:
    """Compose the index of one image for several platforms (image specification, `image-index.md`).

    Args:
        images: The manifest for each platform.
        annotations: Those of the index.
    """
    content = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {**images[platform].to_dict(), "platform": vars(platform)}
                for platform in sorted(images, key=str)
            ],
            "annotations": dict(annotations),
        }
    )
    return descriptor_of(content, OCI_INDEX), content


def _layer_entry(layer: Layer) -> dict[str, Any]:
    entry = layer.descriptor.to_dict()
    if layer.kind == "base":
        return entry
    return {**entry, "annotations": {KIND: layer.kind, TITLE: layer.title}}


def _foreign(labels: Mapping[str, str]) -> dict[str, str]:
    """Give a base's labels without those of kfp-bento: they tell how the base was made."""
    return {name: value for name, value in labels.items() if not name.startswith("kfp-bento.")}


def _listed(environment: Mapping[str, str]) -> str:
    """Give the variables' names in their order, on which that in the configuration depends."""
    for name in environment:
        if "," in name:
            raise ImageError(
                f"The bento sets an environment variable named '{name}'.",
                hint="Rename it: a comma cannot be part of a variable's name here.",
            )
    return ",".join(environment)


def descriptor_of(content: bytes, media_type: str) -> Descriptor:
    """Give the descriptor of bytes at hand."""
    return Descriptor(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


# What stands where a manifest needs a blob and there is none (image specification 1.1).
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def canonical_json(document: Any) -> bytes:
    """JSON whose bytes depend on its content only."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _environment(inherited: Sequence[str], profile: Profile, own: Mapping[str, str]) -> list[str]:
    """Give the base's variables in their order, overridden by name; then ours, then the bento's."""
    given = dict(pair.partition("=")[::2] for pair in inherited)
    merged = {name: value for name, value in given.items() if name not in _NOT_FROM_A_BASE}
    path = merged.get("PATH") or DEFAULT_PATH
    merged.update(profile.environment)
    merged.update(own)
    merged["PATH"] = f"{VENV}/bin:{path}"
    return [f"{name}={value}" for name, value in merged.items()]


def left_of_base(base: Mapping[str, Any], own: Container[str]) -> str:
    """Say which variables of a base are not taken over; "" for none.

    Args:
        base: The base's configuration file, parsed.
        own: Names of variables that the image sets in their place.
    """
    pairs = (base.get("config") or {}).get("Env") or []
    names = {pair: pair.partition("=")[0] for pair in pairs}
    left = [pair for pair, name in names.items() if name in _NOT_FROM_A_BASE and name not in own]
    if not left:
        return ""
    return (
        f"not taken over from the base: {', '.join(map(one_line, left))}, which would say where a "
        "service listens or what is imported in place of what was locked; the bento can set it "
        "itself (envs)"
    )


def _history(
    base: Mapping[str, Any], layers: Sequence[Layer], created: str
) -> list[dict[str, Any]]:
    """One entry for each layer; left out altogether when the base's does not match its layers."""
    inherited = list(base.get("history") or [])
    below = [layer for layer in layers if layer.kind == "base"]
    if len([item for item in inherited if not item.get("empty_layer")]) != len(below):
        return []
    own = [
        {"created": created, "created_by": f"kfp-bento: {layer.title}"}
        for layer in layers
        if layer.kind != "base"
    ]
    return [*inherited, *own]


def timestamp(epoch: int) -> str:
    """Write seconds since 1970 as RFC 3339 has it, in UTC."""
    moment = datetime.datetime.fromtimestamp(epoch, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
