"""Whole models: what is told of them, what is not, and what comes of it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow
import pytest
from kfp_bento_command import assert_refused, kfp_bento
from planted_pickles import (
    MLMODEL,
    SYSTEM,
    call,
    looked,
    model_directory,
    names,
    scanned,
    stack_global,
    text,
    whole,
)
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from kfp_bento.components import build_bento, scan_model
from kfp_bento.runtime import reports
from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import load_model, load_models
from kfp_bento.runtime.scan import ScanReport, load_scanned, scan_models
from kfp_bento.runtime.scan.allowlist import families, is_listed
from kfp_bento.runtime.scan.report import ModelScan
from kfp_bento.runtime.scan.scan import scan_model as scan_one
from kfp_bento.runtime.scan.values import Name

FRAME = pd.DataFrame({"a": [1.0, 2, 3, 4] * 5, "b": ["x", "y", "x", "z"] * 5})
TARGET = np.array([0, 1, 0, 1] * 5)


def double(values: Any) -> Any:
    return values * 2


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context, model_input):
        return model_input


def estimators() -> dict[str, Any]:
    numeric = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("b", OneHotEncoder(), ["b"]), ("a", numeric, ["a"])])
    numbers, words = FRAME[["a"]], FRAME["b"] + " word"
    boosted = HistGradientBoostingClassifier(max_iter=2)
    functions = make_pipeline(FunctionTransformer(np.log1p), SGDClassifier())
    return {
        "columns": make_pipeline(columns, boosted).fit(FRAME, TARGET),
        "forest": RandomForestClassifier(n_estimators=2).fit(numbers, TARGET),
        "text": make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, TARGET),
        "functions": functions.fit(numbers, TARGET),
        "neighbours": KNeighborsClassifier(n_neighbors=2).fit(numbers, TARGET),
    }


def report_on(directory: Path, policy: str = "enforce", **options: Any) -> ModelScan:
    return scan_one(load_model(directory), policy=policy, **options)


@pytest.mark.parametrize("form", ["pickle", "cloudpickle", "skops"])
def test_models_of_scikit_learn_raise_no_alarm(form: str, tmp_path: Path) -> None:
    from skops.io import dump, get_untrusted_types

    for name, model in estimators().items():
        trusted: list[str] = []
        if form == "skops":
            dump(model, tmp_path / "once.skops")
            trusted = get_untrusted_types(file=tmp_path / "once.skops")
        mlflow.sklearn.save_model(
            model,
            tmp_path / name,
            serialization_format=form,
            skops_trusted_types=trusted,
            pip_requirements=[],
            input_example=FRAME.head(2),
        )
        report = report_on(tmp_path / name)
        assert report.findings == (), name
        assert report.passed
        assert report.files >= 5


ARROW = {
    "text": pd.Series(["a", None]),
    "index": pd.DataFrame({"x": [1]}, index=["a"]),
    "kinds": pd.Series(["a", "b"], dtype="category"),
    "integers": pd.Series([1, None], dtype="int64[pyarrow]"),
    "moments": pd.Series(pd.to_datetime(["2024-01-01"])).astype("timestamp[us, tz=UTC][pyarrow]"),
    "money": pd.Series([1], dtype=pd.ArrowDtype(pyarrow.decimal128(10, 2))),
    "lists": pd.Series([[1]], dtype=pd.ArrowDtype(pyarrow.list_(pyarrow.int64()))),
    "missing": pd.Series(["a"], dtype="string[pyarrow]"),
}


@pytest.mark.parametrize("what", ARROW)
def test_frames_that_lie_in_arrow_raise_no_alarm(what: str, tmp_path: Path) -> None:
    assert names(scanned(tmp_path, pickle.dumps(ARROW[what]))) == set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_estimator_of_scikit_learn_raises_an_alarm(tmp_path: Path) -> None:
    from sklearn.utils import all_estimators
    from sklearn.utils._test_common.instance_generator import _construct_instances
    from sklearn.utils.estimator_checks import _enforce_estimator_tags_X

    state = np.random.RandomState(0)
    values, labels = state.rand(40, 3), np.array([0, 1] * 20)
    fitted = 0
    for name, kind in all_estimators():
        try:
            made = next(iter(_construct_instances(kind)))
            made.fit(_enforce_estimator_tags_X(made, values), labels)
            data = pickle.dumps(made)
        except Exception:  # whoever wants other data is tried in another form elsewhere
            continue
        fitted += 1
        assert looked(data, f"{name}.pkl") == [], name
    assert fitted > 150


def test_what_skops_distrusts_is_told_or_known_to_be_harmless(tmp_path: Path) -> None:
    """A model's own list of trusted types, in its MLmodel, counts for nothing."""
    from skops.io import dump, get_untrusted_types

    steps = FunctionTransformer(double), FunctionTransformer(np.expm1), LogisticRegression()
    model = make_pipeline(*steps).fit(FRAME[["a"]], TARGET)
    dump(model, tmp_path / "model.skops")
    untrusted = get_untrusted_types(file=tmp_path / "model.skops")
    mlflow.sklearn.save_model(
        model, tmp_path / "m", serialization_format="skops", skops_trusted_types=untrusted,
        pip_requirements=[],
    )  # fmt: skip
    report = report_on(tmp_path / "m")
    own = f"{double.__module__}.double"
    assert own in untrusted
    assert names(report) == {own}
    assert report.findings[0].file == "model.skops!schema.json"


