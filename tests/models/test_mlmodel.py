"""The files of a model that describe it: read with limits, and every failure says what to do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from pulled_model import pull_model

from kfp_bento.runtime.bentos import prediction_request
from kfp_bento.runtime.errors import BentoError, ModelError
from kfp_bento.runtime.models import load_model, read_example
from kfp_bento.runtime.models.portable import portable_mlmodel

HEAD = "flavors: {python_function: {loader_module: x, python_version: 3.11.7}}\n"
ECHO = Path(__file__).parents[1] / "bentos" / "echo_model.py"


def directory(tmp_path: Path, mlmodel: str = HEAD, **files: str) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "MLmodel").write_text(mlmodel)
    for name, text in files.items():
        (made / name.replace("__", ".")).write_text(text)
    return made


ALIASES = "signature:\n  a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"  {chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
MERGES = "x: &a {k1: 1, k2: 2}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}' if n else '*a'] * 9)}]}}\n" for n in range(40)
)


@pytest.mark.parametrize(
    ("mlmodel", "said"),
    [
        (HEAD + ALIASES, "aliases multiply"),
        (HEAD + MERGES, "merge keys"),
        (HEAD + "x: " + "[" * 50_000, "nested too deeply"),
        (HEAD + "x: " + "{a: " * 50_000, "nested too deeply"),
        (HEAD + "x: " + "1" + ":59" * 200_000, "number without end"),
        (HEAD + "x: &x [*x]\n", "contains itself"),
        (HEAD + "run_id: a\nrun_id: b\n", "a key twice"),
        (HEAD + "x: '" + "a" * (17 << 20) + "'", "larger than 16777216 bytes"),
        (HEAD + "run_id: [a]\n", "run_id in MLmodel is list"),
        (HEAD + 'run_id: "a\\e[2J"\n', "run_id in MLmodel has control characters"),
        (HEAD + 'model_id: "a\\nb"\n', "model_id in MLmodel has control characters"),
        (
            HEAD + 'mlflow_version: "2.9\\n-e ../x"\n',
            r"the version '2\.9\\n-e \.\./x', which is none",
        ),
        (HEAD + "mlflow_version: --pre\n", "which is none"),
        (HEAD + "mlflow_version: [2]\n", "which is none"),
        (HEAD.replace("3.11.7", '"3 #"'), "which is none"),
        ('flavors: {python_function: {}, "a\\e[2J": {}}\n', "flavor's name in MLmodel has control"),
        ("flavors: {python_function: {}, [a]: {}}\n", "not valid YAML"),
        ("flavors: [python_function]\n", "names no flavors"),
        (HEAD + "signature: {inputs: '" + "[" * 50_000 + "'}\n", "nested too deeply"),
        (HEAD + "signature: {inputs: [1]}\n", "is not a JSON list of objects"),
    ],
    ids=range(20),
)
def test_an_mlmodel_that_mlflow_would_not_write_is_refused_within_seconds(
    mlmodel: str, said: str, tmp_path: Path
) -> None:
    made = directory(tmp_path, mlmodel)
    started = time.process_time()  # whoever else works here takes none of it
    for call in (load_model, lambda path: pull_model(str(path), tmp_path / "copy")):
        with pytest.raises(ModelError, match=said) as caught:
            call(made)
        assert caught.value.hint
        assert "\x1b" not in str(caught.value)
    assert time.process_time() - started < 10
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"requirements__txt": "numpy\x0b-e ../x\n"}, None),
        ({"requirements__txt": "numpy \x1b[2J\n"}, "requirement of the model has control"),
        ({"requirements__txt": "numpy\n" + "x" * 9_000}, "more than 8192 characters"),
        ({"requirements__txt": "# a\n" * (2 << 20)}, "larger than 4194304 bytes"),
        ({"conda__yaml": 'dependencies: [{pip: ["numpy\\n-e ../x"]}]'}, "control characters"),
        ({"conda__yaml": "dependencies: [{pip: [a, [b]]}]"}, None),
        ({"conda__yaml": "dependencies: {pip: [a]}"}, None),
        ({"conda__yaml": ALIASES.replace("signature", "a")}, "conda.yaml is not valid YAML"),
        ({"conda__yaml": "x: " + "[" * 50_000}, "conda.yaml is not valid YAML"),
    ],
    ids=range(9),
)
def test_files_beside_an_mlmodel_are_read_with_limits(
    files: dict[str, str], said: str | None, tmp_path: Path
) -> None:
    made = directory(tmp_path, **files)
    if said is None:
        assert all(line.isprintable() for line in load_model(made).requirements)
        return
    with pytest.raises(ModelError, match=said) as caught:
        load_model(made)
    assert caught.value.hint and "\x1b" not in str(caught.value)


def test_a_python_env_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    made = directory(
        tmp_path, "flavors: {python_function: {}}\n", python_env__yaml="a: " + "[" * 9999
    )

    with pytest.raises(ModelError, match=r"python_env\.yaml is not valid YAML"):
        load_model(made)


def test_a_pipe_in_place_of_an_example_is_not_waited_for(tmp_path: Path) -> None:
    made = directory(tmp_path)
    model = load_model(made)
    (made / "serving_input_example.json").symlink_to("/dev/zero")

    assert read_example(made) is None
    with pytest.raises(BentoError, match="no input example"):
        prediction_request(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"inputs": [1], "inputs": [2]}', "a key twice"),
        ('{"inputs": "\\ud800"}', "surrogates"),
        ("9" * 5_000, "digits"),
        ('{"a": ' * 200 + "1" + "}" * 200, "nested too deeply"),
        (" " * ((32 << 20) + 1), "larger than"),
    ],
)
def test_an_example_that_is_no_json_of_mlflow_is_refused(
    text: str, said: str, tmp_path: Path
) -> None:
    made = directory(tmp_path, serving_input_example__json=text)
    model = load_model(made)
    with pytest.raises(ModelError, match=said):
        read_example(made)
    with pytest.raises(BentoError, match=said):
        prediction_request(model)


@pytest.mark.parametrize(
    "text",
    [
        '{"dataframe_split": 1}',
        '{"dataframe_split": {"data": 1, "columns": [1]}}',
        '{"dataframe_split": {"columns": {"a": 1}, "data": [1, 2]}}',
        '{"inputs": {"a": 1}}',
        "{}",
    ],
)
def test_an_example_of_another_form_is_no_traceback(text: str, tmp_path: Path) -> None:
    signature = json.dumps([{"type": "double", "name": "a"}, {"type": "double", "name": "b"}])
    mlmodel = HEAD + f"signature: {{inputs: {json.dumps(signature)}}}\n"
    model = load_model(directory(tmp_path, mlmodel, serving_input_example__json=text))
    try:
        prediction_request(model, rows=1)
    except BentoError as error:
        assert "form" in error.message and error.hint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that MLflow saved, with missing values and every kind of column in its example."""
    data = pd.DataFrame(
        {
            "number": [1.5, np.nan, np.inf],
            "text": ["a", None, "ü😀"],
            "moment": pd.to_datetime(["2024-05-06", None, "2024-01-01"]),
            "Preis\n(€)": [1, 2, 3],
        }
    )
    path = tmp_path_factory.mktemp("saved") / "model"
    mlflow.pyfunc.save_model(
        path,
        python_model=str(ECHO),
        signature=infer_signature(data),
        input_example=data,
        metadata={"maker": "Müller", "when": "2024-01-01", "n": [1, 2.5, None]},
        pip_requirements=["mlflow", "pandas"],
    )
    return path


