"""The files of a model in a store: where they are, and which there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models.directory import require_mlmodel
from kfp_bento.runtime.models.download import list_files
from kfp_bento.runtime.models.location import reading_from, within_seconds
from kfp_bento.runtime.models.resolution import Resolution
from kfp_bento.runtime.models.tracking import Tracking, guard_credentials
from kfp_bento.runtime.models.uri import without_password

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class SourceFiles:
    """What a store holds of one model.

    Attributes:
        resolution: What the registry said of it.
        repository: MLflow's `ArtifactRepository` for it.
        sizes: Its files, with their bytes where the store says them; there is an MLmodel.
    """

    resolution: Resolution
    repository: Any
    sizes: Mapping[str, int | None]

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(size or 0 for size in self.sizes.values())


def files_of(resolution: Resolution, tracking: Tracking | None) -> SourceFiles:
    """List the files of a model.

    Args:
        resolution: What the registry said of it.
        tracking: The servers that said so; None where none was asked.

    Raises:
        InvalidInput: Nothing here can read from there.
        ModelError: There is no model.
    """
    location = resolution.location
    with reading_from(location, tracking):
        repository = _repository(location, tracking)
        sizes = list_files(repository)
        _require_model(sizes, location)
        return SourceFiles(resolution, repository, sizes)


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


def _require_model(sizes: Mapping[str, int | None], location: str) -> None:
    where = without_password(location)
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
