"""What a release looks like from outside: a Grafana dashboard and alert rules for Prometheus.

Made of what BentoML's server counts at `/metrics` (`bentoml/_internal/server/http/instruments.py`):
the label `service_name` is the bento's name, `service_version` its version. `namespace` and
`instance` come from Prometheus, as its service discovery in Kubernetes sets them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.errors import DeploymentError, InvalidInput
from kfp_bento.runtime.files import write_whole

_REQUESTS = "bentoml_service_request_total"
_SECONDS = "bentoml_service_request_duration_seconds_bucket"
_IN_PROGRESS = "bentoml_service_request_in_progress"
# Of generated services that log requests (`pyfunc_request_log.py`); of others there is none.
_LOG_LINES = "kfp_bento_request_log_lines_total"
# What probes and scrapers ask is no traffic.
_NO_TRAFFIC = "/(livez|readyz|healthz|metrics)?"
_WINDOW = "5m"
_SOURCE = "${datasource}"
_WIDTH, _HEIGHT = 12, 8


@dataclass(frozen=True)
class Monitoring:
    """A release that is watched.

    Attributes:
        name: Its name.
        namespace: Its namespace.
        bento: The name of its bento.
        error_ratio: Share of answers with 5xx above which an alert fires after five minutes.
        p99_seconds: Latency of the slowest hundredth above which one fires after ten.
        labels: Further labels of the rules, by which an operator of Prometheus finds them.
    """

    name: str
    namespace: str
    bento: str
    error_ratio: float = 0.01
    p99_seconds: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.error_ratio < 1:
            raise InvalidInput("The ratio of errors is none between 0 and 1.", hint="Such as 0.01.")
        if not 0 < self.p99_seconds < float("inf"):
            raise InvalidInput("The latency is no number of seconds.", hint="Such as 0.5.")

    def manifests(self) -> tuple[Manifest, ...]:
        """Give the dashboard as a ConfigMap, and the rules of the Prometheus operator."""
        return (
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": self._metadata("-dashboard", grafana_dashboard="1"),
                "data": {f"{self.name}.json": self.dashboard_text()},
            },
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": self._metadata("", **self.labels),
                "spec": {
                    "groups": [{"name": f"{self.namespace}.{self.name}", "rules": self._rules()}]
                },
            },
        )

    def write(self, directory: Path) -> list[Path]:
        """Write the manifests, and the dashboard by itself for whoever imports it by hand.

        Raises:
            DeploymentError: The directory cannot be written.
        """
        written = write_manifests(self.manifests(), directory)
        dashboard = directory / "dashboard.json"
        try:
            write_whole(self.dashboard_text().encode(), dashboard)
        except OSError as error:
            raise DeploymentError(f"{dashboard} cannot be written: {error.strerror}.") from error
        return [*written, dashboard]

    def dashboard_text(self) -> str:
        """Give the dashboard as Grafana imports it: JSON, keys sorted."""
        return json.dumps(self.dashboard(), indent=2, sort_keys=True) + "\n"

    def dashboard(self) -> dict[str, Any]:
        """Give the dashboard as JSON values."""
        panels = [_panel(number, *one) for number, one in enumerate(self._charts())]
        return {
            "title": f"{self.name} ({self.namespace})",
            "uid": f"kfp-bento-{self.namespace}-{self.name}"[:40],
            "description": f"What {self.bento} answers in {self.namespace}, by its own /metrics.",
            "tags": ["kfp-bento"],
            "schemaVersion": 39,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {
                "list": [
                    {
                        "name": "datasource",
                        "type": "datasource",
                        "query": "prometheus",
                        "label": "Prometheus",
                    }
                ]
            },
            "panels": panels,
        }

    def expressions(self) -> list[str]:
        """Give all expressions in PromQL, of the charts and of the rules."""
        charts = [expression for *_, lines in self._charts() for expression in lines.values()]
        return [*charts, *(str(rule["expr"]) for rule in self._rules())]

    def _charts(self) -> list[tuple[str, str, str, dict[str, str]]]:
        """Title, what it tells, unit, and an expression for each legend."""
        return [
            (
                "Requests per second",
                "By endpoint; probes and scrapes are left out.",
                "reqps",
                {"{{endpoint}}": self._rate("endpoint")},
            ),
            (
                "Answers by status",
                "4xx: what callers did wrong. 5xx: what the service did.",
                "reqps",
                {"{{http_response_code}}": self._rate("http_response_code")},
            ),
            (
                "Share of failed answers",
                f"5xx among all; an alert fires above {self.error_ratio:g}.",
                "percentunit",
                {"failed": self._failed()},
            ),
            (
                "Latency",
                f"Of half, of 95 and of 99 in 100 requests; an alert fires above "
                f"{self.p99_seconds:g} s.",
                "s",
                {f"p{share * 100:g}": self._quantile(share) for share in (0.5, 0.95, 0.99)},
            ),
            (
                "Requests in progress",
                "More and more of them: pods cannot keep up.",
                "short",
                {"{{endpoint}}": f"sum by (endpoint) ({_IN_PROGRESS}{self._selector()})"},
            ),
            (
                "Requests by version",
                "Two at a time: a roll-out or a canary.",
                "reqps",
                {"{{service_version}}": self._rate("service_version")},
            ),
            (
                "Pods that are scraped",
                "None: Prometheus does not find the release, or it is gone.",
                "short",
                {
                    "{{service_version}}": "count by (service_version) (count by (instance, "
                    f"service_version) ({_IN_PROGRESS}{self._selector(traffic=False)}))"
                },
            ),
            (
                "Log of requests",
                "Lines that are written, or lost; nothing where the release logs none.",
                "cps",
                {
                    "{{outcome}}": "sum by (outcome) (rate("
                    f"{_LOG_LINES}{self._selector(traffic=False)}[{_WINDOW}]))"
                },
            ),
        ]

    def _rules(self) -> list[dict[str, Any]]:
        release = f"{self.name} in {self.namespace}"
        lost = self._selector('outcome!="written"', traffic=False)
        return [
            _rule(
                "ReleaseFails",
                f"{self._failed()} > {self.error_ratio:g}",
                "5m",
                "critical",
                f"{release} answers more than {self.error_ratio:.2%} of requests with 5xx.",
                f"kfp-bento release status {self.name} -n {self.namespace} says how its pods are; "
                f"kfp-bento release roll-back {self.name} -n {self.namespace} brings the last good "
                "one back.",
            ),
            _rule(
                "ReleaseIsSlow",
                f"{self._quantile(0.99)} > {self.p99_seconds:g}",
                "10m",
                "warning",
                f"One in a hundred requests to {release} takes longer than {self.p99_seconds:g} s.",
                "More replicas (autoscaling), or requests put together (max_batch_size).",
            ),
            _rule(
                "ReleaseIsSilent",
                f"absent({_IN_PROGRESS}{self._selector(traffic=False)})",
                "10m",
                "critical",
                f"No pod of {release} is scraped.",
                "It has no pods, or Prometheus does not find them (the option metrics of a "
                "workload).",
            ),
            _rule(
                "ReleaseLosesLogLines",
                f"sum(rate({_LOG_LINES}{lost}[{_WINDOW}])) > 0",
                "10m",
                "warning",
                f"{release} loses lines of its log of requests.",
                "outcome=failed: its place takes none, and the pods' log says why; dropped: it is "
                "too slow (a lower KFP_BENTO_REQUEST_LOG_RATE).",
            ),
        ]

    def _rate(self, by: str) -> str:
        return f"sum by ({by}) (rate({_REQUESTS}{self._selector()}[{_WINDOW}]))"

    def _failed(self) -> str:
        failed = self._selector('http_response_code=~"5.."')
        return (
            f"sum(rate({_REQUESTS}{failed}[{_WINDOW}])) / "
            f"sum(rate({_REQUESTS}{self._selector()}[{_WINDOW}]))"
        )

    def _quantile(self, share: float) -> str:
        rate = f"rate({_SECONDS}{self._selector()}[{_WINDOW}])"
        return f"histogram_quantile({share:g}, sum by (le) ({rate}))"

    def _selector(self, *more: str, traffic: bool = True) -> str:
        wanted = [f'namespace="{self.namespace}"', f'service_name="{self.bento}"', *more]
        if traffic:
            wanted.append(f'endpoint!~"{_NO_TRAFFIC}"')
        return "{" + ", ".join(wanted) + "}"

    def _metadata(self, suffix: str, **labels: str) -> dict[str, Any]:
        known = {"app.kubernetes.io/instance": self.name}
        name = f"{self.name}{suffix}"
        return {"name": name, "namespace": self.namespace, "labels": {**labels, **known}}


def _panel(
    number: int, title: str, description: str, unit: str, lines: Mapping[str, str]
) -> dict[str, Any]:
    row, column = divmod(number, 2)
    source = {"type": "prometheus", "uid": _SOURCE}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "expr": expr,
                "legendFormat": legend,
                "datasource": source,
            }
            for place, (legend, expr) in enumerate(lines.items())
        ],
    }


def _rule(
    alert: str, expr: str, held: str, severity: str, summary: str, description: str
) -> dict[str, Any]:
    return {
        "alert": alert,
        "expr": expr,
        "for": held,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }
