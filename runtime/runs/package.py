"""A pipeline as it is sent: compiled, its images known, its caching settled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import parse_yaml
from kfp_bento.runtime.runs.run_state import dags

_PLACEHOLDER = "registry.example.com/"


def make_package(pipeline: Any, path: Path, *, caching: bool = True) -> None:
    """Compile a pipeline for a cluster.

    Args:
        pipeline: What `local.load_pipeline` gave.
        path: Receives the YAML.
        caching: Leave caching as it was compiled; steps that act outside the pipeline are never
            cached. Without it no step is. kfp.Client's own switch misses steps inside a block.

    Raises:
        InvalidInput: The steps' image is the placeholder, which no cluster can pull.
    """
    from kfp import compiler

    compiler.Compiler().compile(pipeline, str(path))
    documents = re.split(rb"^---$", path.read_bytes(), flags=re.MULTILINE)
    specification, *platforms = map(parse_yaml, documents)
    images = {*_images(specification)}
    if not all(map(str.strip, images)):
        raise InvalidInput(
            "A step of the pipeline has an image without a name.",
            hint="Is KFP_BENTO_IMAGE empty? kfp-bento install pushes an image; set it to that, or "
            "to nothing at all.",
        )
    placeholders = sorted(one for one in images if one.startswith(_PLACEHOLDER))
    if placeholders:
        raise InvalidInput(
            f"The steps' image is a placeholder that no cluster can pull: {placeholders[0]}.",
            hint="kfp-bento install pushes one; then set KFP_BENTO_IMAGE to it, "
            "also where a YAML file is compiled: kfp-bento compile --image …",
        )
    if not caching:
        for dag in dags(specification):
            for task in dag["tasks"].values():
                task["cachingOptions"] = {}
        path.write_text(yaml.safe_dump_all([specification, *platforms], sort_keys=True))


def _images(specification: Mapping[str, Any]) -> Iterator[str]:
    for executor in (specification["deploymentSpec"].get("executors") or {}).values():
        if "container" in executor:  # an importer has none
            yield str(executor["container"].get("image", ""))
