"""Measure a model on labelled data, against thresholds and the champion."""

import os

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def check_metrics(
    golden: dsl.Input[dsl.Artifact],
    data: str,
    label: str,
    report: dsl.Output[dsl.Artifact],
    kept: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    url: str = "",
    bento: dsl.Input[dsl.Model] = None,
    thresholds: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
    champion_bento: dsl.Input[dsl.Model] = None,
    champion_url: str = "",
    champion_metrics: dsl.Input[dsl.Artifact] = None,
    champion_limits: dict = {},  # noqa: B006
    task: str = "auto",
    prediction: str = "",
    classes: list = [],  # noqa: B006
    positive: str = "",
    api: str = "",
    inputs: list = [],  # noqa: B006
    input_format: str = "",
    workers: int = 0,
):
    """Measure a model on labelled data, against thresholds and the champion on the same data.

    What is asked is the service at an address, or a bento in its own locked environment, without
    network. A check that ran and found too little is a report, not an error; check_release takes it
    as own_report, or runs the same as a gate. Classification: accuracy, balanced_accuracy,
    precision_macro, recall_macro, f1_macro; of two classes precision, recall and f1; where
    probabilities are answered roc_auc and log_loss. Regression: mae, rmse, r2, mape, max_error.
    Rows without an answer let it not pass.

    Credentials of the storage come from the environment, from a Secret mounted at
    /etc/kfp-bento/storage, or from the pod's identity.

    Args:
        golden: The golden answers of build_bento; they name the models.
        data: CSV, Parquet or JSONL with the inputs of the model and the label: a file or a folder,
            s3://bucket/key, minio://bucket/key, file:///path, or an https:// address of one file.
        label: The column with the right answers; a row without one is refused.
        url: Base URL of the release; empty asks the bento here.
        bento: The bento. Beside a URL it only says how a service of one's own is asked.
        thresholds: Limits on the metrics: {"accuracy": {"min": 0.9}, "rmse": {"max": 3}}.
        champion_bento: The bento that serves now, asked here about the same data.
        champion_url: The service that serves now, which takes the same inputs.
        champion_metrics: What an earlier run kept for the same data; others are refused.
        champion_limits: How much worse than the champion's they may be, in their own unit or as a
            share: {"accuracy": {"max_drop": 0.01}, "rmse": {"max_drop_ratio": 0.05}}.
        task: classification, regression, or auto, which goes by the labels.
        prediction: The column of the answers that says class or number; empty takes the only one.
        classes: All classes in the order of the model's lists of probabilities; empty takes those
            of the labels, sorted.
        positive: The class of two that precision, recall and f1 are about; empty takes the last.
        api: The API that answers, where there are several.
        inputs: Columns that the model gets, in its order, where its signature names none; empty
            gives it all but the label.
        input_format: csv, parquet or jsonl; empty takes what the names of the files say.
        workers: Processes of a bento that is asked here; 0 takes one for each processor.

    Returns:
        report: The check report as JSON.
        kept: The metrics with the digest of the data, for a later champion_metrics.
        metrics: The metrics, those of the champion as champion_..., the differences as delta_...
        classification: Confusion matrix and, of two classes with probabilities, the ROC curve;
            empty for a regression.
        summary: The report as Markdown.
        page: The report with charts, as HTML.
    """
    from pathlib import Path

    from kfp_bento.runtime import batch, bentos, checks, proof, reports

    asked = batch.BatchOptions(api=api, inputs=tuple(inputs), input_format=input_format)
    outcome = checks.check_metrics(
        proof.load_given_golden(golden),
        data,
        label,
        checks.Subject(url, bentos.load_given_bento(bento)),
        champion=checks.given_champion(
            champion_url, bentos.load_given_bento(champion_bento), champion_metrics
        ),
        thresholds=thresholds,
        champion_limits=champion_limits,
        options=checks.MetricsOptions(task, prediction, tuple(classes), positive, asked),
        workers=workers,
    )
    reports.write_metrics_check(
        outcome,
        report=Path(report.path),
        kept=Path(kept.path),
        summary=Path(summary.path),
        page=Path(page.path),
        metrics=metrics.metadata,
        classification=classification.metadata,
    )
