"""What leaves this stop: a bento, that is a directory with one service, its models and its lock."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from kfp_bento.runtime.bentos.bento_file import read_bento_file
from kfp_bento.runtime.bentos.listening import Listening, listening_of
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    file_sha256,
    open_record,
    read_small_file,
    reading,
    record_digest,
    sealed_record,
    write_whole,
)
from kfp_bento.runtime.models import (
    RECORD_NAME,
    FileDigest,
    ModelFacts,
    file_digests,
    model_files,
    set_digest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfp_bento.runtime.bentos.bento_file import BentoFile

MODEL_FILE = "model.yaml"
LOCK_FILE = "env/python/requirements.txt"
RECORD = "record"
"""The metadata of a bento's artifact that names its record's digest."""

_REFUSED = "refused"

_PURPOSE = "bento"
_FOREIGN = (
    f"The record {RECORD_NAME} beside the bento is not one of ours: where its models came from is "
    "not known."
)


@dataclass(frozen=True)
class BentoModel:
    """One model of a bento.

    Attributes:
        tag: `name:version`; for our own bentos the version is the start of the content digest.
        digest: `sha256:…` over the model's files without BentoML's `model.yaml`; "" where the
            bento does not contain the files.
        provenance: Where the model came from; empty if unknown.
        claimed: Whether the digest is that of our own record, and nobody has read the files yet;
            see `load_bento` and `changed_models`.
    """

    tag: str
    digest: str
    provenance: ModelFacts = field(default_factory=ModelFacts)
    claimed: bool = field(default=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Give the value as JSON-able data."""
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
            with its own digest.
        environment: Variables that it leaves to its release (`envs` of the stage runtime).
        listening: Where its service listens by its own word.
        reused: Whether the directory already held this very bento, so that nothing was built.
        note: What people are to be told of it, such as that its files had been changed.
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
    environment: Mapping[str, str] = field(default_factory=dict, compare=False)
    listening: Listening = field(default=Listening(), compare=False)
    reused: bool = field(default=False, compare=False)
    note: str = field(default="", compare=False)

    @property
    def tag(self) -> str:
        """BentoML's tag, `name:version`."""
        return f"{self.name}:{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as JSON-able data, without what is no part of its identity."""
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


def load_bento(
    directory: Path,
    *,
    record: str = "",
    deferred: bool = False,
    facts: bool = False,
    known: Mapping[str, str] | None = None,
) -> Bento:
    """Read a bento: one of ours or any other that BentoML built (spec 1 and 2).

    Where its models came from is said only by a record of our own: sealed by this user, or the one
    that the building step named. Digests are those of the files.

    Args:
        directory: The directory with `bento.yaml`.
        record: `sha256:…` of the record as the step that built the bento says it.
        deferred: Whether to leave large models unread where a record of our own has their
            digests: for a caller that reads the files anyway and compares then, as `build_image`
            does.
        facts: Whether models may lie elsewhere, as `write_facts` leaves them out: then their
            digests are those of a record of our own.
        known: Digests of models, by tag, for who has just put these files there; they are
            left unread as well.

    Raises:
        BentoError: There is no bento, or its `bento.yaml` cannot be read.
    """
    file = read_bento_file(directory)
    told = _read_record(directory, file, record)
    claims = {**(told.digests if deferred or facts else {}), **(known or {})}
    try:
        digest, found = _digests(directory, claims, absent=facts)
    except RecursionError:
        raise BentoError(
            f"The directories in {directory} are nested too deeply.", hint="Build the bento again."
        ) from None
    return Bento(
        name=file.name,
        version=file.version,
        directory=directory,
        service=file.service,
        python_version=file.python_minor,
        bentoml_version=file.bentoml_version,
        models=tuple(
            BentoModel(
                tag,
                found.get(tag, ""),
                told.provenance_of(tag, found.get(tag, "")),
                claimed=tag in claims,
            )
            for tag in dict.fromkeys(model.tag for model in file.models)
        ),
        runners=file.runners,
        environment=file.variables("runtime"),
        listening=listening_of(file),
        digest=digest,
        note=told.note,
    )


def is_whole(bento: Bento) -> bool:
    """Tell whether a bento's files lie in its directory, where `write_facts` leaves some out."""
    start = bento.directory / "env/docker/entrypoint.sh"
    models = (bento.directory / "models" / model.tag.replace(":", "/") for model in bento.models)
    return os.access(start, os.X_OK) and all(path.is_dir() for path in models)


def load_given_bento(artifact: Any, *, deferred: bool = False, facts: bool = False) -> Bento | None:
    """Read the bento of an input artifact that may have been left out.

    Args:
        artifact: Has the directory as `path`, and as `metadata` what `build_bento` said of it;
            None gives None.
        deferred: See `load_bento`.
        facts: See `load_bento`.

    Raises:
        BentoError: As `load_bento`.
    """
    if artifact is None:
        return None
    told = getattr(artifact, "metadata", None) or {}
    if refused := told.get(_REFUSED):
        raise BentoError(
            f"There is no bento to go on with: {refused}",
            hint="The reports of the step that should have made it say more.",
        )
    record = str(told.get(RECORD, ""))
    bento = load_bento(Path(artifact.path), record=record, deferred=deferred, facts=facts)
    if bento.note:
        print(bento.note, file=sys.stderr)
    return bento


def bento_record(bento: Bento) -> str:
    """Give the digest of a bento's record, for the steps that read it.

    Raises:
        OSError: It has none.
    """
    return record_digest(read_small_file(bento.directory / RECORD_NAME, JSON_LIMIT))