def test_a_class_of_ones_own_is_code_by_design(tmp_path: Path) -> None:
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Echo(), pip_requirements=[])
    (tmp_path / "m" / "python_model.pkl").write_bytes(cloudpickled())
    report = report_on(tmp_path / "m")
    assert {(one.severity.value, one.name) for one in report.findings} == {
        ("code", "cloudpickle.cloudpickle")
    }


def cloudpickled() -> bytes:
    import cloudpickle

    made = type("Own", (mlflow.pyfunc.PythonModel,), {"predict": lambda self, frame: frame})
    made.__module__ = "__main__"
    return bytes(cloudpickle.dumps(made()))


def test_code_that_comes_with_a_model_is_code_by_design(tmp_path: Path) -> None:
    code = tmp_path / "helpers"
    code.mkdir()
    (code / "__init__.py").write_text("VALUE = 1\n")
    (code / "more.py").write_text("VALUE = 2\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import mlflow\n"
        "class M(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input): return model_input\n"
        "mlflow.models.set_model(M())\n"
    )
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=str(script), code_paths=[str(code)], pip_requirements=[]
    )
    report = report_on(tmp_path / "m")
    assert {one.severity.value for one in report.findings} == {"code"}
    assert names(report) == {"code/", "script.py"}
    assert report_on(tmp_path / "m", allow=["code/", "script.py"]).passed


def test_a_name_of_the_models_own_code_folder_is_code_and_not_unknown(tmp_path: Path) -> None:
    data = whole(call(stack_global("mine.model", "Own")))
    directory = model_directory(tmp_path / "m", {"model.pkl": data, "code/mine/model.py": b""})
    assert ("code", "mine.model") in {
        (one.severity.value, one.name) for one in report_on(directory).findings
    }


