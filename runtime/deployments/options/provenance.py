"""What is written beside a release: where its models came from, and what its pods are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.options.names import label_value_problem
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts


def provenance(bento: BentoFacts) -> dict[str, str]:
    """Give annotations that say which registry models the bento was made of.

    They sit on the metadata, where a change starts no new rollout. One model gets plain
    keys (`kfp-bento/model-uri`, ...); several share one JSON list in `kfp-bento/models`.
    """
    facts = {"kfp-bento/bento-version": bento.version}
    models = [
        {
            "model-uri": str(model.provenance.get("uri") or ""),
            "model-name": str(model.provenance.get("name") or ""),
            "model-version": str(model.provenance.get("version") or ""),
            "model-digest": str(model.provenance.get("digest") or ""),
            "model-content-digest": model.digest,
            "run-id": str(model.provenance.get("run_id") or ""),
        }
        for model in bento.models
    ]
    if len(models) > 1:
        facts["kfp-bento/models"] = json.dumps(models, sort_keys=True, separators=(",", ":"))
    for model in models if len(models) == 1 else ():
        facts.update({f"kfp-bento/{key}": value for key, value in model.items() if value})
    return facts


def check_tag(bento: BentoFacts) -> None:
    """Refuse a bento whose name or version cannot be a label, which they become everywhere.

    Raises:
        InvalidInput: The name or the version is empty, too long or has other characters.
    """
    for part, value in (("name", bento.name), ("version", bento.version)):
        if not value or (problem := label_value_problem(value)):
            raise InvalidInput(
                f"bento {part}: {value!r} {problem if value else 'is empty'}.",
                hint=f"Build the bento with another {part}.",
            )


def pod_revision(*parts: Mapping[str, Any]) -> str:
    """Give a digest of what pods are made of: 16 hex digits, the same for the same content."""
    content = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
