"""What is known of a bento where it is kept, without taking it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from kfp_bento.runtime.bentos.bento_file import BENTO_FILE, Listed, parse_bento_file
from kfp_bento.runtime.files import parse_json

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos.bento import Bento

DIGEST, TAG = "bento-digest", "bento-tag"
_MODELS, _PYTHON, _BENTOML = "bento-models", "bento-python", "bento-bentoml"
# S3 takes 2 KiB of an object's metadata, names included.
_LONGEST_FACT = 1024
_SAFE = " ,:/@+"


@dataclass(frozen=True)
class BentoFacts:
    """What a bento says of itself.

    Attributes:
        tag: `name:version`; "" if unknown.
        digest: `sha256:…` as whoever exported or built it recorded it; "" if unknown.
        python_version: The interpreter that it is meant for, such as "3.11"; "" if unknown.
        bentoml_version: The BentoML that built it; "" if unknown.
        models: Tags of its models; None if unknown.
    """

    tag: str = ""
    digest: str = ""
    python_version: str = ""
    bentoml_version: str = ""
    models: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The bento's name."""
        return self.tag.partition(":")[0]


@dataclass(frozen=True)
class StoredBento:
    """A bento in a store.

    Attributes:
        place: Where in the store: `wine/1f0c`, `wine-1f0c.bento`.
        format: One of `FORMATS`.
        size: Bytes that it takes there.
        modified: Since when it is there, in UTC.
        facts: What is known of it.
    """

    place: str
    format: str
    size: int
    modified: datetime
    facts: BentoFacts

    def to_dict(self) -> dict[str, Any]:
        """Give the value as JSON-able data; null is what is not known."""
        models = self.facts.models
        return {
            "place": self.place,
            "format": self.format,
            "size": self.size,
            "modified": self.modified.isoformat(timespec="seconds"),
            "tag": self.facts.tag or None,
            "digest": self.facts.digest or None,
            "python_version": self.facts.python_version or None,
            "bentoml_version": self.facts.bentoml_version or None,
            "models": None if models is None else list(models),
        }


def recorded_facts(bento: Bento) -> dict[str, str]:
    """Give what is recorded with an archive of a bento, so that a listing need not open it."""
    models = ",".join(model.tag for model in bento.models)
    facts = {
        DIGEST: bento.digest,
        TAG: bento.tag,
        _PYTHON: bento.python_version,
        _BENTOML: bento.bentoml_version,
        _MODELS: models,
    }
    # Metadata of an object is ASCII; what does not fit is not known rather than cut.
    written = {name: quote(value, safe=_SAFE) for name, value in facts.items()}
    return {name: value for name, value in written.items() if len(value) <= _LONGEST_FACT}


def facts_of_object(recorded: Mapping[str, str]) -> BentoFacts:
    """Read what `recorded_facts` gave, or some other exporter; it is only shown."""
    said = {name: Listed(unquote(value), ()).shown for name, value in recorded.items()}
    models = said.get(_MODELS)
    return BentoFacts(
        tag=said.get(TAG, ""),
        digest=said.get(DIGEST, ""),
        python_version=said.get(_PYTHON, ""),
        bentoml_version=said.get(_BENTOML, ""),
        models=None if models is None else tuple(filter(None, models.split(","))),
    )


def facts_of_files(bento_file: bytes, record: bytes) -> BentoFacts:
    """Read a bento's own files.

    Args:
        bento_file: The text of its `bento.yaml`.
        record: The text of the record beside it; b"" for none.

    Raises:
        BentoError: BentoML did not write that `bento.yaml`.
    """
    file = parse_bento_file(bento_file, f"Its {BENTO_FILE}")
    return BentoFacts(
        tag=file.tag,
        digest=recorded_digest(record, file.tag),
        python_version=file.python_minor,
        bentoml_version=file.bentoml_version,
        models=tuple(dict.fromkeys(model.tag for model in file.models)),
    )


def recorded_digest(record: bytes, tag: str) -> str:
    """Give the digest that the record beside bento.yaml states of this very bento, or ""."""
    try:
        facts = parse_json(record)
    except ValueError:
        return ""
    same = f"{facts.get('name')}:{facts.get('version')}" == tag
    return str(facts.get("digest", "")) if same else ""