FILES = {
    "a library": ("lib/fast.so.1", b"\x7fELF" + bytes(9), "code"),
    "a program under another name": ("data.csv", b"\x7fELF" + bytes(9), "code"),
    "a script": ("run", b"#!/bin/sh\necho\n", "code"),
    "Windows": ("x.dll", b"MZ\x90\0", "code"),
    "a notebook": ("train.ipynb", b"{}", "code"),
    "bytecode": ("code/m.pyc", bytes(20), "code"),
    "torch's pickle module": ("data/pickle_module_info.txt", b"evil", "unknown"),
    "Keras' module": ("data/keras_module.txt", b"evil", "unknown"),
    "a formula": (
        "m.pkl",
        whole(
            call(stack_global("sklearn.svm._classes", "SVC"))
            + b"}" + text("restore_model_spec") + b"\x88sb"
        ),
        "code",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_run_or_imported_are_told(what: str, tmp_path: Path) -> None:
    name, data, severity = FILES[what]
    report = report_on(model_directory(tmp_path / "m", {name: data}))
    assert [(one.severity.value, one.file) for one in report.findings] == [(severity, name)]


def test_the_modules_that_mlflow_writes_are_no_finding(tmp_path: Path) -> None:
    files = {
        "data/pickle_module_info.txt": b"mlflow.pytorch.pickle_module",
        "data/keras_module.txt": b"tensorflow.keras",
    }
    assert report_on(model_directory(tmp_path / "m", files)).findings == ()


OPTIONS = {
    "loader_module: mine.loader": ("code", "mine.loader"),
    "data: ../../other": ("dangerous", "../../other"),
    "model_path: /etc/model.pkl": ("dangerous", "/etc/model.pkl"),
    "model_class: os.System": ("unknown", "os.System"),
    "keras_module: evil": ("unknown", "evil"),
    "model_code_path: script.py": ("code", "script.py"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_what_mlmodel_makes_mlflow_import_is_told(option: str, tmp_path: Path) -> None:
    mlmodel = f"flavors:\n  python_function:\n    {option}\n    python_version: 3.11.7\n"
    report = report_on(model_directory(tmp_path / "m", {}, mlmodel))
    assert [(one.severity.value, one.name) for one in report.findings] == [OPTIONS[option]]


def test_files_outside_of_the_digest_are_looked_at_too(tmp_path: Path) -> None:
    report = report_on(model_directory(tmp_path / "m", {"registered_model_meta": SYSTEM}))
    assert names(report) == {"os.system"}


def test_the_lists_are_those_of_the_models_flavors(tmp_path: Path) -> None:
    data = whole(call(stack_global("torch._utils", "_rebuild_tensor_v2")))
    assert names(scanned(tmp_path / "a", data), "unknown") == {"torch._utils._rebuild_tensor_v2"}
    torch = MLMODEL.replace("sklearn", "pytorch")
    assert report_on(model_directory(tmp_path / "m", {"model.pkl": data}, torch)).passed


def test_policies(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", {"model.pkl": SYSTEM})
    enforced, warned, off = (report_on(directory, policy) for policy in ("enforce", "warn", "off"))
    assert (enforced.passed, warned.passed, off.passed) == (False, True, True)
    assert enforced.findings == warned.findings
    assert (off.findings, off.files) == ((), 0)
    assert "Nobody looked" in off.summary
    with pytest.raises(InvalidInput, match="strict"):
        report_on(directory, "strict")


def test_what_is_allowed_by_its_exact_name_stays_in_the_report(tmp_path: Path) -> None:
    allowed = scanned(tmp_path, SYSTEM, allow=["os.system"])
    assert allowed.passed
    assert [(one.name, one.allowed) for one in allowed.findings] == [("os.system", True)]
    for name in ("os", "system", "os.*", "OS.SYSTEM", "os.system "):
        assert not scanned(tmp_path, SYSTEM, allow=[name]).passed


def artifact(path: Path) -> Any:
    return SimpleNamespace(path=str(path), metadata={})


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two models that belong together; one runs a program when it is loaded."""
    model_directory(tmp_path / "pair" / "bad", {"model.pkl": SYSTEM})
    model_directory(tmp_path / "pair" / "good", {"model.pkl": b"N."})
    return tmp_path / "pair"


def test_the_next_step_refuses_what_the_scan_refused(tmp_path: Path, pair: Path) -> None:
    bad, good = load_models(pair)
    refused = scan_models([bad], policy="enforce").verdict()
    with pytest.raises(ModelError, match=r"refused the model bad: .*os\.system in model\.pkl"):
        load_scanned(artifact(bad.directory), refused)
    with pytest.raises(InvalidInput, match="none on the model good"):
        load_scanned(artifact(good.directory), refused)
    with pytest.raises(InvalidInput):
        told = {"models": {bad.digest: {"passed": "true", "summary": ""}}}
        load_scanned(artifact(bad.directory), told)
    warned = scan_models([bad], policy="warn").verdict()
    assert load_scanned(artifact(bad.directory), warned) == [bad]
    assert load_scanned(artifact(bad.directory), {}) == [bad]


def test_one_of_several_models_that_is_refused_stops_all(pair: Path) -> None:
    report = scan_models(load_models(pair), policy="enforce")
    assert [one.passed for one in report.scans] == [False, True]
    assert (report.passed, report.measures["dangerous"], report.measures["files"]) == (False, 1, 4)
    assert [one["model"] for one in report.to_dict()["evidence"]] == ["bad"]
    with pytest.raises(ModelError, match="refused the model bad"):
        load_scanned(artifact(pair), report.verdict())


def test_a_model_that_nobody_scanned_does_not_pass_beside_one_that_was(pair: Path) -> None:
    good = load_models(pair)[1]
    with pytest.raises(InvalidInput, match="none on the model bad"):
        load_scanned(artifact(pair), scan_models([good]).verdict())


def test_the_components_hand_the_verdict_on(tmp_path: Path, pair: Path) -> None:
    made = {
        name: artifact(tmp_path / name)
        for name in ("report", "metrics", "summary", "bento", "golden", "facts")
    }
    models, rest = artifact(pair), {name: made.pop(name) for name in ("bento", "golden", "facts")}
    passed, verdict = scan_model.python_func(models=models, policy="enforce", **made)
    assert passed is False
    assert json.loads(Path(made["report"].path).read_text())["passed"] is False
    assert made["metrics"].metadata["dangerous"] == 1
    assert "`os.system`" in Path(made["summary"].path).read_text()
    with pytest.raises(ModelError, match=r"os\.system"):
        build_bento.python_func(models=models, **rest, scan_verdict=verdict)
    assert not Path(rest["bento"].path).exists()


def test_the_summary_takes_names_literally(tmp_path: Path) -> None:
    hostile = "x`|<script>alert(1)</script>\x1b[2J"
    report = scanned(tmp_path, whole(stack_global("m", hostile)))
    told = reports.scan_summary(ScanReport("enforce", (report,)))
    assert "\x1b" not in told
    row = next(line for line in told.splitlines() if "script" in line and line.startswith("|"))
    assert row.count("|") - row.count("\\|") == 7


def test_the_command_tells_and_ends_with_1_where_it_does_not_pass(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", {"model.pkl": SYSTEM})
    done = kfp_bento("model", "scan", directory, "--policy", "enforce")
    assert done.returncode == 1
    assert "os.system" in done.stdout
    done = kfp_bento("model", "scan", directory, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["evidence"][0]["name"] == "os.system"
    assert found["passed"] is True
    assert_refused(kfp_bento("model", "scan", directory, "--policy", "strict"), "strict")


def test_pickled_numbers_are_read_as_fast_as_they_are_large(tmp_path: Path) -> None:
    """Arrays are passed over, in pickles as in joblib's files."""
    import tracemalloc

    file = tmp_path / "m" / "big.pkl"
    model_directory(tmp_path / "m", {})
    with file.open("wb") as opened:
        pickle.dump(np.zeros(30_000_000, dtype="u1"), opened, protocol=5)
    model = load_model(tmp_path / "m")
    tracemalloc.start()
    report = scan_one(model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.findings == ()
    assert peak < 20 << 20


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("CyHalfBinomialLoss", True),
        ("__pyx_unpickle_CyHalfBinomialLoss", True),
        ("system", False),
    ],
)
def test_the_losses_of_older_scikit_learns_are_known_by_their_short_module(
    name: str, known: bool
) -> None:
    lists = families(["sklearn"])
    assert is_listed(Name("_loss", name), lists) is known
