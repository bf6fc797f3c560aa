"""Where a model's files are, which is another server than the registry's: its failures read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import KfpBentoError, ModelError, in_a_pipeline
from kfp_bento.runtime.models.tracking import (
    SECRET,
    Tracking,
    causes,
    first_line,
    is_connection_loss,
    is_refusal,
)
from kfp_bento.runtime.models.uri import without_password

FIRST_ANSWER_SECONDS = 30.0
"""How long a store may take for its first listing; some clients try for minutes."""

_T = TypeVar("_T")
_ACCOUNTS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "r2": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "b2": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "wasbs": "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
    "abfss": "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
    "dbfs": "DATABRICKS_HOST and DATABRICKS_TOKEN",
    "ftp": "a user and password in the location",
    "sftp": "a key for ssh",
    "hdfs": "MLFLOW_KERBEROS_USER and MLFLOW_KERBEROS_TICKET_CACHE",
}
_OWN_ACCOUNT = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,"
_AWS_SECRET = in_a_pipeline(
    "mlflow_secret",
    "them as aws_access_key_id and aws_secret_access_key, and s3_endpoint_url where it is not AWS",
)
_SECRETS = {_OWN_ACCOUNT: SECRET, _ACCOUNTS["s3"]: _AWS_SECRET, _ACCOUNTS["r2"]: _AWS_SECRET}
_NO_ACCOUNT = frozenset(
    {"NoCredentialsError", "DefaultCredentialsError", "PartialCredentialsError"}
)
_ADDRESS = {
    "s3": "MLFLOW_S3_ENDPOINT_URL says which endpoint is asked. ",
    "b2": "MLFLOW_S3_ENDPOINT_URL says which endpoint is asked. ",
}
_FORM = " It is written SCHEME://HOST/api/2.0/mlflow-artifacts/artifacts/PATH."
_FORMS = {"http": _FORM, "https": _FORM}


@contextmanager
def reading_from(location: str, tracking: Tracking | None) -> Iterator[None]:
    """Turn what reading a model's files raises into errors that name the place of the files.

    Args:
        location: The artifact URI.
        tracking: The servers that said so; None where the user named the location.
    """
    try:
        yield
    except KfpBentoError:
        raise
    except Exception as failure:
        raise _read(failure, location, tracking) from failure


def within_seconds(ask: Callable[[], _T], seconds: float | None = None) -> _T:
    """Give what a function returns, in its thread, unless it takes too long.

    Args:
        ask: What asks a store; where it is late, its thread goes on, and nobody waits for it.
        seconds: `FIRST_ANSWER_SECONDS` by default.

    Raises:
        TimeoutError: It took too long.
    """
    limit = FIRST_ANSWER_SECONDS if seconds is None else seconds
    outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((ask(), None))
        except BaseException as failure:  # carried to the caller's thread
            outcome.put((None, failure))

    threading.Thread(target=work, name="kfp-bento-listing", daemon=True).start()
    try:
        value, failure = outcome.get(timeout=limit)
    except queue.Empty:
        raise TimeoutError(f"no answer within {limit:.0f} s") from None
    if failure is not None:
        raise failure
    found: _T = value
    return found


def _read(failure: Exception, location: str, tracking: Tracking | None) -> KfpBentoError:
    scheme = urlsplit(location).scheme.lower()
    place = f"The artifacts at {without_password(location)}"
    proxied = scheme == "mlflow-artifacts" and not urlsplit(location).netloc
    if proxied and tracking is not None:
        place = f"The artifacts that {tracking} serves as {without_password(location)}"
    chain = list(causes(failure))
    said = first_line(failure)
    account = _ACCOUNTS.get(scheme, _OWN_ACCOUNT)
    missing = next((cause for cause in chain if isinstance(cause, ImportError)), None)
    if missing is not None:
        return ModelError(
            f"{place} cannot be read: {first_line(missing)}",
            hint="Install the package that this kind of store needs (boto3 for s3).",
        )
    if is_refusal(failure) or {type(cause).__name__ for cause in chain} & _NO_ACCOUNT:
        return ModelError(
            f"{place} may not be read: {said}",
            hint=f"Set {account} for an account that may read them. {_SECRETS.get(account, '')}",
        )
    if is_connection_loss(failure):
        silent = "The registry answered, the store of the artifacts did not. " if tracking else ""
        return ModelError(
            f"{place} cannot be reached: {said}",
            hint=("" if proxied else silent + _ADDRESS.get(scheme, ""))
            + "Try again once it can be reached from here; nothing half-made was left.",
        )
    if "libjvm" in str(failure) or "libhdfs" in str(failure):
        return ModelError(
            f"{place} cannot be read: {said}",
            hint="Such locations need Java and Hadoop's native libraries here (JAVA_HOME, "
            "HADOOP_HOME, ARROW_LIBHDFS_DIR).",
        )
    kind = "" if isinstance(failure, OSError) else f"{type(failure).__name__}: "
    return ModelError(
        f"{place} cannot be read: {kind}{said}",
        hint="Look whether that is a directory which MLflow can list"
        + (", as the registry has it for this model" if tracking else "")
        + f"; credentials come from {account.rstrip(',')}."
        + _FORMS.get(scheme, ""),
    )
