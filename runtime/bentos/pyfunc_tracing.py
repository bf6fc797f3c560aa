"""Traces of requests: a span for each that is answered, and in it one for what the model is asked.

This file lies beside the service in every bento that kfp-bento generates. Nothing is traced unless
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says where spans go to; the
other variables of OpenTelemetry (`OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, ...) mean
what they mean everywhere, since its own SDK reads them. What sends spans is in a bento that was
built with the option `traces`. BentoML's own settings (`tracing.exporter_type`) work as well.

No span holds anything that was sent or answered, nor the text of an exception.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bentoml._internal.container import BentoMLContainer
from bentoml._internal.context import server_context, trace_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.util.http import ExcludeList

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PACKAGES = {"http/protobuf": "http", "grpc": "grpc"}
"""The end of the name of the package that speaks a protocol."""

PROBES = "/(livez|readyz|healthz|metrics)$"
LONGEST_FLUSH_MS = 5000

log = logging.getLogger("bentoml.kfp_bento")


# --- where spans go ------------------------------------------------------------------------------


class Exporting(TracerProvider):
    """The provider that was made as OpenTelemetry's variables say."""


def provide() -> None:
    """Lets spans go where OpenTelemetry's variables say, if they say it; BentoML's own too."""
    if not _first_of(ENDPOINTS) or _are_off() or _are_bentomls():
        return
    protocol = _first_of(PROTOCOLS) or "http/protobuf"
    package = f"opentelemetry-exporter-otlp-proto-{PACKAGES.get(protocol, 'none')}"
    try:
        exporter = importlib.import_module(f"{package.replace('-', '.')}.trace_exporter")
    except ImportError:
        log.warning(
            "No traces: what speaks %s is not in this bento. Build it with the option traces, "
            "which brings http/protobuf, or with the requirement opentelemetry-exporter-otlp-"
            "proto-grpc; OTEL_TRACES_EXPORTER=none keeps this line away.",
            ascii(protocol)[:40],
        )
        return
    os.environ.setdefault(PROTOCOLS[0], protocol)  # MLflow takes gRPC for the default
    own = {"service.name": server_context.bento_name, "service.version": _version()}
    resource = Resource.create({name: value for name, value in own.items() if value})
    resource = resource.merge(OTELResourceDetector().detect())
    trace_context.service_name = resource.attributes.get("service.name")  # for the access log
    provider = Exporting(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter.OTLPSpanExporter()))
    BentoMLContainer.tracer_provider.set(provider)
    if not excluded():
        BentoMLContainer.tracing_excluded_urls.set(ExcludeList([PROBES]))
    trace.set_tracer_provider(provider)  # so that spans of the model's own code come too


def excluded() -> bool:
    """Says whether BentoML's settings leave out some requests."""
    return bool(BentoMLContainer.config.tracing.excluded_urls.get())


def flush() -> None:
    """Sends what has not been sent; done before the process ends."""
    if tracer() is not None:
        BentoMLContainer.tracer_provider.get().force_flush(LONGEST_FLUSH_MS)


def tracer() -> Tracer | None:
    """Gives what makes spans; None where they would go nowhere."""
    if not exporting() and not _are_bentomls():
        return None
    found: Tracer = BentoMLContainer.tracer_provider.get().get_tracer("kfp_bento")
    return found


def exporting() -> bool:
    """Says whether spans go where OpenTelemetry's variables say."""
    return isinstance(BentoMLContainer.tracer_provider.get(), Exporting)


def _first_of(names: Sequence[str]) -> str:
    return next(filter(None, (os.environ.get(name, "").strip() for name in names)), "")


def _are_off() -> bool:
    exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").lower() or "otlp"
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower()
    return "otlp" not in exporters or disabled == "true"


def _are_bentomls() -> bool:
    return BentoMLContainer.config.tracing.exporter_type.get() is not None


def _version() -> str:
    version: str = server_context.bento_version
    return "" if version == "not available" else version


# --- a request -----------------------------------------------------------------------------------


@contextlib.contextmanager
def request_span(tracer: Tracer, path: str, headers: Mapping[bytes, bytes]) -> Iterator[Span]:
    """Makes the span of a POST, below that of whoever asks."""
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    with tracer.start_as_current_span(
        f"POST {path}",
        propagate.extract(carrier, Context()),
        SpanKind.SERVER,
        {"http.request.method": "POST", "http.route": path, "url.path": path},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def note_status(status: int) -> None:
    """Says how the request was answered whose span this is."""
    span = trace.get_current_span()
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


# --- a model -------------------------------------------------------------------------------------

Callers = Sequence[tuple[Context, int]]
"""The contexts of requests that are asked together, and how many rows each has."""


class Traced:
    """Stands for a model, and makes a span each time that it is asked."""

    def __init__(self, model: Any, tracer: Tracer, about: Mapping[str, str]) -> None:
        """Stands for a model.

        Args:
            model: The model.
            tracer: What makes spans.
            about: Its name, version and digest.
        """
        self._model, self._tracer, self._name = model, tracer, about["name"]
        self._about = {f"kfp_bento.model.{key}": value for key, value in about.items()}

        @functools.wraps(model.predict)  # MLflow looks at its parameters
        def predict(data: Any, *given: Any, **named: Any) -> Any:
            with self.asked_for([(get_current(), _rows(data))]):
                return model.predict(data, *given, **named)

        self.predict = predict

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def asked_together(self, callers: Callers, data: Any, *given: Any, **named: Any) -> Any:
        """Asks once for several requests, with a span in the trace of each."""
        with self.asked_for(callers):
            return self._model.predict(data, *given, **named)

    @contextlib.contextmanager
    def asked_for(self, callers: Callers) -> Iterator[None]:
        """Makes the spans; what the model does meanwhile belongs to the first."""
        about = dict[str, Any](self._about)
        if len(callers) > 1:
            about["kfp_bento.batch.requests"] = len(callers)
            about["kfp_bento.batch.rows"] = sum(rows for _, rows in callers)
        spans = [
            self._tracer.start_span(
                f"predict {self._name}", context, attributes={**about, "kfp_bento.rows": rows}
            )
            for context, rows in callers
        ]
        try:
            with trace.use_span(spans[0], record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as error:
            for span in spans:
                span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            for span in spans:
                span.end()


def traced(model: Any, **about: str) -> Any:
    """Gives a model that makes spans, or the model where nobody wants any."""
    found = tracer()
    return model if found is None else Traced(model, found, about)


def ask_together(model: Any, callers: Callers, data: Any, *given: Any, **named: Any) -> Any:
    """Asks a model for several requests at once."""
    if isinstance(model, Traced):
        return model.asked_together(callers, data, *given, **named)
    return model.predict(data, *given, **named)


def _rows(data: Any) -> int:
    """Gives how many rows a model is asked; 0 where that is not clear."""
    if isinstance(data, dict):
        return _rows(next(iter(data.values()), ()))
    shape = getattr(data, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(data) if isinstance(data, (list, tuple)) else 0
