"""The metrics gate: what a model is worth on labelled data, against limits and the champion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import BatchOptions
from kfp_bento.runtime.checks.check_report import CheckReport
from kfp_bento.runtime.checks.labels import Labelled, read_labelled
from kfp_bento.runtime.checks.limits import Limit, read_limits
from kfp_bento.runtime.checks.scores import (
    OF_CLASSES,
    OF_NUMBERS,
    class_rows,
    class_scores,
    confusion,
    curves,
    histogram,
    log_loss,
    number_scores,
)
from kfp_bento.runtime.checks.subjects import Subject, subject_answers
from kfp_bento.runtime.checks.tasks import (
    AUTO,
    CLASSIFICATION,
    REGRESSION,
    TASKS,
    as_classes,
    as_numbers,
    looks_like,
)
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.files import parse_json, read_small_file, reading, write_whole

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.proof import Golden

NAME = "check_metrics"
FORMAT = 1
_LARGEST = 1 << 20
_MOST_SHOWN_CLASSES = 50


@dataclass(frozen=True)
class Metrics:
    """What one model is worth on one labelled dataset.

    Attributes:
        task: classification or regression.
        data: `sha256:…` of the dataset; metrics are compared where it is the same.
        label: The column with the right answers.
        rows: Rows that were answered.
        values: The metrics by name.
        model_digests: `ModelVersion.digest` of the models that answered, as far as known.
    """

    task: str
    data: str
    label: str
    rows: int
    values: dict[str, float]
    model_digests: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {"format": FORMAT, **vars(self), "model_digests": list(self.model_digests)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Metrics:
        """Read what `to_dict` gave.

        Raises:
            CheckError: It is no such thing.
        """
        try:
            if data["format"] != FORMAT or data["task"] not in TASKS[1:]:
                raise ValueError(f"its format is {data['format']!r}, its task {data['task']!r}")
            values = {str(name): float(value) for name, value in data["values"].items()}
            if not all(map(math.isfinite, values.values())):
                raise ValueError("a metric is not finite")
            texts = {name: str(data[name]) for name in ("task", "data", "label")}
            digests = tuple(map(str, data["model_digests"]))
            return cls(**texts, rows=int(data["rows"]), values=values, model_digests=digests)
        except (KeyError, TypeError, ValueError, AttributeError) as failure:
            raise CheckError(
                f"These are no metrics of an earlier check: {failure!r}.", hint="Measure again."
            ) from failure

    def save(self, path: Path) -> None:
        """Write the metrics as JSON, in one step.

        Raises:
            CheckError: The file cannot be written.
        """
        try:
            write_whole(f"{json.dumps(self.to_dict(), indent=2, sort_keys=True)}\n".encode(), path)
        except OSError as failure:
            raise CheckError(f"{path} cannot be written: {failure.strerror}.") from failure

    @classmethod
    def load(cls, path: Path) -> Metrics:
        """Read a file that `save` wrote.

        Raises:
            CheckError: There is none, or it holds something else.
        """
        problem = f"There are no metrics in {path}"
        with reading(problem, CheckError, hint="Measure again, and keep the metrics."):
            return cls.from_dict(parse_json(read_small_file(path, _LARGEST)))


@dataclass(frozen=True)
class MetricsOptions:
    """How labels and answers are read.

    Attributes:
        task: auto, classification or regression; auto takes texts, booleans and up to 50 different
            whole numbers for classes.
        prediction: The column of the answers that says class or number; "" takes the only one, or
            `prediction`.
        classes: All classes in the order of lists of probabilities; () for the labels', sorted.
        positive: The class of two that precision, recall and f1 are about; "" for the last.
        batch: How the model is asked: api, inputs, input_format, batch_rows, params.
    """

    task: str = AUTO
    prediction: str = ""
    classes: tuple[str, ...] = ()
    positive: str = ""
    batch: BatchOptions = field(default_factory=BatchOptions)

    def __post_init__(self) -> None:
        """Refuse a task that is none; whole numbers that name classes become texts.

        Raises:
            InvalidInput: It is named.
        """
        # Kubeflow hands on whole numbers of a list as floats (kfp/local, protobuf's Struct).
        names = tuple(f"{one:g}" if isinstance(one, float) else str(one) for one in self.classes)
        object.__setattr__(self, "classes", names)
        if self.task not in TASKS:
            raise InvalidInput(f"task is {self.task!r}.", hint=f"Known are {', '.join(TASKS)}.")


@dataclass(frozen=True)
class Measured:
    """The metrics of one subject, with what is worth looking at."""

    metrics: Metrics
    evidence: tuple[dict[str, Any], ...]
    unanswered: int
    reason: str


@dataclass(frozen=True)
class MetricsOutcome:
    """A report, and the metrics to keep for those that come later."""

    report: CheckReport
    metrics: Metrics


def check_metrics(
    golden: Golden,
    data_uri: str,
    label: str,
    candidate: Subject,
    *,
    champion: Subject | Metrics | None = None,
    thresholds: Mapping[str, Any] | None = None,
    champion_limits: Mapping[str, Any] | None = None,
    options: MetricsOptions | None = None,
    workers: int = 0,
) -> MetricsOutcome:
    """Measure a model on labelled data, and hold the metrics against limits and the champion's.

    Args:
        golden: What the candidate's bento was proven with: it names the models.
        data_uri: CSV, Parquet or JSONL with the inputs of the model and the label: a file or a
            folder, as a path, s3://, minio://, or https:// for one file.
        label: The column with the right answers.
        candidate: The service or bento in question.
        champion: What serves now, asked about the same data; or its metrics as kept earlier.
        thresholds: Limits on the metrics, such as `{"accuracy": {"min": 0.9}}`.
        champion_limits: How much worse than the champion's they may be, such as
            `{"accuracy": {"max_drop": 0.01}}` or `{"rmse": {"max_drop_ratio": 0.05}}`.
        options: How labels and answers are read.
        workers: Processes of each bento; 0 takes one for each processor.

    Returns:
        The report, with the metrics as measures, those of the champion as `champion_…` and the
        differences as `delta_…`; and the metrics. Rows without an answer let it not pass.

    Raises:
        InvalidInput: Data, label or options do not fit; a metric is unknown, or has no value here;
            the champion's metrics are of other data.
        CheckError: The service cannot be reached or fails.
        BentoError: A bento does not start.
        StorageError: The data cannot be fetched.
    """
    options = options or MetricsOptions()
    limits = read_limits(thresholds or {}, champion_limits)
    _require_fit(golden, candidate, champion, limits)
    candidate = replace(candidate, golden=golden)
    new = measure(candidate, data_uri, label, options, golden.digests, workers)
    old = _champion(champion, golden, data_uri, label, options, new.metrics, workers)
    return MetricsOutcome(_report(new, old, limits, golden, candidate.url), new.metrics)


def given_champion(url: str, bento: Bento | None, artifact: Any = None) -> Subject | Metrics | None:
    """Give the champion that a step is given in one of three ways; None where it is given none.

    Args:
        url: A running service.
        bento: Its bento.
        artifact: Metrics of an earlier step: its `path`.

    Raises:
        InvalidInput: There are several.
        CheckError: The artifact holds no metrics.
    """
    if sum((bool(url), bento is not None, artifact is not None)) > 1:
        raise InvalidInput(
            "There are several champions.", hint="Give its URL, its bento, or its metrics."
        )
    if artifact is not None:
        return Metrics.load(Path(artifact.path))
    return Subject(url, bento) if url or bento is not None else None


def _require_fit(
    golden: Golden, candidate: Subject, champion: Subject | Metrics | None, limits: Sequence[Limit]
) -> None:
    bento = candidate.bento
    if bento is not None and golden.bento and bento.tag != golden.bento:
        raise InvalidInput(
            f"The golden answers are of the bento {golden.bento}, and this is {bento.tag}.",
            hint="Give those that the build of this bento left.",
        )
    if champion is None and any(limit.of_champion for limit in limits):
        raise InvalidInput(
            "There are limits on what is worse than the champion, and no champion.",
            hint="Give its bento, its URL or its metrics; or leave the limits out.",
        )


def _champion(
    champion: Subject | Metrics | None,
    golden: Golden,
    data_uri: str,
    label: str,
    options: MetricsOptions,
    new: Metrics,
    workers: int,
) -> Metrics | None:
    """Give the champion's metrics on the same data."""
    if isinstance(champion, Subject):
        if champion.bento is None and champion.golden is None:
            champion = replace(champion, golden=golden)  # it takes what its successor takes
        options = replace(options, task=new.task)
        champion = measure(champion, data_uri, label, options, (), workers).metrics
    if champion is None:
        return None
    for name in ("data", "label", "task"):
        ours, theirs = getattr(new, name), getattr(champion, name)
        if ours != theirs:
            raise InvalidInput(
                f"The champion's metrics are of other {name} ({theirs}) than these ({ours}).",
                hint="Give the champion's bento, to measure it on the same data.",
            )
    return champion


