"""The tracking server and model registry that a call talks to, and how its failures read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError, ModelError, in_a_pipeline
from kfp_bento.runtime.models.uri import without_password
from kfp_bento.runtime.proxies import proxy_trouble, told_to_others

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED_HOSTS = "KFP_BENTO_ALLOWED_TRACKING_HOSTS"
"""Hosts (comma separated, `host` or `host:port`) that may be sent the environment's credentials."""

_CREDENTIALS = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)
SECRET = in_a_pipeline("mlflow_secret", "them, as token, or as username and password")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBE_SECONDS = 5

# MLflow's own defaults retry for about four minutes. These ride out a restart of some seconds.
# Telemetry would be a connection to somewhere nobody named.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


_STORES = "MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"


@dataclass(frozen=True)
class Tracking:
    """Where runs and where registered models are kept; the two are the same server by default."""

    tracking_uri: str
    registry_uri: str

    def __str__(self) -> str:
        return without_password(self.registry_uri)


def choose_tracking(tracking_uri: str = "") -> Tracking:
    """Decides which servers to talk to, before anything is sent anywhere.

    Args:
        tracking_uri: The server to use; "" means the environment's `MLFLOW_TRACKING_URI` and
            `MLFLOW_REGISTRY_URI`. A server given here is the registry too, unless it is the
            environment's own.

    Raises:
        InvalidInput: No server is configured, or one was given that must not be sent the
            credentials in the environment (see `ALLOWED_HOSTS`).
    """
    environment = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    registry = os.environ.get("MLFLOW_REGISTRY_URI", "").strip()
    wanted = tracking_uri.strip() or environment
    if not wanted:
        raise InvalidInput(
            "No MLflow tracking server is configured.",
            hint="Give a tracking URI, or set MLFLOW_TRACKING_URI (http://HOST:PORT).",
        )
    if tracking_uri.strip() and _origin(wanted) != _origin(environment):
        registry = ""
        guard_credentials(wanted)
    chosen = Tracking(wanted.rstrip("/"), (registry or wanted).rstrip("/"))
    for uri in {chosen.tracking_uri, chosen.registry_uri}:
        _require_database(uri)
    return chosen


def guard_credentials(uri: str, *, trusted: str = "") -> None:
    """Refuses to send the environment's MLflow credentials to a host they are not meant for.

    MLflow sends its token to whatever server it is pointed at, so whoever may choose the URI
    could collect the token (CWE-200, CWE-918).

    Args:
        uri: The server about to be contacted.
        trusted: A server that was accepted already, besides `MLFLOW_TRACKING_URI`.

    Raises:
        InvalidInput: There are credentials, and the host is neither the environment's, nor this
            machine, nor listed in `ALLOWED_HOSTS`.
    """
    scheme, host, port = _origin(uri)
    if scheme not in ("http", "https") or host in _LOOPBACK or not _credentials():
        return
    environment = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if (scheme, host, port) in (_origin(environment), _origin(trusted)):
        return
    allowed = {entry.strip().lower() for entry in os.environ.get(ALLOWED_HOSTS, "").split(",")}
    if {host, f"{host}:{port}"} & allowed:
        return
    raise InvalidInput(
        f"The environment holds MLflow credentials ({', '.join(_credentials())}) for "
        f"{without_password(environment) or 'no named server (MLFLOW_TRACKING_URI is not set)'}; "
        f"they are not sent to {without_password(uri)}.",
        hint=f"Set MLFLOW_TRACKING_URI to the server they belong to, or {ALLOWED_HOSTS}={host}.",
    )


