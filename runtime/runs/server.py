"""The Kubeflow Pipelines API that runs are submitted to, through `kfp.Client`.

What kfp.Client lacks is put around it here: a deadline for each request, no redirects to a login
page, the environment's certificates and proxies, nothing printed, nothing written to the user's
home, and failures in our words.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError
from kfp_bento.runtime.proxies import proxy_for
from kfp_bento.runtime.runs.failures import translated
from kfp_bento.runtime.runs.run_state import RunState, read_run

TOKEN = "KFP_BENTO_KFP_TOKEN"  # noqa: S105 - the name of a variable
"""Variable that may hold the token for the API."""

SECONDS = (10, 60)
"""For a connection, and for an answer to go on."""

# The addresses that kfp.Client itself knows in a cluster.
IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
# kfp.Client asks the server in its constructor where no namespace is given, without a deadline.
_LATER = "-"


@dataclass(frozen=True)
class PipelinesServer:
    """Where runs go, and how this process shows who it is.

    Attributes:
        host: Address of the API, http(s)://HOST[:PORT][/PATH].
        namespace: Namespace of the runs; empty where the server has one user.
        ca: File with the certificates that are trusted; empty takes the usual ones.
        token_file: File with the token, read anew for each request; empty takes `TOKEN`, or none.
    """

    host: str
    namespace: str = ""
    ca: str = ""
    token_file: str = ""


def choose_server(
    host: str = "", *, namespace: str = "", ca: str = "", token_file: str = ""
) -> PipelinesServer:
    """Settle where runs go; what is not given comes from the environment, then from the pod.

    Raises:
        InvalidInput: There is no address, or a file is not there.
    """
    in_pod = (_ACCOUNT / "namespace").is_file()
    host = host or os.environ.get("KF_PIPELINES_ENDPOINT", "") or (IN_CLUSTER if in_pod else "")
    parts = urlsplit(host if "//" in host else f"https://{host}")
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise InvalidInput(
            f"{host!r} is no address of Kubeflow Pipelines." if host else "Where shall it run?",
            hint="Give --host https://HOST/pipeline, or set KF_PIPELINES_ENDPOINT.",
        )
    if parts.username or parts.password:
        raise InvalidInput(
            "The address of Kubeflow Pipelines holds a password.",
            hint=f"Give a token: --token-file, or {TOKEN}.",
        )
    own = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", "") or str(_POD_TOKEN)
    if not token_file and not os.environ.get(TOKEN) and Path(own).is_file():
        token_file = own
    ca = ca or os.environ.get("SSL_CERT_FILE", "")
    for name, file in (("--token-file", token_file), ("--ca", ca)):
        if file and not Path(file).is_file():
            raise InvalidInput(f"{name}: there is no file {file}.")
    return PipelinesServer(parts.geturl().rstrip("/"), namespace, ca, token_file)


class PipelinesApi:
    """Kubeflow Pipelines, asked by `kfp.Client`.

    Args:
        server: Where it is. Where it has many users and no namespace was given, that of the pod
            is taken; where it has one user, runs have no namespace.

    Raises:
        RunError: It does not answer, or wants a namespace.
    """

    def __init__(self, server: PipelinesServer) -> None:
        self.server = server
        with self._speaking():
            self._client = _bounded_client(server)
        self._settle_namespace()

    def create(
        self,
        package: Path,
        arguments: Mapping[str, Any],
        name: str,
        *,
        experiment: str = "",
        service_account: str = "",
    ) -> str:
        """Start a run and give its id.

        Raises:
            RunUnavailable: No answer came: whether it was started is not known.
            RunError: It was refused.
        """
        with self._speaking():
            made = self._client.create_run_from_pipeline_package(
                str(package),
                arguments=dict(arguments),
                run_name=name,
                experiment_name=experiment or None,
                namespace=self.server.namespace or None,
                service_account=service_account or None,
            )
            return read_run(made.run_info).run_id

    def upload(self, package: Path, name: str, version: str) -> tuple[str, bool]:
        """Upload a compiled pipeline, unless its newest version is that one, and give its page.

        Args:
            package: The YAML.
            name: Name of the pipeline; where it is there, a version of it is added.
            version: Name of the version, which says what is in it.

        Returns:
            The address of its page, for people, and whether that is its newest version already.

        Raises:
            RunError: It was refused, or no answer came.
        """
        namespace = self.server.namespace or None
        with self._speaking():
            found = self._client.list_pipelines(namespace=namespace, filter=_named(name))
            there = next((one for one in found.pipelines or () if one.display_name == name), None)
            if there is None:
                # The first version has the pipeline's name; its own stands in the description.
                made = self._client.upload_pipeline(
                    str(package), pipeline_name=name, description=version, namespace=namespace
                )
                return self._pipeline_page(made.pipeline_id), False
            known = self._newest_version(there) == version
            if not known:
                self._client.upload_pipeline_version(
                    str(package),
                    self._free_name(there.pipeline_id, version),
                    pipeline_id=there.pipeline_id,
                    description=version,
                )
            return self._pipeline_page(there.pipeline_id), known

    def _newest_version(self, pipeline: Any) -> str:
        """Say what is in the version of a pipeline that Kubeflow starts unless told otherwise."""
        found = self._client.list_pipeline_versions(
            pipeline.pipeline_id, page_size=1, sort_by="created_at desc"
        )
        newest = next(iter(found.pipeline_versions or ()), None)
        if newest is None or newest.display_name == pipeline.display_name:
            return str(pipeline.description)
        return str(newest.description or newest.display_name)

    def _free_name(self, pipeline_id: str, version: str) -> str:
        """Give a name for a version that came before, and comes back, too: no two have one name."""
        for number in count(1):
            name = version if number == 1 else f"{version}-{number}"
            found = self._client.list_pipeline_versions(pipeline_id, filter=_named(name))
            if not found.pipeline_versions:
                break
        return name

    def _pipeline_page(self, pipeline_id: str) -> str:
        return f"{self._client._get_url_prefix()}/#/pipelines/details/{pipeline_id}"

    def find(self, name: str) -> RunState | None:
        """Give the newest run of a name."""
        with self._speaking():
            found = self._client.list_runs(
                namespace=self.server.namespace or None,
                filter=_named(name),
                sort_by="created_at desc",
            )
            runs = [read_run(run) for run in found.runs or ()]
        return next((run for run in runs if run.name == name), None)

    def state(self, run_id: str) -> RunState:
        """Give how a run and its steps stand."""
        with self._speaking():
            return read_run(self._client.get_run(run_id))

    def page(self, run_id: str) -> str:
        """Give the address of a run's page, for people."""
        return f"{self._client._get_url_prefix()}/#/runs/details/{run_id}"

    def _settle_namespace(self) -> None:
        """Take the pod's namespace where none was given, and none where there is one user."""
        with self._speaking():
            many = bool(self._client._healthz_api.healthz_service_get_healthz().multi_user)
        own = _ACCOUNT / "namespace"
        if many and not self.server.namespace and not own.is_file():
            raise InvalidInput(
                f"{self.server.host} has many users, each with a namespace.",
                hint="Give --namespace, the one of your profile.",
            )
        namespace = (self.server.namespace or own.read_text().strip()) if many else ""
        self.server = replace(self.server, namespace=namespace)
        self._client._context_setting["namespace"] = namespace

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Run calls of kfp.Client: in silence, and with failures that say what to do."""
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except KfpBentoError:
            raise
        except Exception as failure:
            raise translated(failure, self.server.host) from failure


def _named(name: str) -> str:
    """Give the filter for what has a name."""
    wanted = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [wanted]})


def _bounded_client(server: PipelinesServer) -> Any:
    import kfp
    from kfp.client import ServiceAccountTokenVolumeCredentials

    file, proxy = server.token_file, proxy_for(server.host)
    client: Any = kfp.Client(
        host=server.host,
        namespace=server.namespace or _LATER,
        existing_token=None if file else os.environ.get(TOKEN),
        credentials=ServiceAccountTokenVolumeCredentials(file) if file else None,
        ssl_ca_cert=server.ca or None,
        proxy=proxy.address if proxy else None,
    )
    client._context_setting["namespace"] = server.namespace
    api = client._run_api.api_client
    api.configuration.proxy_headers = proxy.headers if proxy else None
    api.rest_client = _bounded_transport(api.configuration)
    return client


def _bounded_transport(configuration: Any) -> Any:
    """Give the generated client's transport with a deadline for each request.

    A redirect is an answer: it leads to a login page, and what stands there is no API. Nor is a
    page that comes at once: the generated client would read an empty list out of it.
    """
    import urllib3
    from kfp_server_api.rest import RESTClientObject

    class Bounded(RESTClientObject):  # type: ignore[misc] # it has no types
        def request(self, *arguments: Any, **more: Any) -> Any:
            more["_request_timeout"] = more.get("_request_timeout") or SECONDS
            answer = super().request(*arguments, **more)
            if not answer.data.lstrip().startswith(b"{"):
                raise ValueError(answer.data[:100].decode("utf-8", "replace"))
            return answer

    configuration.retries = urllib3.Retry(1, read=0, redirect=False, raise_on_redirect=False)
    return Bounded(configuration)