def measure(
    subject: Subject,
    data_uri: str,
    label: str,
    options: MetricsOptions,
    digests: tuple[str, ...],
    workers: int = 0,
) -> Measured:
    """Measure one subject on labelled data; see `check_metrics`."""
    batch = replace(options.batch, on_error="row", keep=())
    with subject_answers(subject, data_uri, label, batch, workers=workers) as answers:
        labelled = read_labelled(answers, label, options.prediction)
        task = options.task
        if task == AUTO:
            task = looks_like(labelled.labels, labelled.column)
        made = _classification if task == CLASSIFICATION else _regression
        values, evidence = made(labelled, label, options)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        metrics = Metrics(task, answers.digest, label, len(labelled.labels), finite, digests)
    return Measured(metrics, evidence, labelled.unanswered, labelled.reason)


def _classification(
    labelled: Labelled, label: str, options: MetricsOptions
) -> tuple[dict[str, float], tuple[dict[str, Any], ...]]:
    found = as_classes(labelled, label, options.classes, options.positive)
    matrix = confusion(found.truth, found.predicted, len(found.names))
    values, drawn = class_scores(matrix, found.positive), []
    if found.scores is not None:
        values["log_loss"] = log_loss(found.truth, found.scores)
        drawn = curves(found.truth, found.scores, found.names)
        if drawn:
            values["roc_auc"] = sum(curve.area for curve in drawn) / len(drawn)
    shown = len(found.names) <= _MOST_SHOWN_CLASSES
    evidence: list[dict[str, Any]] = []
    if shown:
        evidence += [{"confusion": matrix.tolist(), "classes": list(found.names)}]
        evidence += [{"roc": [curve.to_dict() for curve in drawn]}] if drawn else []
    evidence += [{"per_class": class_rows(matrix, found.names)[:_MOST_SHOWN_CLASSES]}]
    return values, tuple(evidence)