def write_facts(bento: Bento, directory: Path) -> str:
    """Write a bento without its models' files, for steps that need none of them.

    Returns:
        The digest of its record, for the steps that read it.

    Raises:
        BentoError: The directory cannot be written.
    """
    hint = "Look at what that says, and run the step again."
    with reading(f"The facts of {bento.tag} cannot be written", BentoError, hint=hint):
        plain, _ = _grouped(bento.directory)
        for relative, path in {**plain, RECORD_NAME: bento.directory / RECORD_NAME}.items():
            place = directory / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        return bento_record(bento)


def hand_on(bento: Bento, facts: Any, whole: Any = None) -> None:
    """Say on its output artifacts what later steps may believe of a bento, and write its facts.

    Args:
        bento: The bento, as it was built.
        facts: The artifact for what `write_facts` writes.
        whole: The artifact that holds the bento, where a step hands it on.
    """
    if whole is not None:
        whole.metadata.update(
            tag=bento.tag,
            digest=bento.digest,
            python_version=bento.python_version,
            **{RECORD: bento_record(bento)},
        )
    facts.metadata[RECORD] = write_facts(bento, Path(facts.path))


def hand_on_refusal(reason: str, facts: Any) -> None:
    """Say on an output artifact why there is no bento; `load_given_bento` fails with that.

    Args:
        reason: A sentence.
        facts: The artifact that would have been the bento's facts.
    """
    facts.metadata[_REFUSED] = reason
    Path(facts.path).mkdir(parents=True, exist_ok=True)
    (Path(facts.path) / _REFUSED).write_text(f"{reason}\n")


def write_record(bento: Bento) -> None:
    """Write where a bento's models came from beside its bento.yaml, sealed as our own."""
    write_whole(sealed_record(bento.to_dict(), _PURPOSE), bento.directory / RECORD_NAME)


@dataclass(frozen=True)
class _Record:
    """What a record of our own says of each model; nothing where there is none.

    Attributes:
        models: Digest and origin of each model, by tag.
        note: What to tell people about a record that does not count.
    """

    models: Mapping[str, tuple[str, ModelFacts]] = field(default_factory=dict)
    note: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """The models' digests, by tag."""
        return {tag: digest for tag, (digest, _) in self.models.items()}

    def provenance_of(self, tag: str, digest: str) -> ModelFacts:
        """Say where a model came from, if it is still the one that the record is about."""
        known, origin = self.models.get(tag, ("", ModelFacts()))
        return origin if digest and digest == known else ModelFacts()


def _read_record(directory: Path, file: BentoFile, told: str) -> _Record:
    try:
        text = read_small_file(directory / RECORD_NAME, JSON_LIMIT)
        facts, own = open_record(text, _PURPOSE, told)
        if not facts.get("models"):
            return _Record()
        if own and (facts.get("name"), facts.get("version")) == (file.name, file.version):
            models = facts["models"]
            return _Record(
                {
                    str(m["tag"]): (str(m["digest"]), cast("ModelFacts", dict(m["provenance"])))
                    for m in models
                }
            )
    except FileNotFoundError:
        return _Record()
    except (OSError, KeyError, TypeError, ValueError):  # what follows says it
        pass
    return _Record(note=_FOREIGN)


def changed_models(bento: Bento, sums: Mapping[str, str]) -> list[str]:
    """Give the tags of models whose files are not what was claimed when the bento was loaded.

    Args:
        bento: The bento; see `load_bento`, `deferred`.
        sums: SHA-256 of files in hexadecimal, by path relative to the bento, as they were read on
            their way somewhere; what is missing is read now.
    """

    def found(path: Path) -> str:
        return sums.get(path.relative_to(bento.directory).as_posix()) or file_sha256(path)

    claimed = [model for model in bento.models if model.claimed]
    models = _grouped(bento.directory)[1] if claimed else {}
    return [
        model.tag
        for model in claimed
        if set_digest(file_digests(models.get(model.tag, {}), found)) != model.digest
    ]


def _digests(
    directory: Path, known: Mapping[str, str], *, absent: bool
) -> tuple[str, dict[str, str]]:
    """Give the bento's digest and its models' digests; models with a known one are not read.

    A digest is known from a record of our own alone; whoever relies on it compares it.

    Args:
        directory: The bento.
        known: What the record says.
        absent: Whether models that are not here count, too.
    """
    plain, models = _grouped(directory)
    elsewhere = {tag: digest for tag, digest in known.items() if digest} if absent else {}
    found = elsewhere | {
        tag: known.get(tag) or set_digest(file_digests(files)) for tag, files in models.items()
    }
    entries = [
        FileDigest(f"models/{tag.replace(':', '/')}/", digest.removeprefix("sha256:"), 0)
        for tag, digest in found.items()
    ]
    return set_digest([*file_digests(plain), *entries]), found


def _grouped(directory: Path) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Give the files by their path in the bento, and those of each model by their path in it."""
    plain: dict[str, Path] = {}
    models: dict[str, dict[str, Path]] = {}
    for relative, path in model_files(directory, leave_out=frozenset({RECORD_NAME})).items():
        parts = PurePosixPath(relative).parts
        if parts[0] != "models" or len(parts) < 4 or parts[3:] == (MODEL_FILE,):
            plain[relative] = path
        else:
            models.setdefault(f"{parts[1]}:{parts[2]}", {})["/".join(parts[3:])] = path
    return plain, models
