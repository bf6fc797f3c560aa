"""What leaves this stop: a bento, that is a directory with one service, its models and its lock."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import YAML_LIMIT, parse_yaml, read_small_file
from kfp_bento.runtime.models import RECORD_NAME, FileDigest, file_digests, model_files, set_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

BENTO_FILE = "bento.yaml"
MODEL_FILE = "model.yaml"
LOCK_FILE = "env/python/requirements.txt"


@dataclass(frozen=True)
class BentoModel:
    """One model of a bento.

    Attributes:
        tag: `name:version`; for our own bentos the version is the start of the content digest.
        digest: `sha256:…` over the model's files without BentoML's `model.yaml`; "" where the
            bento does not contain the files.
        provenance: Where the model came from: `ModelVersion.to_dict()`, or {} if unknown.
    """

    tag: str
    digest: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The value as JSON-able data."""
        return {"tag": self.tag, "digest": self.digest, "provenance": self.provenance}


@dataclass(frozen=True)
class Bento:
    """One bento in a directory.

    Attributes:
        name: Name, safe for BentoML and for Kubernetes labels.
        version: Version; for our own bentos derived from the content alone.
        directory: Where the bento is.
        service: BentoML's import string, such as "service:WineService".
        python_version: The interpreter it is meant for, such as "3.11".
        bentoml_version: The BentoML that built it.
        models: Its models, in the order of bento.yaml.
        runners: The runners of a BentoML 1.1 service; () for services of today.
        digest: `sha256:…` of the tree without `.kfp-bento.json`, each model counted as one entry
            with its own digest, so that loading a bento reads no model bytes.
        reused: Whether the directory already held this very bento, so that nothing was built.
    """

    name: str
    version: str
    directory: Path
    service: str
    python_version: str
    bentoml_version: str
    models: tuple[BentoModel, ...]
    runners: tuple[dict[str, Any], ...]
    digest: str
    reused: bool = field(default=False, compare=False)

    @property
    def tag(self) -> str:
        """BentoML's tag, `name:version`."""
        return f"{self.name}:{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON-able data, without `directory` and `reused`."""
        return {
            "tag": self.tag,
            "name": self.name,
            "version": self.version,
            "service": self.service,
            "python_version": self.python_version,
            "bentoml_version": self.bentoml_version,
            "models": [model.to_dict() for model in self.models],
            "runners": list(self.runners),
            "digest": self.digest,
        }


def load_bento(directory: Path) -> Bento:
    """Reads a bento: one of ours or any other that BentoML built (spec 1 and 2).

    Args:
        directory: The directory with `bento.yaml`.

    Raises:
        BentoError: There is no bento, or its `bento.yaml` cannot be read.
    """
    info = _read_bento_file(directory)
    try:
        name, version = str(info["name"]), str(info["version"])
        tags = [str(model["tag"]) for model in _model_entries(info)]
        docker = info.get("image") or info.get("docker") or {}
        record = _read_record(directory, name, version)
        digests = {model["tag"]: model["digest"] for model in record.get("models", [])}
        digest, found = _digests(directory, digests)
        provenance = {model["tag"]: model["provenance"] for model in record.get("models", [])}
        return Bento(
            name=name,
            version=version,
            directory=directory,
            service=str(info["service"]),
            python_version=".".join(str(docker.get("python_version") or "").split(".")[:2]),
            bentoml_version=str(info.get("bentoml_version", "")),
            models=tuple(
                BentoModel(tag, found.get(tag, ""), provenance.get(tag, {}))
                for tag in dict.fromkeys(tags)
            ),
            runners=tuple(dict(runner) for runner in info.get("runners") or ()),
            digest=digest,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BentoError(
            f"The {BENTO_FILE} in {directory} is not one that BentoML wrote: {error!r}.",
            hint="Build the bento again.",
        ) from error
    except RecursionError:
        raise BentoError(
            f"The directories in {directory} are nested too deeply.", hint="Build the bento again."
        ) from None


def load_given_bento(artifact: Any) -> Bento | None:
    """Reads the bento of an input artifact that may have been left out.

    Args:
        artifact: Has the directory as `path`; None gives None.

    Raises:
        BentoError: As `load_bento`.
    """
    return None if artifact is None else load_bento(Path(artifact.path))


def write_record(bento: Bento) -> None:
    """Writes where a bento's models came from beside its bento.yaml."""
    partial = bento.directory / f"{RECORD_NAME}.partial"
    partial.write_text(json.dumps(bento.to_dict(), indent=2, sort_keys=True) + "\n")
    partial.replace(bento.directory / RECORD_NAME)


def _read_bento_file(directory: Path) -> Mapping[str, Any]:
    path = directory / BENTO_FILE
    if not path.is_file():
        raise BentoError(
            f"{directory} is not a bento: it has no {BENTO_FILE}.",
            hint="Give the directory that `kfp-bento bento build` or BentoML's export wrote.",
        )
    try:
        info = parse_yaml(read_small_file(path, YAML_LIMIT))
    except ValueError as error:
        raise BentoError(
            f"The {BENTO_FILE} in {directory} is not valid YAML: {error}.",
            hint="Build the bento again.",
        ) from error
    if not isinstance(info, dict):
        raise BentoError(
            f"The {BENTO_FILE} in {directory} is not a mapping.", hint="Build the bento again."
        )
    return info


def _model_entries(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Models of new services stand under `services`, those of old ones at the top."""
    entries = list(info.get("models") or ())
    for service in info.get("services") or ():
        entries += service.get("models") or ()
    return entries


def _read_record(directory: Path, name: str, version: str) -> dict[str, Any]:
    try:
        record = json.loads((directory / RECORD_NAME).read_text())
    except (OSError, ValueError):
        return {}
    ours = isinstance(record, dict) and (record.get("name"), record.get("version"))
    return record if ours == (name, version) else {}


def _digests(directory: Path, known: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Gives the bento's digest and its models' digests; models with a known one are not read."""
    plain: dict[str, Path] = {}
    models: dict[str, dict[str, Path]] = {}
    for relative, path in model_files(directory, leave_out=frozenset({RECORD_NAME})).items():
        parts = PurePosixPath(relative).parts
        if parts[0] != "models" or len(parts) < 4 or parts[3:] == (MODEL_FILE,):
            plain[relative] = path
        else:
            models.setdefault(f"{parts[1]}:{parts[2]}", {})["/".join(parts[3:])] = path
    found = {
        tag: known.get(tag) or set_digest(file_digests(files)) for tag, files in models.items()
    }
    entries = [
        FileDigest(f"models/{tag.replace(':', '/')}/", digest.removeprefix("sha256:"), 0)
        for tag, digest in found.items()
    ]
    return set_digest([*file_digests(plain), *entries]), found
