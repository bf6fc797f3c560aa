"""Requests that are put together: the same answers, and nobody gets another one's error."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import kfp_bento.runtime.bentos
from kfp_bento.runtime.bentos.service_source import Speech
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def workers() -> Any:
    """The module that travels with every service."""
    folder = str(Path(kfp_bento.runtime.bentos.__file__).parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("pyfunc_workers")
    finally:
        sys.path.remove(folder)


class Model:
    """Doubles its rows; the first call waits until `go` is set, so that others queue behind it."""

    def __init__(self, answer: Callable[[Any], Any] = lambda data: data["x"] * 2) -> None:
        self.calls: list[int] = []
        self.go = threading.Event()
        self._answer = answer

    def predict(self, data: Any, **_: Any) -> Any:
        self.go.wait(10)
        self.calls.append(len(data))
        return self._answer(data)


def frame(*values: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": list(values)})


def ask(model: Any, data: Any) -> list[Any]:
    return list(model.predict(data))


def answers(
    workers: Any, model: Model, inputs: list[Any], params: list[Any] | None = None, most: int = 100
) -> list[Any]:
    """What each input is answered, where all but the first come while the model works."""

    async def everything() -> list[Any]:
        desk = workers.Desk(model, workers.Workers(1), workers.Batching(most))
        tasks = []
        for number, data in enumerate(inputs):
            given = params[number] if params else None
            asked = desk.asked(lambda data=data: data, len(data), given, ask)
            tasks.append(asyncio.ensure_future(asked))
            await asyncio.sleep(0)
        model.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(everything())


def test_what_waits_is_asked_together_and_split_again(workers: Any) -> None:
    model = Model()
    found = answers(workers, model, [frame(1.0), frame(2.0), frame(3.0, 4.0), frame(5.0)])
    assert found == [[2], [4], [6, 8], [10]]
    assert model.calls == [1, 4]


def test_a_batch_has_no_more_rows_than_allowed(workers: Any) -> None:
    model = Model()
    found = answers(workers, model, [frame(n) for n in range(7)], most=3)
    assert found == [[2 * n] for n in range(7)]
    assert model.calls == [1, 3, 3]


def test_only_what_is_alike_is_put_together(workers: Any) -> None:
    model = Model()
    inputs = [frame(0), frame(1), frame(2), frame(1.5), frame(3)]
    found = answers(workers, model, inputs, [None, {"a": 1}, {"a": 2}, {"a": 1}, {"a": 1}])
    assert found == [[0], [2], [4], [3], [6]]
    assert sorted(model.calls) == [1, 1, 1, 2]  # 1.5 is no integer, and 2 has another parameter


def test_an_error_is_the_answer_to_whoever_caused_it(workers: Any) -> None:
    def choosy(data: pd.DataFrame) -> Any:
        if (data["x"] < 0).any():
            raise ValueError("negative")
        return data["x"] * 2

    found = answers(workers, Model(choosy), [frame(1), frame(2), frame(-1), frame(3)])
    assert [found[n] for n in (0, 1, 3)] == [[2], [4], [6]]
    assert isinstance(found[2], ValueError)


def test_an_answer_that_cannot_be_split_is_asked_for_one_by_one(workers: Any) -> None:
    model = Model(lambda data: np.array([data["x"].sum(), len(data)]))
    found = answers(workers, model, [frame(1), frame(2), frame(3, 4)])
    assert found == [[1, 1], [2, 1], [7, 2]]


@pytest.mark.parametrize(
    "answer",
    [
        pd.DataFrame({"a": [1, 2, 3]}, index=[5, 6, 7]),
        pd.Series(["a", None, "c"]),
        np.arange(6).reshape(3, 2),
        ["a", "b", "c"],
        {"a": np.arange(3), "b": [[1], [2], [3]]},
    ],
)
def test_parts_of_an_answer_are_the_answer(workers: Any, answer: Any) -> None:
    first, second = workers.apart(answer, [1, 2])
    if isinstance(answer, dict):
        assert list(first["b"]) + list(second["b"]) == answer["b"]
        first, second, answer = first["a"], second["a"], answer["a"]
    if isinstance(answer, pd.DataFrame | pd.Series):
        together = pd.concat([first, second], ignore_index=isinstance(answer, pd.Series))
        assert together.equals(answer)
    else:
        assert [*map(np.array2string, map(np.asarray, [*first, *second]))] == [
            *map(np.array2string, map(np.asarray, answer))
        ]


def test_what_no_service_can_do_is_refused_by_name() -> None:
    wrong: list[dict[str, Any]] = [
        {"protocols": ("grpc",)},
        {"max_batch_size": 1},
        {"max_batch_size": -1},
        {"max_latency_ms": 5},
        {"max_batch_size": 10, "max_latency_ms": 10**6},
    ]
    for options in wrong:
        name = "grpc" if "protocols" in options else list(options)[-1]
        with pytest.raises(InvalidInput, match=name):
            Speech(**options)
    assert Speech(("v1", "mlflow")) == Speech(("mlflow", "v1"))