def tracking_client(tracking: Tracking, *, error: type[KfpBentoError] = ModelError) -> Any:
    """Give an `MlflowClient` for servers that were seen to answer within some seconds.

    Args:
        tracking: What `choose_tracking` gave.
        error: The class to raise when a server does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for uri in dict.fromkeys((tracking.tracking_uri, tracking.registry_uri)):
        if _origin(uri)[0] in ("http", "https"):
            _require_answer(uri, error)
    try:
        return MlflowClient(tracking_uri=tracking.tracking_uri, registry_uri=tracking.registry_uri)
    except (MlflowException, ImportError) as failure:
        raise error(
            f"MLflow cannot use {tracking}: {first_line(failure)}",
            hint="Use an http(s) tracking server, or install the full mlflow package.",
        ) from failure


@contextmanager
def speaking_to(
    tracking: Tracking | str, *, error: type[KfpBentoError] = ModelError
) -> Iterator[None]:
    """Run MLflow calls with bounded patience and turn what they raise into our errors.

    Settings that the user made in the environment are kept; ours last as long as the block and
    are process-wide, as MLflow reads them from the environment at every request.
    """
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with told_to_others(_addresses(tracking)):
            yield
    except KfpBentoError:
        raise
    except Exception as failure:
        raise translated(failure, tracking, error) from failure
    finally:
        for name in added:
            os.environ.pop(name, None)


def _addresses(tracking: Tracking | str) -> list[str]:
    """Give what MLflow's client will ask: the servers, and a store of artifacts that is named."""
    servers = (
        [tracking] if isinstance(tracking, str) else [tracking.tracking_uri, tracking.registry_uri]
    )
    return [*servers, *filter(None, map(os.environ.get, _STORES))]


def proxys_doing(
    failure: BaseException, uri: str, error: type[KfpBentoError] = ModelError
) -> KfpBentoError | None:
    """Say what a proxy has to do with a failure; None where it is nothing."""
    troubles = (proxy_trouble(cause, uri) for cause in causes(failure))
    trouble = next(filter(None, troubles), None)
    return error(trouble.message, hint=trouble.hint) if trouble else None


def translated(
    failure: BaseException, tracking: Tracking | str, error: type[KfpBentoError] = ModelError
) -> KfpBentoError:
    """Say what an MLflow or HTTP failure means to the reader."""
    server = tracking if isinstance(tracking, str) else tracking.tracking_uri
    if told := proxys_doing(failure, server, error):
        return told
    missing = next((cause for cause in causes(failure) if isinstance(cause, ImportError)), None)
    if missing is not None:
        return error(
            f"{tracking} cannot be used: {first_line(missing)}",
            hint="Install the package that this kind of store needs (boto3 for s3).",
        )
    if is_refusal(failure):
        return error(
            f"{tracking} refused access: {first_line(failure)}",
            hint="Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, for an account that may do this. " + SECRET,
        )
    if is_connection_loss(failure):
        return error(
            f"{tracking} stopped answering: {first_line(failure)}",
            hint="Try again once the tracking server is up; nothing half-made was left.",
        )
    return error(
        f"{tracking} failed: {first_line(failure)}",
        hint="Its own log may say more; check its address and the credentials in the environment.",
    )


