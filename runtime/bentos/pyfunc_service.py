"""The BentoML service of a generated bento: guarded, and open to several protocols.

This file lies beside the service in every bento that kfp-bento generates. The class of the service
has for each model a `BentoModel` `model…`, `digest…`, `predict…`, which is its own route, and in an
instance the loaded model `pyfunc…`; and for all `protocols` and `batching`.
"""

from __future__ import annotations

import logging
import os
import re
from functools import cached_property, partial
from typing import Any

import anyio.to_thread
import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped]
from _bentoml_sdk.service import get_current_service  # type: ignore[import-untyped]
from bentoml._internal.context import server_context
from bentoml.exceptions import BentoMLConfigException
from pyfunc_binary import OCTETS  # type: ignore[import-not-found]
from pyfunc_endpoints import Renamed, Served, predict  # type: ignore[import-not-found]
from pyfunc_guard import (  # type: ignore[import-not-found]
    Guard,
    Tokens,
    WithoutValues,
    switch,
)
from pyfunc_kserve import open_inference_routes, v1_routes  # type: ignore[import-not-found]
from pyfunc_lean import Asked, Handler, Lean  # type: ignore[import-not-found]
from pyfunc_mlflow import CSV  # type: ignore[import-not-found]
from pyfunc_mlflow import routes as mlflow_routes
from pyfunc_openapi import described  # type: ignore[import-not-found]
from pyfunc_request_log import RequestLog, Settings  # type: ignore[import-not-found]
from pyfunc_tracing import exporting, flush, provide  # type: ignore[import-not-found]
from pyfunc_workers import Batching, Workers  # type: ignore[import-not-found]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

with bentoml.importing():  # the image has it; the machine that builds the bento may not
    import mlflow.pyfunc

HEALTH_PATHS = ("/ping", "/health", "/v2/health/live", "/v2/health/ready")
PROTOCOLS = ("mlflow", "v2", "v1")
MODEL_NAME = "KFP_BENTO_MODEL_NAME"
"""The variable with one more name of a model that is served alone: that of its endpoint."""


def load_model(path: str) -> Any:
    """Gives a model as MLflow loads it.

    Traces of requests are made only where somebody says where they go to, by a variable or in the
    model's code: MLflow 2.14 and newer write them into the working directory otherwise, a folder
    while loading and one more for each request of a model that traces. MLflow's warnings about
    other releases take half a second, and the bento's lock holds the right ones.
    """
    load = partial(mlflow.pyfunc.load_model, path, suppress_warnings=True)
    if not hasattr(mlflow, "tracing") or os.environ.get("MLFLOW_TRACKING_URI") or exporting():
        return load()
    mlflow.tracing.disable()
    model = load()
    if mlflow.is_tracking_uri_set():
        mlflow.tracing.enable()
    return model


class GuardedService(Service):  # type: ignore[misc]
    """A BentoML service behind `Guard`."""

    def __attrs_post_init__(self) -> None:
        """Refuses to become a service where its tokens cannot be used."""
        super().__attrs_post_init__()
        Tokens()
        switch("KFP_BENTO_LOG_VALUES", default=False)
        Settings.from_environment()
        _model_name()

    @cached_property
    def openapi_spec(self) -> Any:
        """Gives what `/docs.json` shows, made once: it takes long for thousands of columns."""
        return described(super().openapi_spec, self.by_name(), self.protocols)

    def schema(self) -> Any:
        """Gives what `/schema.json` shows, made once."""
        return self._schema

    @cached_property
    def _schema(self) -> Any:
        return super().schema()

    @property
    def protocols(self) -> tuple[str, ...]:
        """What is spoken besides JSON on the models' own routes."""
        return tuple(getattr(self.inner, "protocols", ()))

    @cached_property
    def served(self) -> dict[str, Served]:
        """The models by the names of their methods."""
        workers = Workers(self.config.get("threads", 1))
        batching = Batching(**getattr(self.inner, "batching", {}))
        found = {}
        for name, method in self.apis.items():
            suffix = name[len("predict") :]
            tag = getattr(self.inner, f"model{suffix}").tag
            found[name] = Served(
                (method.route.rpartition("/")[2] if suffix else tag.name, tag.version),
                getattr(self.inner, f"digest{suffix}"),
                method.input_spec,
                partial(_loaded, f"pyfunc{suffix}"),
                workers,
                batching,
            )
        return found

    def by_name(self) -> list[Served | Renamed]:
        """Gives the models by all their names."""
        found: list[Served | Renamed] = [*self.served.values()]
        name = _model_name()
        if name and len(found) == 1 and name != found[0].name:
            found.append(Renamed(found[0], name))
        return found

    def endpoints(self) -> dict[tuple[str, str], Handler]:
        """Gives what answers, by method and path."""
        served = list(self.served.values())
        routes = {
            ("POST", self.apis[name].route): predict(one) for name, one in self.served.items()
        }
        if "mlflow" in self.protocols and len(served) == 1:
            routes |= mlflow_routes(served[0])
        if "v2" in self.protocols:
            routes |= open_inference_routes(self.by_name(), self.name, server_context.bento_version)
        if "v1" in self.protocols:
            routes |= v1_routes(self.by_name())
        return routes

    def to_asgi(self, is_main: bool = True) -> Guard:
        """Gives the ASGI application."""
        logger = logging.getLogger("bentoml._internal.server.http_app")
        if not any(isinstance(known, WithoutValues) for known in logger.filters):
            logger.addFilter(WithoutValues())
        provide()
        app: Starlette = super().to_asgi(is_main=is_main)
        app.debug = False  # it would answer with tracebacks
        endpoints, logged = self.endpoints(), self._request_log()
        if logged is not None:
            endpoints = logged.over(endpoints)
        for (method, path), handler in endpoints.items():
            app.router.routes.insert(0, _route(method, path, handler))
        media: dict[str, tuple[bytes, ...]] = {
            path: (OCTETS,) for _, path in endpoints if path.endswith("/infer")
        }
        media["/invocations"] = (CSV,)

        async def last() -> None:
            if logged is not None:
                await logged.end()
            await anyio.to_thread.run_sync(flush)

        return Guard(app, Lean(app, endpoints, self.name), media, last)

    def _request_log(self) -> RequestLog | None:
        settings = Settings.from_environment()
        if settings is None:
            return None
        return RequestLog(settings, lambda: [one.model for one in self.served.values()])


def _model_name() -> str:
    name = os.environ.get(MODEL_NAME, "")
    if name and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", name):
        raise BentoMLConfigException(f"{MODEL_NAME} is no name: letters, digits, '.', '_' and '-'")
    return name


def _loaded(name: str) -> Any:
    return getattr(get_current_service(), name)


def _route(method: str, path: str, handler: Handler) -> Route:
    """Gives the same for BentoML's own way, with all its middlewares."""

    async def endpoint(request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.raw}
        media = headers.get(b"content-type", b"application/json")
        found = await handler(Asked(await request.body(), media, headers))
        more = {name.decode(): value.decode() for name, value in found.headers}
        return Response(found.body, found.status, more, found.media.decode())

    return Route(path, endpoint, methods=[method], name="health" if path in HEALTH_PATHS else path)
