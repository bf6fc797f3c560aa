"""From a table to an alias: a ready-made trainer, the whole road, and the gates on the way back."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from kfp_bento.runtime.local import ADDRESS_VARIABLE, local_target, run_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PIPELINE = """\
from kfp import dsl

from kfp_bento.components import build_bento, check_metrics, pull_model, train_sklearn
from kfp_bento.pipelines import train_to_serve

trained = train_to_serve(train_sklearn, name="trained")


@dsl.pipeline
def gate(model_uris: list, data: str, tracking_uri: str):
    models = pull_model(model_uris=model_uris, tracking_uri=tracking_uri).outputs["models"]
    bento = build_bento(models=models)
    check_metrics(
        golden=bento.outputs["golden"],
        bento=bento.outputs["bento"],
        data=data,
        label="target",
        thresholds={"accuracy": {"min": 0.9}, "recall_macro": {"min": 0.999999}},
    )
"""


def wine_table(folder: Path) -> str:
    from sklearn.datasets import load_wine

    load_wine(as_frame=True).frame.to_csv(folder / "wine.csv", index=False)
    return str(folder / "wine.csv")


def test_a_table_becomes_a_promoted_service(
    mlflow_server: str, shared_cache: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    data = wine_table(tmp_path)
    (tmp_path / "ready_made.py").write_text(PIPELINE)
    arguments = {
        "data": data,
        "label": "target",
        "model_name": "ready made",
        "params": {"max_iter": 20},
        "image_base": "host",
        "image_destination": f"oci:{tmp_path}/image",
        "promote_alias": "live",
        "check_gates": {
            "metrics": {"data": data, "label": "target", "thresholds": {"accuracy": {"min": 0.9}}}
        },
        "deploy_target": "workload",
        "tracking_uri": mlflow_server,
    }
    with local_target(tmp_path / "target", cache=shared_cache) as target:
        environment = {
            **{ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)},
            "PYTHONPATH": str(tmp_path),
        }
        run = run_pipeline(
            "ready_made:trained", arguments, tmp_path / "run", environment=environment
        )
        with urllib.request.urlopen(f"{target.services[-1].url}/readyz", timeout=10) as answer:
            assert answer.status == 200
    checked = run.record("check-release", "reports")
    assert [one["name"] for one in checked["reports"] if one["passed"]][-1] == "check_metrics"
    assert MlflowClient().get_model_version_by_alias("ready made", "live").version == "1"

    gate = run_pipeline(
        "ready_made:gate",
        {
            "model_uris": ["models:/ready made@live"],
            "data": data,
            "tracking_uri": mlflow_server,
        },
        tmp_path / "gate",
        environment=environment,
    )
    report = gate.record("check-metrics", "report")
    assert report["measures"]["accuracy"] > 0.9
    assert (report["passed"], len(report["model_digests"])) == (False, 1)
    assert [one["request"] for one in report["evidence"] if "reason" in one] == ["recall_macro"]
    assert gate.record("check-metrics", "kept")["data"].startswith("sha256:")
    assert "Confusion matrix" in gate.output("check-metrics", "page").read_text()


def test_a_model_is_trained_anew_where_data_have_drifted(
    mlflow_server: str, shared_cache: Path, tmp_path: Path
) -> None:
    import pandas as pd
    from mlflow import MlflowClient

    data = wine_table(tmp_path)
    drifted = pd.read_csv(data) * 3
    drifted.to_csv(tmp_path / "drifted.csv", index=False)
    arguments = {
        "data": data,
        "label": "target",
        "model_name": "watched",
        "params": {"max_iter": 20},
        "image_base": "host",
        "image_destination": f"oci:{tmp_path}/image",
        "promote_alias": "live",
        "deploy_target": "workload",
        "tracking_uri": mlflow_server,
        "drift_model_uri": "models:/watched/1",
    }
    with local_target(tmp_path / "target", cache=shared_cache) as target:
        environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}

        def runs(pipeline: str, **more: str) -> list[str]:
            given = {**arguments, **more}
            done = run_pipeline(pipeline, given, tmp_path / "run", environment=environment)
            return list(done.seconds)

        (tmp_path / "first.py").write_text(PIPELINE)
        first = {key: value for key, value in arguments.items() if not key.startswith("drift_")}
        run_pipeline(
            "first:trained",
            first,
            tmp_path / "first",
            environment={**environment, "PYTHONPATH": str(tmp_path)},
        )
        assert runs("retrain_on_drift", drift_data=data) == ["detect-drift", "settle-run"]
        assert MlflowClient().get_model_version_by_alias("watched", "live").version == "1"
        steps = runs("retrain_on_drift", drift_data=str(tmp_path / "drifted.csv"))
    assert steps[:2] == ["detect-drift", "train-sklearn"]
    assert steps[-2:] == ["promote-model", "settle-run"]
    assert MlflowClient().get_model_version_by_alias("watched", "live").version == "2"
