"""The metrics gate: a model measured where it is served, against limits and the champion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_models import DIGEST, TAG, make_golden
from faulty_services import Service, serve
from kfp_bento_command import assert_refused
from kfp_bento_command import kfp_bento_here as kfp_bento

from kfp_bento.runtime import reports
from kfp_bento.runtime.checks import (
    CheckReport,
    Metrics,
    MetricsOptions,
    MetricsOutcome,
    Subject,
    check_metrics,
)
from kfp_bento.runtime.checks.metrics_gate import MetricsGate
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.proof import Golden
from kfp_bento.runtime.reports.gates import classification_metadata


def larger(body: Any) -> Any:
    """Answers whether `a` is above `b`, as 1 and 0; nothing to tensors in bytes."""
    if isinstance(body, bytes):
        return 404, b""
    return 200, [int(row["a"] > row["b"]) for row in body["inputs"]]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Ten rows, of which `larger` answers eight rightly."""
    rows = [(1.0, 2.0, 0)] * 5 + [(3.0, 2.0, 1)] * 3 + [(1.0, 2.0, 1), (3.0, 2.0, 0)]
    lines = "".join(f"{a},{b},{y},n\n" for a, b, y in rows)
    (tmp_path / "rows.csv").write_text(f"a,b,y,note\n{lines}")
    return str(tmp_path / "rows.csv")


def gate(url: str, data: str, label: str = "y", **more: Any) -> MetricsOutcome:
    return check_metrics(make_golden(), data, label, Subject(url), **more)


def test_a_service_is_measured_on_all_rows_and_only_asked_for_its_inputs(data: str) -> None:
    with serve(Service(predict=larger)) as service:
        found = gate(service.url, data, thresholds={"accuracy": {"min": 0.8}}).report
    assert found.passed and found.name == "check_metrics"
    assert found.model_digests == (DIGEST,)
    assert {name: found.measures[name] for name in ("rows", "accuracy", "precision")} == {
        **{"rows": 10, "accuracy": 0.8, "precision": 0.75}
    }
    bodies = [body for body in service.bodies if isinstance(body, dict)]
    assert {tuple(row) for body in bodies for row in body["inputs"]} == {("a", "b")}


def test_a_limit_that_is_not_kept_is_told_with_what_was_measured(data: str) -> None:
    limits = {"accuracy": {"min": 0.9}, "recall": {"min": 0.5, "max": 0.7}}
    with serve(Service(predict=larger)) as service:
        found = gate(service.url, data, thresholds=limits).report
    assert not found.passed
    reasons = [one["reason"] for one in found.evidence if "reason" in one]
    assert reasons == [
        "accuracy is 0.8; it has to be at least 0.9",
        "recall is 0.75; it has to be at most 0.7",
    ]
    assert "1 more limits" in found.summary


def test_the_champion_is_asked_the_same_rows(data: str) -> None:
    def half(body: Any) -> Any:
        return (404, b"") if isinstance(body, bytes) else (200, [0 for _ in body["inputs"]])

    with serve(Service(predict=larger)) as new, serve(Service(predict=half)) as old:
        better = gate(
            *(new.url, data),
            champion=Subject(old.url),
            champion_limits={"accuracy": {"max_drop": 0.0}},
        ).report
        worse = gate(
            *(old.url, data),
            champion=Subject(new.url),
            champion_limits={"accuracy": {"max_drop_ratio": 0.2}, "f1_macro": {"max_drop": 1}},
        ).report
    assert better.passed
    assert better.measures["champion_accuracy"] == 0.6
    assert better.measures["delta_accuracy"] == pytest.approx(0.2)
    assert not worse.passed
    assert "accuracy is 0.6, the champion's 0.8; it has to be at most 20 % worse" in worse.summary


