"""Drift: what has changed is told column by column, and chance alone is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kfp_bento_command import assert_refused
from kfp_bento_command import kfp_bento_here as kfp_bento

from kfp_bento.runtime import reports
from kfp_bento.runtime.checks import (
    CheckReport,
    DriftOptions,
    Statistics,
    describe_data,
    detect_drift,
    find_statistics,
)
from kfp_bento.runtime.checks.drift import psi
from kfp_bento.runtime.errors import InvalidInput


def table(rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": draw.normal(100, 15, rows),
            "visits": draw.integers(0, 3, rows),
            "rooms": np.full(rows, 2),
            "city": draw.choice(["Rome", "Oslo", "Bonn"], rows, p=[0.6, 0.3, 0.1]),
            "member": draw.random(rows) < 0.25,
            "name": [f"person {n}" for n in draw.integers(0, 1 << 40, rows)],
        }
    )


@pytest.fixture(scope="module")
def then(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    file = tmp_path_factory.mktemp("then") / "then.csv"
    table(5000).to_csv(file, index=False)
    return describe_data(str(file))


def drift(then: Statistics, now: pd.DataFrame, folder: Path, **options: Any) -> CheckReport:
    now.to_csv(folder / "now.csv", index=False)
    return detect_drift(then, str(folder / "now.csv"), DriftOptions(**options))


def reasons(report: CheckReport) -> dict[str, str]:
    return {one["column"]: one["reason"] for one in report.evidence if "reason" in one}


@pytest.mark.parametrize("rows", [30, 100, 300, 1000])
def test_chance_alone_is_no_drift(rows: int, then: Statistics, tmp_path: Path) -> None:
    found = [reasons(drift(then, table(rows, seed), tmp_path)) for seed in range(1, 6)]
    assert found == [{}] * 5


CHANGES: dict[str, tuple[str, Callable[[pd.Series], Any], str]] = {
    "shifted": ("amount", lambda old: old + 15, "PSI is"),
    "wider": ("amount", lambda old: 100 + 2.5 * (old - 100), "PSI is"),
    "outside": ("visits", lambda old: old + 5, "PSI is"),
    "another constant": ("rooms", lambda old: old + 1, "PSI is"),
    "other shares": ("city", lambda old: old.where(old != "Rome", "Bonn"), "PSI is"),
    "new values": (
        "city",
        lambda old: old.where(old != "Bonn", "Kyiv"),
        "the share of values that were not there is",
    ),
    "flipped": ("member", lambda old: ~old, "PSI is"),
    "missing": (
        "amount",
        lambda old: old.where(old > 90),
        "the change of missing values is",
    ),
    "text": ("amount", lambda old: old.map("{:.0f} EUR".format), "it was numeric and is cate"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_with_its_column_and_no_other(
    change: str, then: Statistics, tmp_path: Path
) -> None:
    column, make, told = CHANGES[change]
    now = table(500, 7)
    now[column] = make(now[column])
    found = reasons(drift(then, now, tmp_path))
    assert list(found) == [column]
    assert told in found[column]


def test_the_data_have_drifted_where_enough_columns_have(then: Statistics, tmp_path: Path) -> None:
    now = table(500, 7)
    now["amount"] += 30
    one = drift(then, now, tmp_path)
    assert one.passed
    assert one.measures["drifted_columns"] == 1
    assert "within the share of 0.3" in one.summary
    assert not drift(then, now, tmp_path, share=0.0).passed
    assert not drift(then, now, tmp_path, prediction="amount").passed
    now["city"] = "Oslo"
    two = drift(then, now, tmp_path)
    assert not two.passed
    assert two.measures["drifted_share"] == pytest.approx(2 / 6)


def test_a_column_that_is_gone_or_of_another_kind_always_counts(
    then: Statistics, tmp_path: Path
) -> None:
    gone = drift(then, table(500, 7).drop(columns="visits"), tmp_path, share=1.0)
    assert not gone.passed
    assert "visits: it is missing" in gone.summary
    more = table(500, 7).assign(extra=1)
    assert drift(then, more, tmp_path).passed


def test_limits_are_options_and_0_switches_one_off(then: Statistics, tmp_path: Path) -> None:
    now = table(500, 7)
    now["amount"] += 3
    assert not reasons(drift(then, now, tmp_path))
    assert "Kolmogorov-Smirnov" in reasons(drift(then, now, tmp_path, ks=0.05))["amount"]
    now["city"] = "Kyiv"
    quiet = {"psi": 0.0, "new_values": 0.0}
    assert not reasons(drift(then, now, tmp_path, **quiet))
    found = reasons(drift(then, now, tmp_path, **quiet, total_variation=0.5))
    assert list(found) == ["city"]
    with pytest.raises(InvalidInput, match="psi is -1"):
        DriftOptions(psi=-1)


def test_the_kolmogorov_smirnov_statistic_is_that_of_scipy_at_the_bins(tmp_path: Path) -> None:
    from scipy.stats import ks_2samp

    one, other = table(3000, 1)[["amount"]], table(3000, 2)[["amount"]] + 5
    one.to_csv(tmp_path / "one.csv", index=False)
    found = drift(describe_data(str(tmp_path / "one.csv")), other, tmp_path)
    exact = ks_2samp(one["amount"], other["amount"]).statistic
    measured = found.evidence[0]["measures"]["ks"]
    assert exact - 0.02 <= measured <= exact


def test_equal_counts_have_a_psi_of_0_and_empty_groups_a_finite_one() -> None:
    same = np.array([5, 0, 10])
    assert psi(same, same) == 0
    assert 0 < psi(np.array([10, 0]), np.array([0, 10])) < 20


def test_too_few_rows_and_unknown_columns_are_refused(then: Statistics, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="12 rows, which say nothing"):
        drift(then, table(12), tmp_path)
    with pytest.raises(InvalidInput, match="do not describe the column 'town'"):
        drift(then, table(50), tmp_path, columns=("town",))
    only = drift(then, table(50, 3), tmp_path, columns=("city",), prediction="visits")
    assert only.measures["columns"] == 2


@pytest.mark.slow
def test_statistics_come_from_the_run_that_logged_a_model(
    then: Statistics, mlflow_server: str, tmp_path: Path
) -> None:
    import mlflow
    from wine import log_wine_model

    then.save(tmp_path / "statistics.json")
    version = log_wine_model("described wine").registered_model_version
    uri = f"models:/described wine/{version}"
    at = ("--tracking-uri", mlflow_server)
    bare = kfp_bento("check", "drift", uri, tmp_path / "none.csv", *at)
    assert_refused(bare, "has no artifact statistics.json")
    run = mlflow.MlflowClient().get_model_version("described wine", str(version)).run_id
    mlflow.MlflowClient().log_artifact(run, str(tmp_path / "statistics.json"))
    assert find_statistics(model_uri=uri) == then


def test_the_commands_describe_and_compare(tmp_path: Path) -> None:
    now = table(300, 3)
    table(2000).to_csv(tmp_path / "then.csv", index=False)
    now.to_csv(tmp_path / "same.csv", index=False)
    now.assign(amount=0, visits=9).to_csv(tmp_path / "other.csv", index=False)
    statistics = tmp_path / "statistics.json"
    described = kfp_bento("check", "describe", tmp_path / "then.csv", "--to", statistics)
    assert described.returncode == 0, described.stderr
    assert "amount, visits, rooms" in described.stdout
    same = kfp_bento("check", "drift", statistics, tmp_path / "same.csv", "--json")
    assert (same.returncode, json.loads(same.stdout)["passed"]) == (0, True)
    page = tmp_path / "page.html"
    other = kfp_bento("check", "drift", statistics, tmp_path / "other.csv", "--html", page)
    assert other.returncode == 1
    assert "amount: PSI is" in other.stdout
    assert "<script" not in page.read_text()
    assert_refused(kfp_bento("check", "drift", tmp_path / "no", tmp_path / "same.csv"), "There are")


def test_the_page_shows_each_column_and_escapes_its_name(tmp_path: Path) -> None:
    frame = pd.DataFrame({"<b>a</b>": range(50), "c": ["<i>"] * 50})
    frame.to_csv(tmp_path / "then.csv", index=False)
    page = reports.drift_page(drift(describe_data(str(tmp_path / "then.csv")), frame, tmp_path))
    assert page.count("<svg viewBox") == 2
    assert "<b>a" not in page and "&lt;b&gt;a" in page and "<i>" not in page.split("</ul>")[1]