def is_missing(failure: BaseException) -> bool:
    """Tell whether MLflow says that what was asked for does not exist."""
    return (
        getattr(failure, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" or _status(failure) == 404
    )


@contextmanager
def missing_as(
    message: str, *, hint: str, error: type[KfpBentoError] = ModelError
) -> Iterator[None]:
    """Turn MLflow's word that something does not exist into an error of ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as failure:
        if is_missing(failure):
            raise error(message, hint=hint) from failure
        raise


def is_refusal(failure: BaseException) -> bool:
    """Tell whether the server wants other credentials."""
    return getattr(failure, "error_code", "") in (
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "CUSTOMER_UNAUTHORIZED",
    ) or _status(failure) in (401, 403)


def is_connection_loss(failure: BaseException) -> bool:
    """Tell whether the connection failed, rather than the request."""
    chain = list(causes(failure))
    names = {type(cause).__name__ for cause in chain}
    if "ResponseError" in names:  # the server did answer, with 5xx, as often as it was asked
        return False
    return any(isinstance(cause, ConnectionError | TimeoutError) for cause in chain) or bool(
        names
        & {
            "ChunkedEncodingError",
            "ConnectionError",
            "ConnectTimeout",
            "ConnectTimeoutError",
            "ConnectionClosedError",
            "EndpointConnectionError",
            "IncompleteRead",
            "IncompleteReadError",
            "MaxRetryError",
            "NewConnectionError",
            "ProtocolError",
            "ReadTimeout",
            "ReadTimeoutError",
            "ResponseStreamingError",
            "RetryError",
            "ServiceRequestError",
            "ServiceResponseError",
            "TransportError",
            "gaierror",
        }
    )


def causes(failure: BaseException) -> Iterator[BaseException]:
    """Give an exception and everything it came from, innermost last."""
    seen: set[int] = set()
    cause: BaseException | None = failure
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = _last(cause) or cause.__cause__ or cause.__context__


def first_line(failure: BaseException) -> str:
    """Give the first line of an exception's text, shortened, as one sentence."""
    failure = _last(failure) or failure
    text = (str(failure).strip() or type(failure).__name__).splitlines()[0]
    text = without_password(text)
    return (text[:297] + "...") if len(text) > 300 else text.rstrip(".") + "."


def _last(failure: BaseException) -> BaseException | None:
    """Give what boto3 met last, where it says no more than that it tried too often."""
    found = getattr(failure, "last_exception", None)
    return found if isinstance(found, BaseException) else None


def _status(failure: BaseException) -> int:
    response = getattr(failure, "response", None)
    if isinstance(response, dict):  # botocore
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return int(getattr(response, "status_code", 0) or 0)


def _origin(uri: str) -> tuple[str, str, int]:
    try:
        parsed = urlsplit(uri)
        scheme, port = parsed.scheme.lower(), parsed.port
    except ValueError:
        raise InvalidInput(
            f"{without_password(uri)!r} is not a tracking URI.", hint="Use http(s)://HOST:PORT."
        ) from None
    return scheme, (parsed.hostname or ""), port or {"http": 80, "https": 443}.get(scheme, 0)


def _credentials() -> list[str]:
    found = [name for name in _CREDENTIALS if os.environ.get(name)]
    file = Path("~/.mlflow/credentials").expanduser()
    try:
        if file.is_file():
            found.append("~/.mlflow/credentials")
    except OSError:
        pass
    return found


def _require_database(uri: str) -> None:
    # MLflow would quietly create an empty database and then say that the model is unknown.
    path = uri.partition("sqlite:///")[2]
    if path and path != ":memory:" and not Path(path).is_file():
        raise InvalidInput(
            f"There is no tracking database at {path}.",
            hint="Check the tracking URI; an absolute path is written sqlite:////PATH.",
        )


def _require_answer(uri: str, error: type[KfpBentoError]) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        with told_to_others([uri]):
            response = http_request(
                get_default_host_creds(uri),
                "/version",
                "GET",
                max_retries=0,
                timeout=_PROBE_SECONDS,
                raise_on_status=False,
            )
    except MlflowException as failure:
        if told := proxys_doing(failure, uri, error):
            raise told from failure
        names = {type(cause).__name__ for cause in causes(failure)}
        if "SSLError" in names:
            raise error(
                f"The certificate of {without_password(uri)} is not trusted: {first_line(failure)}",
                hint="Set MLFLOW_TRACKING_SERVER_CERT_PATH to the CA bundle that signed it.",
            ) from failure
        raise error(
            f"The tracking server {without_password(uri)} does not answer.",
            hint="Check the tracking URI and that the server is running and reachable from here.",
        ) from failure
    # Not 403: a gateway may let nothing but the API through.
    if response.status_code == 401:
        raise error(
            f"{without_password(uri)} refused access: HTTP 401.",
            hint="Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD. " + SECRET,
        )
    if response.status_code in (502, 503, 504):
        raise error(
            f"The tracking server {without_password(uri)} is not ready: "
            f"HTTP {response.status_code}.",
            hint="Try again once it is up.",
        )
