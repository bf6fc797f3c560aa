"""Where the files of a model are: a URI resolved once, and its files listed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models.directory import require_mlmodel
from kfp_bento.runtime.models.download import list_files
from kfp_bento.runtime.models.location import reading_from, within_seconds
from kfp_bento.runtime.models.resolution import Resolution, resolve_model
from kfp_bento.runtime.models.tracking import (
    Tracking,
    choose_tracking,
    guard_credentials,
    speaking_to,
    tracking_client,
)
from kfp_bento.runtime.models.uri import ModelUri, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class ModelSource:
    """One exact model in a store.

    Attributes:
        resolution: What the registry said of it.
        repository: MLflow's `ArtifactRepository` for its files.
        sizes: Its files, with their bytes where the store says them; there is an MLmodel.
    """

    resolution: Resolution
    repository: Any
    sizes: Mapping[str, int | None]

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(size or 0 for size in self.sizes.values())


@contextmanager
def opened_source(uri: ModelUri, tracking_uri: str) -> Iterator[ModelSource]:
    """Resolve a URI, list the model's files, and let them be read for the length of a block.

    Args:
        uri: Any kind but "directory".
        tracking_uri: The tracking server; "" means the environment's.

    Raises:
        InvalidInput: The URI or the tracking settings cannot be used.
        ModelError: The model cannot be found, or not be read.
    """
    tracking = _tracking_for(uri, tracking_uri)
    with speaking_to(tracking or without_password(uri.text)):
        resolution = _resolve(uri, tracking)
        with reading_from(resolution.location, tracking):
            repository = _repository(resolution.location, tracking)
            sizes = list_files(repository)
            _require_model(sizes, resolution)
            yield ModelSource(resolution, repository, sizes)


def _tracking_for(uri: ModelUri, tracking_uri: str) -> Tracking | None:
    """Choose the server; an artifact URI such as s3://… needs one only where it is proxied."""
    if uri.kind == "artifact" and not uri.text.startswith("mlflow-artifacts:"):
        return None
    return choose_tracking(tracking_uri)


def _resolve(uri: ModelUri, tracking: Tracking | None) -> Resolution:
    if tracking is None:
        return Resolution(uri.text, source=without_password(uri.text))
    return resolve_model(uri, tracking_client(tracking))


def _repository(location: str, tracking: Tracking | None) -> Any:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    parsed = urlsplit(location)
    server = tracking.tracking_uri if tracking else ""
    if parsed.scheme in ("http", "https"):
        guard_credentials(location, trusted=server)
    elif parsed.scheme == "mlflow-artifacts" and parsed.netloc:
        guard_credentials(f"{urlsplit(server).scheme}://{parsed.netloc}", trusted=server)
    try:
        return within_seconds(
            lambda: get_artifact_repository(
                location,
                tracking_uri=tracking.tracking_uri if tracking else None,
                registry_uri=tracking.registry_uri if tracking else None,
            )
        )
    except (MlflowException, ImportError) as failure:
        raise InvalidInput(
            f"Artifacts at {without_password(location)} cannot be read: "
            f"{str(failure).splitlines()[0]}",
            hint="Check the scheme; some stores need a package of their own (boto3 for s3).",
        ) from failure


def _require_model(sizes: Mapping[str, int | None], resolution: Resolution) -> None:
    where = without_password(resolution.location)
    if not sizes:
        local = urlsplit(where).scheme in ("", "file")
        raise ModelError(
            f"There are no files at {where}.",
            hint="The server keeps artifacts in a directory of its own; start it with "
            "--serve-artifacts and --artifacts-destination."
            if local
            else "Check the path; the model's artifacts may have been deleted.",
        )
    require_mlmodel(sizes, where)