def test_nan_in_the_example_that_mlflow_wrote_is_read(saved: Path) -> None:
    text = (saved / "serving_input_example.json").read_text()
    request = prediction_request(load_model(saved))

    assert "NaN" in text or "null" in text
    assert request["inputs"][1]["number"] is None
    assert "Preis\n(€)" in request["inputs"][0]


def test_the_portable_form_has_the_bytes_that_it_always_had(saved: Path) -> None:
    text = (saved / "MLmodel").read_bytes()
    keys = {"artifact_path", "model_id", "model_size_bytes", "model_uri", "model_uuid"}
    keys |= {"registered_model_version", "run_id", "utc_time_created"}
    before = {key: value for key, value in yaml.safe_load(text).items() if key not in keys}
    before["flavors"]["python_function"]["model_code_path"] = ECHO.name
    written = yaml.safe_dump(before, sort_keys=True, default_flow_style=False, width=4096)

    assert portable_mlmodel(text) == written.encode("ascii")


def test_a_model_of_thousands_of_columns_is_read(tmp_path: Path) -> None:
    columns = [{"type": "double", "name": f"feature {n}", "required": True} for n in range(4_000)]
    data = {"flavors": {"python_function": {}}, "signature": {"inputs": json.dumps(columns)}}
    made = directory(tmp_path, json.dumps(data))
    model = load_model(made)

    assert model.signature is not None
    assert len(model.signature.inputs) == 4_000
