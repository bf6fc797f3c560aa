"""Dashboards and alerts ask for what a served release really counts."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml
from kfp_bento_command import assert_refused, kfp_bento_here

from kfp_bento.runtime.deployments import Monitoring
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.proof import Golden

OF_PROMETHEUS = {"namespace", "instance"}
_METRIC = re.compile(r"([a-z_]+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)(=~|!~|=|!=)"([^"]*)"')
_GROUPED = re.compile(r"by \(([^)]*)\)")


@pytest.fixture(scope="module")
def live(served_wine: tuple[str, Golden]) -> dict[str, set[str]]:
    """The labels of each metric of a bento that was asked for predictions, and logs them."""
    url, golden = served_wine
    content = golden.requests[0].content
    assert content is not None
    for body in (content.to_bytes(), b"{}"):
        asked = urllib.request.Request(f"{url}/predict", data=body, method="POST")
        asked.add_header("Content-Type", "application/json")
        try:
            urllib.request.urlopen(asked, timeout=30).close()
        except urllib.error.HTTPError as refused:
            assert refused.code == 400
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if match := _METRIC.match(line):
            labels = set(re.findall(r'(\w+)="', match[2]))
            found[match[1]] = found.get(match[1], labels) & labels
    assert 'service_name="wine"' in text
    assert 'endpoint="/predict",http_response_code="200"' in text
    return found


@pytest.mark.slow  # a worker of its own for a served bento
def test_every_expression_asks_for_metrics_and_labels_that_are_there(
    live: dict[str, set[str]],
) -> None:
    expressions = Monitoring("wine", "models", "wine").expressions()
    assert len(expressions) > 8
    for expression in expressions:
        asked = _METRIC.findall(expression)
        assert asked, expression
        for metric, matchers in asked:
            named = {name for name, _, _ in _MATCHER.findall(matchers)}
            grouped = {
                one.strip() for group in _GROUPED.findall(expression) for one in group.split(",")
            }
            assert named | grouped <= live[metric] | OF_PROMETHEUS, expression


def test_every_expression_is_promql() -> None:
    parser = pytest.importorskip("promql_parser")
    for expression in Monitoring("wine", "models", "wine").expressions():
        parser.parse(expression)


def test_probes_are_no_traffic_and_predictions_are() -> None:
    expression = Monitoring("wine", "models", "wine").expressions()[0]
    ((name, how, pattern),) = [one for one in _MATCHER.findall(expression) if one[0] == "endpoint"]
    assert how == "!~", name
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/"):
        assert re.fullmatch(pattern, path)
    for path in ("/predict", "/v2/models/wine/infer", "/invocations"):
        assert not re.fullmatch(pattern, path)


def test_the_command_writes_what_grafana_and_the_operator_read(tmp_path: Path) -> None:
    done = kfp_bento_here(
        *("release", "monitoring", "credit", "-n", "models", "--bento", "credit_model"),
        *("--max-p99-ms", "250", "--rule-label", "release=prometheus", "--to", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    dashboard = json.loads((tmp_path / "dashboard.json").read_text())
    assert dashboard["title"] == "credit (models)"
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(one["x"], one["y"]) for one in places}) == len(places)
    config = yaml.safe_load((tmp_path / "configmap-credit-dashboard.yaml").read_text())
    assert json.loads(config["data"]["credit.json"]) == dashboard
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    rule = yaml.safe_load((tmp_path / "prometheusrule-credit.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    (group,) = rule["spec"]["groups"]
    slow = next(one for one in group["rules"] if one["alert"] == "ReleaseIsSlow")
    assert slow["expr"].endswith("> 0.25")
    assert 'service_name="credit_model"' in slow["expr"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.yaml")}
    kfp_bento_here(
        *("release", "monitoring", "credit", "-n", "models", "--bento", "credit_model"),
        *("--max-p99-ms", "250", "--rule-label", "release=prometheus", "--to", str(tmp_path)),
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.yaml")} == before


@pytest.mark.parametrize("values", [{"error_ratio": 2.0}, {"p99_seconds": 0.0}])
def test_limits_that_are_none_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Monitoring("wine", "models", "wine", **values)  # type: ignore[arg-type]


def test_a_label_that_is_none_is_refused(tmp_path: Path) -> None:
    words = ("release", "monitoring", "a", "--to", str(tmp_path), "--rule-label", "x")
    assert_refused(kfp_bento_here(*words), "is not KEY=VALUE")
