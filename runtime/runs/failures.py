"""What a failure of `kfp.Client` means to the reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kfp_bento.runtime.errors import RunError, RunUnavailable
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.proxies import ProxyTrouble, proxy_for, proxy_trouble, refused_by_proxy

_SHOWN = 500
_LOGIN = "Give a token that is valid: --token-file, or KFP_BENTO_KFP_TOKEN."
_AGAIN = "Try again once it is up; its pods are ml-pipeline in the namespace kubeflow."
_PASSING = {408, 429, 500, 502, 503, 504}
# gRPC's codes, which the API gives beside HTTP's.
_NOT_FOUND, _UNAVAILABLE = 5, 14


def translated(failure: Exception, host: str) -> RunError:
    """Say what a failure means.

    Args:
        failure: What kfp.Client, the generated client or urllib3 raised.
        host: The address, for the message.
    """
    import urllib3
    from kfp_server_api import ApiException

    if trouble := _at_proxy(failure, host):
        kind = RunError if trouble.lasting else RunUnavailable
        return kind(trouble.message, hint=trouble.hint)
    names = {type(one).__name__ for one in _causes(failure)}
    if "SSLError" in names or "SSLError" in str(getattr(failure, "reason", "")):
        return RunError(
            f"The certificate of {host} is not trusted: {_line(failure)}",
            hint="Give the file of its authority: --ca, or SSL_CERT_FILE.",
        )
    if isinstance(failure, ApiException):
        return _refused(failure, host)
    if isinstance(failure, urllib3.exceptions.HTTPError):
        return RunUnavailable(f"{host} does not answer: {_line(failure)}", hint=_AGAIN)
    if isinstance(failure, OSError):
        return RunError(f"{failure.strerror or failure} ({failure.filename}).", hint=_LOGIN)
    return RunError(
        f"{host} answered something that is no Kubeflow Pipelines API: {_line(failure)}",
        hint="Check the address; the API of version 2 is needed (…/apis/v2beta1).",
    )


def _at_proxy(failure: Exception, host: str) -> ProxyTrouble | None:
    """Say what the proxy before the server has to do with it; None where it is nothing."""
    if getattr(failure, "status", None) == 407 and (proxy := proxy_for(host)):
        return refused_by_proxy(proxy, host, f"407 {getattr(failure, 'reason', '')}".rstrip())
    return proxy_trouble(failure, host)


def _refused(failure: Any, host: str) -> RunError:
    status = int(failure.status or 0)
    told, code = _told(failure.body)
    if status in _PASSING or code == _UNAVAILABLE:
        return RunUnavailable(f"{host} failed: HTTP {status} {told}".rstrip(), hint=_AGAIN)
    if 300 <= status < 400:
        return RunError(f"{host} asks for a login (HTTP {status}).", hint=_LOGIN)
    if status == 401:
        return RunError(f"{host} does not know who asks: HTTP 401 {told}".rstrip(), hint=_LOGIN)
    if status == 403:
        return RunError(
            f"{host} refuses: HTTP 403 {told}".rstrip(),
            hint="The account needs the right to create and read runs in that --namespace; a "
            "namespace that is no profile is refused like this too.",
        )
    if status == 404 and code != _NOT_FOUND:
        return RunError(
            f"There is no Kubeflow Pipelines API of version 2 at {host}: HTTP 404.",
            hint="Check the address, often https://HOST/pipeline; servers before 2.0 are too old.",
        )
    return RunError(
        f"{host} refuses: HTTP {status} {told}".rstrip(),
        hint="Check --namespace, --experiment and the parameters against what it says.",
    )


def _told(body: Any) -> tuple[str, int]:
    """Give the message and the gRPC code of an error's body."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = parse_json(text[:65536].encode())
    except ValueError:
        return " ".join(text.split())[:_SHOWN], 0
    if not isinstance(found, dict):
        return "", 0
    message = str(found.get("message") or found.get("error") or "")
    code = found.get("code")
    return " ".join(message.split())[:_SHOWN], code if isinstance(code, int) else 0


def _line(failure: BaseException) -> str:
    return " ".join(str(failure).split())[:_SHOWN]


def _causes(failure: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while failure is not None and seen < 10:
        yield failure
        reason = getattr(failure, "reason", None)
        nested = reason if isinstance(reason, BaseException) else None
        failure, seen = nested or failure.__cause__ or failure.__context__, seen + 1
