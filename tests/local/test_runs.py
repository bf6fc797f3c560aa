"""Pipelines on this machine: what is reported, what is said when a step fails, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.errors import InvalidInput, LocalRunError
from kfp_bento.runtime.local import (
    Step,
    compile_pipelines,
    load_pipeline,
    run_pipeline,
    typed_arguments,
)

HERE = "tests.local.sample_pipelines"


def test_a_run_tells_its_steps_and_keeps_their_outputs(tmp_path: Path) -> None:
    told: list[Step] = []
    run = run_pipeline(f"{HERE}:two_steps", {"number": 21}, tmp_path, on_step=told.append)
    assert [(step.name, step.succeeded) for step in told] == [
        ("double", None),
        ("double", True),
        ("write", None),
        ("write", True),
    ]
    assert run.record("write") == {"number": 42}
    assert list(run.seconds) == ["double", "write"]


def test_a_step_that_refuses_is_quoted_with_its_hint_whatever_the_cause(tmp_path: Path) -> None:
    with pytest.raises(LocalRunError) as failure:
        run_pipeline(f"{HERE}:refusing", {}, tmp_path)
    assert failure.value.message == "Step refuse failed: 6 is too small.\nIt must be 10."
    assert failure.value.hint == "Give a larger number."


def test_a_step_of_a_loop_that_refuses_is_named_also_when_others_have_ended(tmp_path: Path) -> None:
    told: list[Step] = []
    with pytest.raises(LocalRunError) as failure:
        marker = {"marker": str(tmp_path / "marker")}
        run_pipeline(f"{HERE}:looping", marker, tmp_path, on_step=told.append)
    name = "refuse-when-the-other-has-ended"
    assert failure.value.message == f"Step {name} failed: One of them is refused."
    assert {step.succeeded for step in told if step.name == name} == {None, True, False}


def test_a_step_that_crashes_points_to_the_log(tmp_path: Path) -> None:
    with pytest.raises(
        LocalRunError, match="Step crash failed: RuntimeError: something"
    ) as failure:
        run_pipeline(f"{HERE}:crashing", {}, tmp_path)
    log = tmp_path / "pipeline.log"
    assert str(log) in failure.value.hint
    assert "Traceback" in log.read_text()


def test_a_parameter_that_is_left_out_and_has_no_default_is_none(tmp_path: Path) -> None:
    run = run_pipeline(f"{HERE}:with_nothing", {"name": "wine"}, tmp_path)
    assert list(run.seconds) == ["say-what-is-missing", "double"]
    assert "Output: 'wine None'" in (tmp_path / "pipeline.log").read_text()


def test_temporary_files_stay_in_the_run_directory(tmp_path: Path) -> None:
    run = run_pipeline(f"{HERE}:temporary", {}, tmp_path)
    assert (tmp_path / "tmp").is_dir()
    assert list(run.seconds) == ["tell-temporary-directory"]


def test_modules_that_somebody_put_into_a_shared_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)  # like /tmp
    for name in ("kfp", "docstring_parser", "absl"):
        (shared / f"{name}.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    compile_pipelines([f"{HERE}:temporary"], shared)
    monkeypatch.chdir(shared)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = run_pipeline("temporary.yaml", {}, tmp_path / "run")
    assert list(run.seconds) == ["tell-temporary-directory"]
    assert not (tmp_path / "marker").exists()


def test_an_interrupted_run_leaves_no_process(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    arguments = {"marker": str(marker), "seconds": 600}
    code = (
        "from pathlib import Path\n"
        "from kfp_bento.runtime.local import run_pipeline\n"
        f"run_pipeline('{HERE}:sleeping', {arguments!r}, Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not marker.exists() or not marker.read_text():
        assert parent.poll() is None, parent.stderr and parent.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    parent.wait(timeout=300)  # the step sleeps for longer
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


def test_what_the_local_runner_would_rewrite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="contains the text python3"):
        run_pipeline(f"{HERE}:two_steps", {"settings": {"base": "x/python3"}}, tmp_path)


def test_arguments_take_the_types_of_the_parameters() -> None:
    pipeline = load_pipeline(f"{HERE}:two_steps")
    given = ["number=3", "factor=2", 'names=["a"]', 'settings={"a": 1}', "on=false"]
    assert typed_arguments(pipeline, given) == {
        "number": 3,
        "factor": 2.0,
        "names": ["a"],
        "settings": {"a": 1},
        "on": False,
    }
    assert typed_arguments(pipeline, ["number=3", "names=models:/a@b"])["names"] == ["models:/a@b"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["number"], "is not key=value"),
        (["nombre=1"], "names no parameter"),
        (["number=many"], "is not of type Integer"),
        (["number=1", "names=[1"], "is not of type List"),
        (["number=1", "on=perhaps"], "is not of type Boolean"),
        ([], "needs a value for number"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given: list[str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        typed_arguments(load_pipeline(f"{HERE}:two_steps"), given)


def test_lists_may_say_what_they_hold(tmp_path: Path) -> None:
    pipeline = load_pipeline(f"{HERE}:of_typed_lists")
    given = typed_arguments(pipeline, ['names=["a", "b"]', 'weights={"a": 1.5}'])
    assert given == {"names": ["a", "b"], "weights": {"a": 1.5}}
    with pytest.raises(InvalidInput, match="is not of type Dict"):
        typed_arguments(pipeline, ["names=a", "weights=[1]"])
    run = run_pipeline(f"{HERE}:of_typed_lists", given, tmp_path / "run")
    assert list(run.seconds) == ["joined"]


def test_a_file_of_values_is_checked_like_them_and_single_ones_win() -> None:
    pipeline = load_pipeline(f"{HERE}:two_steps")
    file = {"number": 3, "factor": 2, "names": ["a"], "on": False}
    assert typed_arguments(pipeline, ["number=4"], file) == {**file, "number": 4}


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ({"number": "3"}, "number: '3' is not of type Integer"),
        ({"number": True}, "number: True is not of type Integer"),
        ({"number": 1, "names": {}}, "names: {} is not of type List"),
        ({"number": 1, "on": "no"}, "on: 'no' is not of type Boolean"),
        ({"nombre": 1}, "'nombre' names no parameter"),
        ({"names": []}, "needs a value for number"),
    ],
)
def test_a_file_of_values_that_do_not_fit_is_refused(file: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        typed_arguments(load_pipeline(f"{HERE}:two_steps"), [], file)


def test_a_number_in_a_file_does_not_become_text_of_its_own() -> None:
    with pytest.raises(InvalidInput, match=r"image_base: 3.1 is not of type String") as refused:
        typed_arguments(load_pipeline("serve_model"), [], {"image_base": 3.10})
    assert refused.value.hint == "Quote it."


@pytest.mark.parametrize(
    "reference", ["no_such_pipeline", "missing.yaml", f"{HERE}:missing", "missing_module:x"]
)
def test_a_pipeline_that_is_not_there_is_refused(reference: str) -> None:
    with pytest.raises(InvalidInput):
        load_pipeline(reference)


def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n- 2\n")
    with pytest.raises(InvalidInput, match="no compiled KFP pipeline"):
        load_pipeline(str(file))