def test_metrics_that_were_kept_stand_for_the_champion_on_the_same_data_alone(
    data: str, tmp_path: Path
) -> None:
    limits = {"accuracy": {"max_drop": 0.1}}
    with serve(Service(predict=larger)) as service:
        gate(service.url, data).metrics.save(tmp_path / "kept.json")
        kept = Metrics.load(tmp_path / "kept.json")
        same = gate(service.url, data, champion=kept, champion_limits=limits)
        Path(data).write_text(Path(data).read_text() + "1.0,2.0,0,n\n")
        with pytest.raises(InvalidInput, match="champion's metrics are of other data"):
            gate(service.url, data, champion=kept, champion_limits=limits)
    assert same.report.passed
    assert same.report.measures["delta_accuracy"] == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"thresholds": {"acuracy": {"min": 1}}}, "no metric 'acuracy'"),
        ({"thresholds": {"accuracy": {"minimum": 1}}}, "accuracy in thresholds has the limit"),
        ({"thresholds": {"accuracy": {"min": True}}}, "accuracy.min in thresholds is True"),
        ({"thresholds": {"accuracy": 0.9}}, "accuracy in thresholds is 0.9"),
        ({"thresholds": {"rmse": {"max": 3}}}, "rmse has no value here"),
        ({"thresholds": {"roc_auc": {"min": 0.9}}}, "roc_auc has no value here"),
        ({"champion_limits": {"accuracy": {"max_drop": 0.1}}}, "no champion"),
        ({"champion_limits": {"accuracy": {"max_drop": -1}}}, "accuracy.max_drop"),
        ({"label": "z"}, "no column 'z'"),
        ({"label": "note", "options": MetricsOptions(task="regression")}, "label 'note' holds"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_its_name(
    more: dict[str, Any], told: str, data: str
) -> None:
    with serve(Service(predict=larger)) as service, pytest.raises(InvalidInput, match=told):
        gate(service.url, data, **more)


def test_rows_that_the_model_refuses_let_it_not_pass(data: str) -> None:
    def picky(body: Any) -> Any:
        if isinstance(body, dict) and any(row["a"] > 2 for row in body["inputs"]):
            return 422, {"detail": "a is too large"}
        return larger(body)

    with serve(Service(predict=picky)) as service:
        found = gate(service.url, data, thresholds={"accuracy": {"min": 0.5}}).report
    assert not found.passed
    assert (found.measures["rows"], found.measures["unanswered"]) == (6, 4)
    assert "4 rows have no answer; the first, row 6: a is too large" in found.summary


def test_a_service_that_is_busy_for_a_moment_is_asked_again(data: str) -> None:
    tries: list[int] = []

    def busy(body: Any) -> Any:
        tries.append(1)
        return (503, b"later") if len(tries) == 1 else larger(body)

    with serve(Service(predict=busy)) as service:
        assert gate(service.url, data).report.passed
    broken = pytest.raises(CheckError, match="fails at rows 1 to 10: 500 broken")
    with serve(Service(predict=lambda _: (500, b"broken"))) as service, broken:
        gate(service.url, data)


def test_a_service_of_ones_own_needs_its_bento(data: str) -> None:
    own = replace(make_golden(), requests=())
    with pytest.raises(InvalidInput, match="do not say how the service is asked") as failure:
        check_metrics(own, data, "y", Subject("http://127.0.0.1:9"))
    assert "Give the bento besides the URL" in failure.value.hint


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_regression_is_measured_in_every_format(form: str, tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame({"a": [1.0, 2, 3], "b": [0.5, 0.5, 0.5], "y": [1.0, 2.5, 3.0]})
    file = tmp_path / f"rows.{form}"
    {
        "csv": lambda: table.to_csv(file, index=False),
        "parquet": lambda: table.to_parquet(file),
        "jsonl": lambda: table.to_json(file, orient="records", lines=True),
    }[form]()

    def same(body: Any) -> Any:
        return (404, b"") if isinstance(body, bytes) else (200, [r["a"] for r in body["inputs"]])

    with serve(Service(predict=same)) as service:
        found = gate(service.url, str(file), thresholds={"max_error": {"max": 0.5}}).report
    assert found.passed
    assert found.measures["mae"] == pytest.approx(0.5 / 3)
    assert sum(found.evidence[-1]["residuals"]["counts"]) == 3


def test_a_release_is_measured_as_one_of_its_checks(data: str) -> None:
    golden, wanted = make_golden(), {"data": data, "label": "y"}
    with serve(Service(predict=larger)) as service:
        good, bad = (
            MetricsGate.of(wanted | {"thresholds": {"f1": {"min": least}}}).report(
                service.url, golden
            )
            for least in (0.7, 0.8)
        )
    assert (good.name, good.passed, bad.passed) == ("check_metrics", True, False)
    for options, told in (
        ({"label": "y"}, "metrics needs data"),
        (wanted | {"treshold": {}}, "metrics has no option 'treshold'"),
        (wanted | {"thresholds": []}, "metrics: thresholds is"),
    ):
        with pytest.raises(InvalidInput, match=told):
            MetricsGate.of(options)


def wine_table(folder: Path) -> str:
    from sklearn.datasets import load_wine

    table = load_wine(as_frame=True).frame
    table.to_csv(folder / "wine.csv", index=False)
    return str(folder / "wine.csv")


@pytest.mark.slow
def test_a_real_bento_is_measured_the_same_where_it_is_served_and_where_it_lies(
    served_wine: tuple[str, Golden],
    wine_model: ModelVersion,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kfp_bento.runtime.bentos import build_bento

    monkeypatch.setenv("KFP_BENTO_CACHE", str(shared_cache))
    (url, golden), data = served_wine, wine_table(tmp_path)
    bento = build_bento([wine_model], tmp_path / "bento")
    limits = {"accuracy": {"max_drop": 0.0}}
    found = check_metrics(
        *(golden, data, "target", Subject(url)),
        champion=Subject(bento=bento),
        thresholds={"accuracy": {"min": 0.95}},
        champion_limits=limits,
    ).report
    assert found.passed, found.summary
    assert found.measures["rows"] == 178
    assert found.measures["delta_accuracy"] == 0
    with pytest.raises(InvalidInput, match="golden answers are of the bento"):
        check_metrics(make_golden(), data, "target", Subject(bento=bento))


def test_kubeflow_gets_matrix_and_curve_as_its_own_class_writes_them(data: str) -> None:
    from kfp import dsl

    def likely(body: Any) -> Any:
        if isinstance(body, bytes):
            return 404, b""
        return 200, [0.9 if row["a"] > row["b"] else 0.25 for row in body["inputs"]]

    with serve(Service(predict=likely)) as service:
        report = gate(service.url, data).report
    matrix, curve = dsl.ClassificationMetrics(), dsl.ClassificationMetrics()
    matrix.log_confusion_matrix(["0", "1"], [[5, 1], [1, 3]])
    roc = next(one["roc"] for one in report.evidence if "roc" in one)[0]["points"]
    curve.log_roc_curve(*map(list, zip(*roc, strict=True)))
    found = classification_metadata(report)
    assert found == {**matrix.metadata, **curve.metadata}
    json.dumps(found, allow_nan=False)


def test_the_command_ends_with_1_where_a_limit_is_not_kept(data: str, tmp_path: Path) -> None:
    make_golden().save(tmp_path / "golden.json")
    asked = ("--golden", tmp_path / "golden.json", "--data", data, "--label", "y")
    with serve(Service(predict=larger)) as service:
        passed = kfp_bento(
            *("check", "metrics", "--url", service.url, *asked, "--threshold", "accuracy>=0.8"),
            *("--keep", tmp_path / "kept.json", "--html", tmp_path / "page.html", "--json"),
        )
        failed = kfp_bento(
            *("check", "metrics", "--url", service.url, *asked, "--threshold", "f1 >= 0.9"),
            *("--champion", tmp_path / "kept.json", "--report", tmp_path / "report.json"),
            *("--champion-limits", '{"accuracy": {"max_drop": 0}}'),
        )
        refused = kfp_bento(
            "check", "metrics", "--url", service.url, *asked, "--threshold", "accuracy=0.9"
        )
    assert passed.returncode == 0, passed.stderr
    assert json.loads(passed.stdout)["measures"]["accuracy"] == 0.8
    assert failed.returncode == 1, failed.stderr
    assert "f1 is 0.75; it has to be at least 0.9" in failed.stdout
    assert not CheckReport.load(tmp_path / "report.json").passed
    assert_refused(refused, "The threshold 'accuracy=0.9' is none")
    nobody = kfp_bento("check", "metrics", "--url", "http://127.0.0.1:9", *asked)
    assert_refused(nobody, "gives no answer")


def test_the_page_needs_nothing_else_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    (tmp_path / "rows.csv").write_text(f"a,b,y\n1,2,plain\n2,1,{evil.replace(chr(34), '')}\n")

    def named(body: Any) -> Any:
        return (404, b"") if isinstance(body, bytes) else (200, ["plain" for _ in body["inputs"]])

    with serve(Service(predict=named)) as service:
        page = reports.metrics_page(gate(service.url, str(tmp_path / "rows.csv")).report)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http://www" not in page and "src=" not in page
    assert TAG not in page