def _regression(
    labelled: Labelled, label: str, options: MetricsOptions
) -> tuple[dict[str, float], tuple[dict[str, Any], ...]]:
    truth, predicted = as_numbers(labelled, label)
    return number_scores(truth, predicted), ({"residuals": histogram(predicted - truth)},)


def _report(
    new: Measured, old: Metrics | None, limits: Sequence[Limit], golden: Golden, url: str
) -> CheckReport:
    values, before = new.metrics.values, old.values if old else {}
    judged = [_judged(limit, values, before, new.metrics.task) for limit in limits]
    if new.unanswered:
        judged.append(_unanswered(new))
    reasons = [one["reason"] for one in judged if "reason" in one]
    measures = {"rows": float(new.metrics.rows), "unanswered": float(new.unanswered), **values}
    measures |= {f"champion_{name}": value for name, value in before.items()}
    measures |= {f"delta_{name}": values[name] - before[name] for name in before if name in values}
    kept = [{"metrics": new.metrics.to_dict()}]
    kept += [{"champion_metrics": old.to_dict()}] if old else []
    return CheckReport(
        name=NAME,
        passed=not reasons,
        summary=_summary(new.metrics, old, judged, reasons),
        measures=measures,
        evidence=(*judged, *kept, *new.evidence),
        model_digests=golden.digests,
        url=url,
    )


def _judged(
    limit: Limit, values: Mapping[str, float], before: Mapping[str, float], task: str
) -> dict[str, Any]:
    """Give one limit with what was measured, and why it is not kept."""
    name = limit.metric
    for whose, found in (
        ("", values),
        ("the champion's ", before if limit.of_champion else values),
    ):
        if name not in found:
            raise InvalidInput(f"{whose}{name} has no value here.", hint=_missing(name, task))
    entry: dict[str, Any] = {
        **{"limit": f"{name}: {limit.told()}", "request": name, "path": ""},
        **{"served": values[name], "expected": limit.told()},
    }
    champion = before.get(name) if limit.of_champion else None
    if champion is not None:
        entry["champion"] = champion
    if not limit.holds(values[name], champion):
        beside = "" if champion is None else f", the champion's {champion:.6g}"
        entry["reason"] = f"{name} is {values[name]:.6g}{beside}; it has to be {limit.told()}"
    return entry


def _missing(name: str, task: str) -> str:
    if name not in (OF_CLASSES if task == CLASSIFICATION else OF_NUMBERS):
        return f"It is none of a {task}; set task if it was guessed wrongly."
    if name in ("roc_auc", "log_loss"):
        return "The model has to answer probabilities, and each class needs rows of its own."
    if task == REGRESSION:
        return "It needs two rows at least, and numbers that are not too large."
    return f"It is for two classes; of several there is {name}_macro."


def _unanswered(new: Measured) -> dict[str, Any]:
    reason = f"{new.unanswered:,} rows have no answer; the first, {new.reason}"
    return {
        **{"limit": "every row is answered", "request": "rows", "path": ""},
        **{"served": new.unanswered, "expected": "every row answered", "reason": reason},
    }


def _summary(
    new: Metrics, old: Metrics | None, judged: Sequence[Mapping[str, Any]], reasons: Sequence[str]
) -> str:
    if reasons:
        more = f" ({len(reasons) - 1} more limits are not kept)" if len(reasons) > 1 else ""
        return f"On {new.rows:,} labelled rows {reasons[0]}{more}."
    main = "accuracy" if new.task == CLASSIFICATION else "rmse"
    told = f"{main} {new.values[main]:.6g}" if main in new.values else new.task
    beside = f" (the champion's {old.values[main]:.6g})" if old and main in old.values else ""
    many = "the limit is" if len(judged) == 1 else f"all {len(judged)} limits are"
    kept = f"{many} kept" if judged else "there were no limits to keep"
    return f"On {new.rows:,} labelled rows {told}{beside}; {kept}."
