"""What a registry holds, and what a model is, without taking it in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models.directory import describe_model, load_model
from kfp_bento.runtime.models.download import download_files
from kfp_bento.runtime.models.environment import ENVIRONMENT_FILES
from kfp_bento.runtime.models.location import reading_from
from kfp_bento.runtime.models.mlmodel import MLMODEL_NAME, read_mlmodel_of
from kfp_bento.runtime.models.resolution import read_registered_model, with_newest
from kfp_bento.runtime.models.source_files import files_of
from kfp_bento.runtime.models.sources import ModelSource, read_entries, resolve_sources
from kfp_bento.runtime.models.tracking import choose_tracking, speaking_to, tracking_client
from kfp_bento.runtime.models.uri import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.models.resolution import RegisteredModel
    from kfp_bento.runtime.models.version import ModelVersion

_PAGE = 100
_MOST_MODELS = 10_000
_LARGEST_DOCUMENT = 16 << 20


def list_registered_models(tracking_uri: str = "") -> list[RegisteredModel]:
    """Ask a registry for all its registered models, by name.

    Args:
        tracking_uri: The tracking server; "" means the environment's.

    Raises:
        InvalidInput: The tracking settings cannot be used.
        ModelError: The registry does not answer, or refuses, or there is no end of models.
    """
    tracking = choose_tracking(tracking_uri)
    with speaking_to(tracking):
        client = tracking_client(tracking)
        found = [with_newest(read_registered_model(one), client) for one in _pages(client)]
    return sorted(found, key=lambda model: model.name)


def _pages(client: Any) -> Iterator[Any]:
    token = None
    for _ in range(_MOST_MODELS // _PAGE):
        page = client.search_registered_models(max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
    raise ModelError(
        f"The registry has more than {_MOST_MODELS} registered models.",
        hint="Look for one by its name: kfp-bento model show models:/NAME/latest.",
    )


def look_at_model(uri: str, *, tracking_uri: str = "") -> ModelVersion:
    """Say what a model is. Of one in a registry only small documents are fetched.

    Args:
        uri: See `parse_model_uri`.
        tracking_uri: The tracking server; "" means the environment's.

    Returns:
        The model; its digests are "" where its files were not read, and its directory is gone.

    Raises:
        InvalidInput: The URI or the tracking settings cannot be used.
        ModelError: The model cannot be found or read.
    """
    entry = read_entries([uri])[0]
    if entry.uri.kind == "directory":
        return load_model(Path(entry.uri.path))
    tracking = choose_tracking(tracking_uri) if entry.needs_tracking else None
    with speaking_to(tracking or without_password(entry.uri.text)):
        (source,) = resolve_sources([entry], tracking)
        return _looked_at(source)


def _looked_at(source: ModelSource) -> ModelVersion:
    assert source.resolution is not None  # noqa: S101 - not a directory
    found = files_of(source.resolution, source.tracking)
    documents = {
        path: size
        for path, size in found.sizes.items()
        if path in {MLMODEL_NAME, *ENVIRONMENT_FILES} and (size or 0) <= _LARGEST_DOCUMENT
    }
    with (
        TemporaryDirectory(prefix="kfp-bento-model-") as scratch,
        reading_from(found.resolution.location, source.tracking),
    ):
        directory = Path(scratch)
        files = download_files(found.repository, documents, directory)
        read_mlmodel_of(directory)
        model = describe_model(
            directory,
            files,
            uri=without_password(source.uri.text),
            alias=source.uri.alias,
            resolution=found.resolution,
        )
    return replace(model, digest="", content_digest="", size=found.size)
